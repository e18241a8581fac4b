"""The layer over tokens, and the mixture's time over a dense layer's of equal active or equal total parameters."""

from __future__ import annotations

from harness.record import Figure
from harness.units import DASH, full, listed, show, some

from .. import facts, lines
from ..figure import Plot, log_axis, named_axis, reference_line
from ..lines import across
from ..markup import tag
from ..palette import HUES, MARKERS, Look
from ..sweep import Sweep
from ..table import number, row, table
from ..view import View, link, page_of
from .cases import LAYER, MIXTURE, capped, name, of, sweeps, told

OVER = {
    "dense": "dense, equal active parameters",
    "dense-total": "dense, equal total parameters",
    "moe-coarse": "coarse mixture",
}
FOOTINGS = {"dense": "equal active", "dense-total": "equal total"}
ROWS = 24
SLICE = "Tokens are those of one call; for a slice such as -ep8 they are one rank's own."
AXIS = "Mixture over the other layer"
FAIR = (
    "Left of the line the mixture is faster. The best implementation of each; ratios from rounds in which both were "
    "measured, unless they were timed apart. The whisker is the 95 % interval."
)


def latency_plot(sweep: Sweep, name_: str) -> Plot:
    """Decode and prefill over tokens, the fastest implementation of each technique with its floor."""
    operations = list(dict.fromkeys(case.first.operation.split(".", 1)[-1] for _, case in sweep.points))
    word = " and ".join(operations).capitalize()
    return lines.latency_plot(sweep, name_, f"{word} over tokens, {sweep.title}", "Tokens", " " + SLICE)


def over(view: View, case: facts.Case) -> dict[str, Figure]:
    """The best mixture's latency over the best of each other technique."""
    best, found = case.best(MIXTURE), {}
    for technique in OVER:
        other = case.best(technique)
        value = view.ratio(best, other) if best is not None and other is not None else None
        if value is not None:
            found[technique] = value
    return found


def footings(view: View) -> list[tuple[facts.Case, dict[str, Figure]]]:
    """Layer cases in which the mixture and at least one other technique have a latency."""
    found = [(case, over(view, case)) for case in of(view, LAYER)]
    return [(case, values) for case, values in found if values]


def footing_plot(view: View) -> Plot | None:
    """The ratios case by case, one mark a footing; None without any."""
    found = footings(view)
    if not found:
        return None
    shown = found[:ROWS]
    traces, values = [], [1.0]
    for technique, words in OVER.items():
        figures = {name(case): ratios[technique] for case, ratios in shown if technique in ratios}
        if figures:
            hue = view.palette.hue("ffn", technique)
            look = Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)
            traces.append(across(f"over {words}", figures, look))
            values += [figure.value for figure in figures.values()]
    rows = []
    for case, ratios in found:
        cells = [number(full(ratios[t], "ratio") if t in ratios else DASH) for t in OVER]
        rows.append(row([tag("a", name(case), href=link(page_of(case.id))), *cells]))
    layout = {
        "xaxis": log_axis(AXIS, values, "ratio"),
        "yaxis": named_axis([name(case) for case, _ in shown]),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    more = f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        "footings",
        "The mixture's time over a dense layer's, case by case",
        spread(found),
        traces,
        layout,
        table(["Case", *(f">Over {words}" for words in OVER.values())], capped(rows)),
        note=FAIR + more,
        height=170 + 28 * len(shown),
    )


def spread(found: list[tuple[facts.Case, dict[str, Figure]]]) -> str:
    """In how many cases the mixture is ahead of each footing, and the range."""
    parts = []
    for technique, words in OVER.items():
        ranked = sorted(ratios[technique].value for _, ratios in found if technique in ratios)
        if ranked:
            span = show(ranked[0], "ratio")
            if len(ranked) > 1:
                span += f" to {show(ranked[-1], 'ratio')}"
            ahead = sum(value < 1 for value in ranked)
            parts.append(f"over {words}, {span}, ahead in {ahead} of {len(ranked)}")
    return f"The mixture's time {'; '.join(parts)}."


def answer(view: View) -> str | None:
    """Both footings at the first sweep's largest decode and prefill; None where they were not timed together."""
    for sweep in sweeps(view):
        picked = {case.first.operation: (case, over(view, case)) for _, case in sweep.points if over(view, case)}
        kinds = [t for t in FOOTINGS if any(t in ratios for _, ratios in picked.values())]
        if kinds:
            where = "On this GPU" if view.on_gpu else "On this CPU"
            beside = " and of ".join(FOOTINGS[t] for t in kinds)
            start = f"{where} ({sweep.title}) a mixture takes, against a dense layer of {beside} parameters,"
            parts = [f"{listed([taken(r.get(t)) for t in kinds])} the time in {told(c)}" for c, r in picked.values()]
            return f"{start} {'; '.join(parts)}."
    return None


def taken(ratio: Figure | None) -> str:
    """A ratio with its interval, or that there is none."""
    return full(ratio, "ratio") if ratio is not None else "(not measured)"
