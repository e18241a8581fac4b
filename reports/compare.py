"""The compare page: what two runs were taken on, then each time's verdict as drawn and in tables, then exact metrics.

`python -m reports.compare A B` writes it, with everything as JSON beside it. The verdicts are `harness.pairing`'s, the
same that the terminal shows; nothing is computed here but geometry.
"""

from __future__ import annotations

import html
import json
import math
import sys
from collections.abc import Sequence

from harness.compare import arguments, asked_for, data
from harness.deviation import sentences
from harness.lookup import NotFound
from harness.pairing import CODES, Pair, Pairing, geometric_mean, scale
from harness.provenance import commit, label
from harness.record import Figure, Run
from harness.units import DASH, interval, listed, show, some
from harness.verdict import MEANINGS, Kind, percent

from .controls import facet, tools
from .figure import Plot, Trace, log_axis, named_axis, reference_line, rounded
from .folder import publish
from .markup import Child, Html, join, tag
from .palette import HUES
from .table import Cell, number, row, table

JSON = "compare.json"
FACETS: tuple[tuple[Kind, str], ...] = (("slower", "Regressions only"), ("faster", "Improvements only"))
SIGNS: dict[Kind, str] = {"slower": "▲", "faster": "▼", "same": "=", "unclear": "?", "incomparable": DASH}
COLOURS: dict[Kind, str] = {"slower": HUES[1], "faster": HUES[0], "unclear": HUES[3], "same": HUES[6]}
MARKS: dict[Kind, str] = {"slower": "triangle-up", "faster": "triangle-down", "unclear": "diamond", "same": "circle"}
DRAWN = 30
ROWS: dict[Kind, int] = {"slower": 300, "faster": 250, "unclear": 250, "incomparable": 100, "same": 250}
SENTENCES = 100
LIMITS = (
    "Why something is slower. Two runs lie hours or machines apart and nothing cancels between them: differences below "
    "what equal code shows stay unclear. Where both revisions can be run here, make gate measures them side by side."
)


def page(found: Pairing) -> Html:
    """The content of the page."""
    return join(
        tag("p", "Compare", class_="kicker"),
        tag("h1", "What differs between these two runs?"),
        tag("p", answer(found), class_="answer"),
        [tag("p", problem, class_="caution") for problem in found.problems[:5]],
        taken_on(found),
        times(found),
        exact(found),
        alone(found),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
        tag("p", "All of it as data: ", tag("a", JSON, href=JSON), class_="note"),
    )


def answer(found: Pairing) -> str:
    """Verdicts in a sentence, then the exit code's meaning."""
    words = [f"{count} {kind}" for kind, count in found.counts.items()]
    told = (
        f"Of {some(len(found.pairs), 'time')} in both runs, {listed(words)}." if found.pairs else "No time is in both."
    )
    worse = [deviation for deviation in found.counted if deviation.code]
    if found.compared:
        told += f" Of {found.compared:,} exact figures {len(worse) or 'none'} {'is' if len(worse) < 2 else 'are'} worse"
        told += f" or changed ({found.loose}: that fails nothing)." if worse and found.loose else " or changed."
    return f"{told} In all: {CODES[found.code]}."


def run_line(side: str, run: Run) -> Html:
    """A run in a line."""
    header = run.header
    code = tag("code", commit(header) or "commit not recorded")
    words = (
        tag("strong", side),
        tag("span", header.run),
        tag("span", header.started),
        code,
        tag("span", label(header)),
    )
    return tag("p", words, class_="run")


def taken_on(found: Pairing) -> Html:
    """Machine, method, toolchain, clocks and commit side by side, what differs first."""
    ordered = sorted(found.traits, key=lambda trait: not trait.differs)
    rows = [
        row(
            [tag("b", "≠") if t.differs else "=", t.name, t.before, t.after if t.differs else ""],
            class_="differs" if t.differs else "quiet",
        )
        for t in ordered
    ]
    return tag(
        "section",
        tag("h2", "What they were taken on"),
        run_line("A", found.before),
        run_line("B", found.after),
        table(["Same", "What", "A", "B"], rows, label="What the runs were taken on"),
    )


def times(found: Pairing) -> Html:
    """Scale, figure, and a table a verdict."""
    if not found.pairs:
        return tag("section", tag("h2", "Times"), tag("p", scale(found)))
    present = [(kind, word) for kind, word in FACETS if found.of(kind)]
    return tag(
        "section",
        tag("h2", "Times"),
        tag("p", scale(found), f" Ratios up to {percent(found.tolerance)} from 1 are no difference."),
        tools("Filter: decode, mla …", facet("verdict", "Show one verdict", present) if present else None),
        forest(found),
        [group(found, kind) for kind in ("slower", "faster", "unclear", "incomparable", "same")],
        id="times",
    )


def drawn(found: Pairing) -> list[Pair]:
    """Pairs in the figure: slower, faster, unclear, same, until it is full; ordered by ratio."""
    ranked = [pair for kind in ("slower", "faster", "unclear", "same") for pair in found.of(kind)]
    known = [pair for pair in ranked if pair.verdict.ratio and _drawable(pair)]
    return sorted(known[:DRAWN], key=lambda pair: -_ratio(pair))


def _ratio(pair: Pair) -> float:
    return pair.verdict.ratio.value if pair.verdict.ratio else math.nan


def _drawable(pair: Pair) -> bool:
    ratio = pair.verdict.ratio
    return ratio is not None and 0 < ratio.low <= ratio.high < 1e6


def name(pair: Pair) -> str:
    """A pair in an axis label."""
    return f"{pair.contender} · {pair.case}"


def forest(found: Pairing) -> Html | None:
    """Ratios with their intervals, the slowest at the top; None where none is known."""
    shown = drawn(found)
    if not shown:
        return None
    traces: list[Trace] = []
    for kind in ("slower", "faster", "unclear", "same"):
        mine = [pair for pair in shown if pair.verdict.kind == kind]
        if mine:
            traces.append(_trace(kind, mine))
    values = [v for pair in shown if (r := pair.verdict.ratio) for v in (r.low, r.high)]
    axis = log_axis("B over A", [*values, 1.0], "ratio")
    rest = sum(count for kind, count in found.counts.items() if kind != "incomparable") - len(shown)
    most = max(shown, key=lambda pair: abs(math.log(_ratio(pair))))
    takeaway = f"The greatest difference drawn is {name(most)} at {show(_ratio(most), 'ratio')}, {most.verdict.kind}."
    rows = [row([name(pair), *(number(text) for text in _ratio_words(pair)), pair.verdict.kind]) for pair in shown]
    return Plot(
        "ratios",
        "Ratios with their intervals",
        takeaway,
        traces,
        {
            "xaxis": axis,
            "yaxis": named_axis([name(pair) for pair in shown]) | {"tickfont": {"size": 10}},
            "hovermode": "closest",
            **reference_line(1.0, upright=True),
        },
        table(["Contender and case", ">B / A", ">Interval", "Verdict"], rows),
        note="Right of the line B is slower." + (f" {rest} more are in the tables below." if rest > 0 else ""),
        height=130 + 22 * len(shown),
    ).html()


def _trace(kind: Kind, pairs: Sequence[Pair]) -> Trace:
    ratios = [pair.verdict.ratio for pair in pairs if pair.verdict.ratio]
    words = [html.escape(f"{name(p)}: {' '.join(_ratio_words(p))}, {kind}: {p.verdict.reason}") for p in pairs]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "meta": {"verdict": kind},
        "x": [rounded(r.value) for r in ratios],
        "y": [html.escape(name(pair)) for pair in pairs],
        "marker": {"color": COLOURS[kind], "symbol": MARKS[kind], "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": COLOURS[kind],
            "thickness": 1.5,
            "width": 3,
            "array": [rounded(r.high - r.value) for r in ratios],
            "arrayminus": [rounded(r.value - r.low) for r in ratios],
        },
        "text": words,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _ratio_words(pair: Pair) -> tuple[str, str]:
    ratio = pair.verdict.ratio
    if ratio is None or not math.isfinite(ratio.value):
        return DASH, DASH
    known = _drawable(pair)
    figure = Figure(ratio.value, ratio.low if known else None, ratio.high if known else None)
    return show(ratio.value, "ratio"), interval(figure, "ratio") or DASH


def group(found: Pairing, kind: Kind) -> Html | None:
    """Everything with one verdict; what is the same or incomparable is folded."""
    pairs = found.of(kind)
    if not pairs:
        return None
    mean = geometric_mean(pairs) if kind in ("slower", "faster") else None
    told = f", geometric mean {show(mean, 'ratio')}" if mean else ""
    title = (tag("b", SIGNS[kind]), f" {len(pairs)} {kind}{told}: {MEANINGS[kind]}")
    left = len(pairs) - ROWS[kind]
    body = (
        table(["Case", "Contender", ">A", ">B", ">B / A", "Why"], [_row(pair) for pair in pairs[: ROWS[kind]]],
              class_="filterable outcomes", label=f"{kind} times"),
        tag("p", f"{left} more stand in {JSON}.", class_="note") if left > 0 else None,
    )  # fmt: skip
    return tag("details", tag("summary", title), body, class_=f"outcome {kind}", open=kind in ("slower", "faster"))


def _row(pair: Pair) -> Html:
    ratio, bounds = _ratio_words(pair)
    times_shown = [number(show(record.value("latency"), "ns")) for record in (pair.before, pair.after)]
    value = tag("span", ratio, tag("small", bounds) if bounds != DASH else None, class_="v")
    same = " Its file is the same in both." if pair.unchanged and pair.verdict.kind == "same" else ""
    return row([pair.case, pair.contender, *times_shown, number(value), Cell(pair.verdict.reason + same, class_="why")],
               data_verdict=pair.verdict.kind)  # fmt: skip


def exact(found: Pairing) -> Html:
    """Exact metrics that differ, the gravest first."""
    if not found.compared:
        return tag("section", tag("h2", "Exact metrics"), tag("p", "None is in both runs."))
    said = sentences(found.counted)
    differ = "differs" if len(found.counted) == 1 else "differ"
    lead = f"{found.compared:,} figures without noise are in both runs; {len(found.counted):,} {differ}."
    if found.counted and found.loose:
        lead += f" They fail nothing, because {found.loose}."
    return tag(
        "section",
        tag("h2", "Exact metrics"),
        tag("p", lead),
        tag("ul", [tag("li", sentence) for sentence in said[:SENTENCES]], class_="failures") if said else None,
        tag("p", f"{len(said) - SENTENCES} more stand in {JSON}.", class_="note") if len(said) > SENTENCES else None,
        id="exact",
    )


def alone(found: Pairing) -> Html | None:
    """What gives a result in one run only, by reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for lone in found.alone:
        groups.setdefault((lone.side, lone.reason), []).append(f"{lone.record.contender} in {lone.record.case}")
    if not groups:
        return None
    items: list[Child] = [
        tag("li", f"Only in {side}: ", tag("b", some(len(names), "result")), f" ({names[0]}"
            f"{', …' if len(names) > 1 else ''}): {reason}.")
        for (side, reason), names in list(groups.items())[:SENTENCES]
    ]  # fmt: skip
    return tag("section", tag("h2", "Results of one run only"), tag("ul", items, class_="failures"), id="alone")


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 the page is written, else what `harness.compare` says."""
    asked = arguments("python -m reports.compare", words)
    try:
        found = asked_for(asked)
        texts = {JSON: json.dumps(data(found), indent=1, default=str)}
        written = publish(asked.out, {"index.html": ("Compare", page(found))}, texts)
    except NotFound as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Open {written[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
