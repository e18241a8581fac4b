"""What MTP costs in training: time, memory and parameters of a step beside next-token prediction's, by depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.record import Figure, Record
from harness.units import DASH, full, listed, show, some

from .. import facts
from ..figure import Plot, log_axis, named_axis, reference_line
from ..lines import across
from ..markup import Html
from ..table import Cell, number, row, table
from ..view import View
from .cases import MTP, NTP, PARALLEL, STEP, capped, depth, hue_look, linked, of, row_names, span

TECHNIQUES = (MTP, PARALLEL)
ROWS = 20
Found = list[tuple[facts.Case, dict[str, Figure]]]


def compared(view: View) -> Found:
    """Cases in which an MTP and next-token prediction were both timed, by depth."""
    found = []
    for case in of(view, STEP):
        base, ratios = case.best(NTP), {}
        for technique in TECHNIQUES:
            best = case.best(technique)
            value = view.ratio(best, base) if best is not None and base is not None else None
            if value is not None:
                ratios[technique] = value
        if ratios:
            found.append((case, ratios))
    return sorted(found, key=lambda item: depth(item[0]))


def step_plot(view: View) -> Plot | None:
    """Time over next-token prediction's, a row a case; None where nothing was compared."""
    found = compared(view)
    if not found:
        return None
    shown, traces, drawn = found[:ROWS], [], [1.0]
    names = row_names([case for case, _ in shown])
    for technique in TECHNIQUES:
        figures = {names[case.id]: ratios[technique] for case, ratios in shown if technique in ratios}
        if figures:
            traces.append(across(technique, figures, hue_look(view, technique)))
            drawn += [figure.value for figure in figures.values()]
    layout = {
        "xaxis": log_axis("Time over next-token prediction's", drawn, "ratio"),
        "yaxis": named_axis(list(names.values())),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    note = "Forward and backward of whole models that share what predicts the next token; the optimizer's update is "
    note += "not in it. The fastest implementation of each, whiskers are 95 % intervals. mtp adds a block, two norms, "
    note += "a projection and one more pass of the head for each depth; mtp-parallel a block and the head."
    note += f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        "step",
        "A training step with MTP",
        spread(found),
        traces,
        layout,
        step_table(view, [case for case, _ in found]),
        note=note,
        height=190 + 36 * len(shown),
    )


def spread(found: Found) -> str:
    """The range of each technique, and by depth where there are several."""
    parts = [f"{t} {told}" for t in TECHNIQUES if (told := over_depths(found, t))]
    return f"Time of a step over next-token prediction's: {'; '.join(parts)}."


def over_depths(found: Found, technique: str) -> str:
    """Its ratios by depth: `1.5× at depth 1, 2.7× at depth 3`."""
    depths: dict[int, list[float]] = {}
    for case, ratios in found:
        if technique in ratios:
            depths.setdefault(depth(case), []).append(ratios[technique].value)
    return listed([f"{span(values, 'ratio')} at depth {level}" for level, values in sorted(depths.items())])


def step_table(view: View, cases: Sequence[facts.Case]) -> Html:
    """Time, memory and parameters of each technique's fastest, over next-token prediction's."""
    rows = []
    for case in cases:
        base = case.best(NTP)
        for technique in (NTP, *TECHNIQUES):
            best = case.best(technique)
            if best is None:
                continue
            ratio = view.ratio(best, base) if base else None
            cells: list[Cell | str] = [
                number(str(depth(case))),
                best.contender,
                view.cell(best, "latency"),
                number(full(ratio, "ratio") if ratio and best is not base else DASH),
                *(beside(view, best, base, metric) for metric in ("peak", "resident", "model_parameters")),
            ]
            rows.append(row([linked(case), *cells]))
    heads = ["Case", ">Depth", "Contender", ">Time", ">Over ntp", ">Peak of a step", ">Resident", ">Parameters"]
    return table(heads, capped(rows))


def beside(view: View, record: Record, base: Record | None, metric: str) -> Cell:
    """A figure with its ratio to the baseline's."""
    value, other = record.value(metric), base.value(metric) if base else None
    if value is None:
        return number(DASH)
    ratio = f" ({show(value / other, 'ratio')})" if other and record is not base else ""
    return number(f"{show(value, view.unit(metric))}{ratio}")


def growth(view: View, case: facts.Case) -> Mapping[str, float]:
    """Peak memory of a step and parameters of MTP over next-token prediction's, as far as they are known."""
    base, best = case.best(NTP), case.best(MTP)
    if base is None or best is None:
        return {}
    known = {metric: (best.value(metric), base.value(metric)) for metric in ("peak", "model_parameters")}
    return {metric: over / under for metric, (over, under) in known.items() if over and under}


def answer(view: View) -> str | None:
    """Time, memory and parameters at the least depth; then the deepest's time. None where nothing was compared."""
    found = [(case, ratios[MTP]) for case, ratios in compared(view) if MTP in ratios]
    if not found:
        return None
    first, ratio = found[0]
    more = growth(view, first)
    words = {"peak": "the peak memory", "model_parameters": "the parameters"}
    parts = [f"{full(ratio, 'ratio')} the time", *(f"{show(v, 'ratio')} {words[metric]}" for metric, v in more.items())]
    text = f"A training step that also predicts {some(depth(first), 'further token')} takes {listed(parts)}"
    last, deepest = found[-1]
    if depth(last) > depth(first):
        text += f"; with {some(depth(last), 'further token')}, {show(deepest.value, 'ratio')} the time"
    return f"{text}."
