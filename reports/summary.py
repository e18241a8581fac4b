"""The whole site in one file: what each study of each run found, in sentences and small tables.

For where one file travels better than a folder: an attachment, a build artifact, a mail. It has its style inside, no
script, and neither loads nor links to anything. Wins by being whole anywhere; loses everything that can be looked into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.units import DASH, digits, show, some

from . import facts, ideas
from .claims.evidence import Judged
from .claims.page import answer as claims_answer
from .claims.page import counts as verdict_counts
from .intensity import roofs
from .markup import Child, Html, join, tag
from .page import badge, strip
from .roofline_plot import roof_words
from .study import answer
from .table import Cell, number, row, table
from .view import CPU_SENTENCE, View

NAME = "summary.html"
WIDTH, HEIGHT, REACH = 168, 18, 5  # of the drawn ratios: pixels, and powers of two to either side
STYLE = Path(__file__).parent / "static" / "style.css"
COLUMNS = ("Technique", ">Ratio", "1/32 to 32", ">Fastest in", ">Cases", ">Share of floor", "By")
LIMITS = (
    "Single cases, samples, verification, sources, and what failed and why: these are on the pages of the site that "
    "this file was built with. Runs of different machines stand one below the other and are not to be divided."
)


def page(views: Sequence[View], judged: Sequence[Judged]) -> str:
    """The whole document."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "Summary · whalebench"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    ]
    main = tag("main", content(views, judged), id="main")
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', main), lang='en')}\n"


def content(views: Sequence[View], judged: Sequence[Judged]) -> Html:
    """Question, answer, runs, claims, limits."""
    return join(
        tag("p", "whalebench · Summary", class_="kicker"),
        tag("h1", "What do DeepSeek's ideas buy, measured on these machines?"),
        tag("p", lead(views), class_="answer"),
        ideas.section(views, linked=False),
        [run(view) for view in views],
        claims(judged),
        tag("section", tag("h2", "How to read the tables"), tag("p", READING), tag("p", METHOD)),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
    )


READING = (
    "Of each technique the fastest implementation of a case counts. Fastest in: cases in which no other technique is "
    "faster. Time over the baseline's: median over cases, with least and greatest; drawn from 1/32 to 32, the stroke "
    "is equal time, left of it is faster. Share of floor: the least time the measured ceilings allow, over the time "
    "taken; 1 is the hardware's limit."
)
METHOD = (
    "Every result is verified against a reference before and after it is timed; one that fails has no time. Contenders "
    "are timed in turn with cold caches; latencies are medians, ratios come from rounds measured in turn."
)


def lead(views: Sequence[View]) -> str:
    """What is here, in a sentence."""
    records = [record for view in views for record in view.run.records]
    timed = sum("latency" in record.figures for record in records)
    studies = len({record.study for record in records})
    return (
        f"{some(len(views), 'run')} of {studies} {'study' if studies == 1 else 'studies'}: {timed} of {len(records)} "
        "results have a time; each study's answer stands below, with the machine it holds for."
    )


def run(view: View) -> Html:
    """A run: where and when, then its studies."""
    line = [
        badge("GPU" if view.on_gpu else "CPU"),
        tag("code", view.commit),
        badge("dirty tree") if view.dirty else None,
        strip(view.run.records),
    ]
    ceilings = roof_words(roofs(view))
    return tag(
        "section",
        tag("h2", f"{view.label}, {view.date}"),
        tag("p", line, class_="run"),
        None if view.on_gpu else tag("p", CPU_SENTENCE, class_="caution"),
        tag("p", f"Measured ceilings: {ceilings}.", class_="note") if ceilings else None,
        [study(view, name) for name in view.studies()],
    )


def study(view: View, name: str) -> Html:
    """A study's answer and its table."""
    cases = [case for case in view.of(name) if case.passed]
    techniques = facts.techniques(record for case in cases for record in case.passed)
    rows = [technique_row(view, cases, technique) for technique in techniques]
    return join(
        tag("h3", name.capitalize()),
        tag("p", answer(view, name)),
        table(COLUMNS, rows, label=f"Techniques of {name}, {view.folder}") if rows else None,
    )


def technique_row(view: View, cases: Sequence[facts.Case], technique: str) -> Html:
    """A technique by its fastest implementation in each case."""
    found = [(case, record) for case in cases if (record := case.best(technique)) is not None]
    first = sum(case.passed[0] is record for case, record in found)
    ratios = [value for _, record in found if (value := record.value("ratio")) is not None]
    shares = [value for _, record in found if (value := record.value("floor_share")) is not None]
    names = [record.implementation for _, record in found]
    most = max(dict.fromkeys(names), key=names.count)
    spread = f"{digits(min(ratios))} to {digits(max(ratios))}" if len(ratios) > 1 else None
    middle: Child = (
        tag("span", show(float(np.median(ratios)), "ratio"), tag("small", spread), class_="v") if ratios else DASH
    )
    return row(
        [
            tag("b", technique),
            number(middle),
            Cell(drawn(ratios)),
            number(first),
            number(len(found)),
            number(show(float(np.median(shares)), "share") if shares else DASH),
            f"{most}, {names.count(most)} of {len(names)}",
        ]
    )


def drawn(ratios: Sequence[float]) -> Html | None:
    """Range and median of ratios as a small drawing on a logarithmic scale; the table has them in figures."""
    kept = [value for value in ratios if value > 0]
    if not kept:
        return None
    low, middle, high = (_place(value) for value in (min(kept), float(np.median(kept)), max(kept)))
    one, half = _place(1.0), HEIGHT // 2
    return tag(
        "svg",
        tag("line", x1=0, x2=WIDTH, y1=half, y2=half, stroke="var(--rule)"),
        tag("line", x1=one, x2=one, y1=1, y2=HEIGHT - 1, stroke="var(--ink)"),
        tag("line", x1=low, x2=high, y1=half, y2=half, stroke="var(--h2)", stroke_width=4),
        tag("circle", cx=middle, cy=half, r=5, fill="var(--h2)"),
        width=WIDTH,
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        aria_hidden="true",
    )


def _place(ratio: float) -> int:
    inside = min(max(math.log2(ratio), -REACH), REACH)
    return round(6 + (inside + REACH) / (2 * REACH) * (WIDTH - 12))


def claims(judged: Sequence[Judged]) -> Html:
    """The ledger in a few sentences and a table of verdicts."""
    rows = [row([tag("b", word), number(count)]) for word, count in verdict_counts(judged)]
    return tag(
        "section",
        tag("h2", "Published claims"),
        tag("p", claims_answer(judged)),
        table(["Verdict", ">Claims"], rows, class_="grid", label="Verdicts"),
    )
