"""A study's page: its question, the answer computed from the records, evidence, every contender, and what is not shown.

This serves any study and any operation. A study that has more to show brings a package of its own name beside this
file with `QUESTION`, `answer(view)`, `sections(view)` and `limits(view)`; nothing here has to know it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.record import Record
from harness.units import digits, show

from . import facts
from .markup import Child, Html, join, tag
from .page import badges
from .table import Cell, number, table
from .view import View, link, page_of

ROW_LIMIT = 460
CASES = 200
COLUMNS = (">Latency", ">Ratio", ">Share of floor", ">Memory", ">Peak", ">Throughput", "Cautions")


def story(study: str) -> Any | None:
    """The package of a study's own figures, or None."""
    name = f"{__package__}.{study}"
    if not study.isidentifier() or importlib.util.find_spec(name) is None:
        return None
    module = importlib.import_module(name)
    return module if hasattr(module, "QUESTION") else None


def answer(view: View, study: str) -> str:
    """The study's answer in a sentence or two; several pages of a site tell it, and it is worked out once."""
    if study not in view.answers:
        own = story(study)
        view.answers[study] = str(own.answer(view)) if own else general_answer(view, study)
    return view.answers[study]


def general_answer(view: View, study: str) -> str:
    """How often the fastest contender beats the baseline, and by how much."""
    cases = view.of(study)
    timed = [case for case in cases if case.passed]
    if not timed:
        return f"Nothing was timed: none of the {len(cases)} cases has a contender that passed."
    ratios = []
    for case in timed:
        baseline = case.baseline
        value = case.passed[0].value("ratio")
        if baseline is not None and value is not None and case.passed[0] is not baseline:
            ratios.append(value)
    where = "on this GPU" if view.on_gpu else "on this CPU"
    if not ratios:
        return f"The baseline is the fastest in each of the {len(timed)} cases timed {where}."
    median = float(np.median(ratios))
    return (
        f"Something beats the baseline in {len(ratios)} of {len(timed)} cases timed {where}: the fastest contender "
        f"takes {digits(median)} of the baseline's time in the median, {digits(min(ratios))} at best."
    )


def page(view: View, study: str) -> Html:
    """The content of a study's page."""
    own = story(study)
    question = own.QUESTION if own else f"What does each technique of the {study} study cost and gain?"
    limits = own.limits(view) if own else general_limits(view)
    return join(
        tag("p", f"Study · {study}", class_="kicker"),
        tag("h1", question),
        tag("p", answer(view, study), class_="answer"),
        own.sections(view) if own else None,
        contenders(view, study),
        tag(
            "section",
            tag("h2", "What this does not show"),
            tag("ul", [tag("li", item) for item in limits]),
            id="limits",
        ),
    )


def general_limits(view: View) -> list[str]:
    """What no run of this suite shows."""
    found = [
        "Throughput and latency are of one layer or one operation, not of a whole model, unless the operation says so.",
        "Inputs are random: what depends on real data (expert balance, acceptance, outliers) is not in them.",
    ]
    found.append(
        "One GPU, with its clocks as they were: no communication between GPUs is in these numbers."
        if view.on_gpu
        else "A CPU's cache, bandwidth and arithmetic relate differently from a GPU's: rankings do not carry over."
    )
    return found


def contenders(view: View, study: str) -> Html:
    """Every contender of every case; on large runs the best of each technique, with the number left out."""
    cases, further = view.of(study)[:CASES], view.of(study)[CASES:]
    depth = depth_for(cases)
    bodies = [case_rows(view, case, depth) for case in cases]
    hidden = sum(max(len(case.records) - depth, 0) for case in cases)
    note = "Each case links to its page: samples, verification, memory, source and the command that repeats it."
    if hidden:
        note += f" {hidden} slower or failed contenders are left out here and stand on the pages of their cases."
    words = tag(
        "input", type="search", class_="filter", placeholder="Filter: mla, decode, oom …", aria_label="Filter rows"
    )
    return tag(
        "section",
        tag("h2", "Every case, every contender"),
        tag("p", note),
        tag("div", words, tag("span", class_="filtered", aria_live="polite"), class_="tools"),
        table(["Contender", *COLUMNS], bodies, class_="contenders filterable", label="Contenders by case"),
        links(further),
        id="contenders",
    )


def links(cases: Sequence[facts.Case]) -> Html | None:
    """The cases that the table has no room for, as links alone."""
    if not cases:
        return None
    found = [(tag("a", case.id, href=link(page_of(case.id))), " ") for case in cases]
    return tag("details", tag("summary", f"{len(cases)} further cases"), tag("p", found))


def depth_for(cases: Sequence[facts.Case]) -> int:
    """How many contenders of a case the table can show without the page growing past its budget."""
    most = max((len(case.records) for case in cases), default=0)
    while most > 1 and sum(1 + min(len(case.records), most) for case in cases) > ROW_LIMIT:
        most -= 1
    return most


def ranked(case: facts.Case) -> list[Record]:
    """The best of each technique first, then the others by latency, then what has none."""
    best = [found for t in facts.techniques(case.records) if (found := case.best(t)) is not None]
    best.sort(key=lambda record: record.figures["latency"].value)
    return [*best, *(r for r in case.passed if r not in best), *case.untimed]


def case_rows(view: View, case: facts.Case, depth: int) -> Html:
    """A heading with the case's link, then its contenders."""
    shown = ranked(case)[:depth]
    shown.sort(key=lambda r: (r.status != "passed", r.value("latency") or 0.0, r.status == "unavailable"))
    fastest = case.passed[0].value("latency") if case.passed else None
    head = tag("th", tag("a", case.id, href=link(page_of(case.id))), colspan=len(COLUMNS) + 1, scope="rowgroup")
    return join(tag("tr", head, class_="group"), [contender_row(view, case, r, fastest) for r in shown])


def contender_row(view: View, case: facts.Case, record: Record, fastest: float | None) -> Html:
    """Figures of a contender that passed, the reason of one that did not."""
    name = contender_name(view, record)
    if record.status != "passed":
        why = tag(
            "span", tag("b", facts.status_words(record.status)), f": {record.reason}", class_=f"why {record.status}"
        )
        return tag("tr", Cell(name).html(), tag("td", why, colspan=len(COLUMNS)), data_case=case.id)
    latency = record.value("latency")
    relative = fastest / latency if fastest and latency else None
    share = record.value("floor_share")
    cells: list[Cell | Child] = [
        name,
        view.cell(record, "latency", relative),
        ratio_cell(view, record),
        number(show(share, "share"), share) if share is not None else view.cell(record, "floor_share"),
        view.cell(record, "resident"),
        view.cell(record, "peak"),
        view.cell(record, "throughput"),
        badges(view, record),
    ]
    return tag("tr", [(c if isinstance(c, Cell) else Cell(c)).html() for c in cells], data_case=case.id)


def ratio_cell(view: View, record: Record) -> Cell:
    """The ratio to the case's baseline; the baseline itself is called that."""
    if record.baseline == record.contender:
        return number(tag("span", "baseline", class_="quiet"))
    return view.cell(record, "ratio")


def contender_name(view: View, record: Record) -> Html:
    """Technique in its colour, implementation, kind."""
    dot = tag("i", class_=f"dot {view.palette.mark(record.study, record.technique)}")
    return join(dot, record.contender, " ", tag("small", record.kind, class_="kind"))
