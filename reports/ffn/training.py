"""Balance over training: how even each arm keeps its experts, and what that does to validation."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, MISSING, digits, listed, some, whole

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, line, log_axis, rounded
from ..lines import PLAIN_HUES
from ..markup import Html
from ..palette import HUES, MARKERS, Look
from ..samples import spaced
from ..table import Cell, number, row, table
from ..view import View, plain
from .cases import capped, last_step, shortened, spoken, trainings

ARMS = ("none", "expert-loss", "device-loss", "bias", "bias-sequence")
HUE = (HUES[6], HUES[3], HUES[1], HUES[2], HUES[0], *PLAIN_HUES)
MARKED = 24
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Arm:
    """One way to balance in one training case."""

    record: Record

    @property
    def name(self) -> str:
        """The arm."""
        return self.record.implementation

    def points(self, series: str) -> Points:
        """(step, value) of a series; empty unless every step has a value or a gap."""
        steps, values = self.record.series.get("step") or (), self.record.series.get(series) or ()
        pairs = [(plain(s), plain(v)) for s, v in zip(steps, values, strict=False)]
        kept = [(s, v) for s, v in pairs if s is not None and v is not None and math.isfinite(v)]
        return kept if len(steps) == len(values) else []

    def late(self, series: str) -> float | None:
        """Median over the last quarter of the steps recorded."""
        values = [v for _, v in self.points(series)]
        return statistics.median(values[-max(1, len(values) // 4) :]) if values else None


def arms(case: facts.Case) -> list[Arm]:
    """The arms that passed, the known ones in their order."""
    found = [Arm(record) for record in case.records if record.status == "passed"]
    return sorted(found, key=lambda arm: (ARMS.index(arm.name) if arm.name in ARMS else len(ARMS), arm.name))


def shown(view: View) -> str | None:
    """Which training the figures show, and what a shortened one leaves out; None without any."""
    found = [case for case in trainings(view) if any(arm.points(name) for arm in arms(case) for name in NOTES)]
    if not found:
        return None
    case, count = found[0], len(arms(found[0]))
    steps = max(last_step(arm.record) for arm in arms(case))
    text = f"Shown: {case.first.model}/{case.first.sizes}, {some(count, 'arm')} at {whole(steps)} steps."
    if shortened(case):
        text += " It is the shortened form that make bench trains; make balance trains every arm of a larger model."
    if len(found) > 1:
        others = listed([f"{other.first.model}/{other.first.sizes}" for other in found[1:]])
        text += f" In the tables also, as shorter or with fewer arms: {others}."
    return text


def violation_plot(view: View) -> Plot | None:
    """MaxVio over steps, a line an arm; None without."""
    return plot(view, "max_violation", "violation", "Imbalance over training", "MaxVio")


def bits_plot(view: View) -> Plot | None:
    """Validation bits a byte over steps, a line an arm; None without."""
    return plot(view, "validation_bits", "bits", "Validation over training", "Validation, bits a byte")


def plot(view: View, series: str, name: str, title: str, axis: str) -> Plot | None:
    """A series over steps of the first training case that has it."""
    found = [(case, drawn) for case in trainings(view) if (drawn := [arm for arm in arms(case) if arm.points(series)])]
    if not found:
        return None
    case, drawn = found[0]
    traces = [trace(i, arm, series, axis) for i, arm in enumerate(drawn[:MAX_SERIES])]
    layout = {
        "xaxis": {"title": {"text": "Step"}},
        "yaxis": value_axis(series, axis, traces),
        "hovermode": "closest",
    }
    hidden = len(drawn) - MAX_SERIES
    more = f" In the table: {some(hidden, 'more arm')}." if hidden > 0 else ""
    return Plot(
        name,
        f"{title}, {case.first.model}/{case.first.sizes}",
        extremes(drawn, series, axis),
        traces,
        layout,
        numbers(view, series),
        note=NOTES[series] + more,
    )


def value_axis(series: str, axis: str, traces: Sequence[Trace]) -> dict[str, object]:
    """MaxVio on a logarithmic axis; validation without the first third of training, beside which arms look alike."""
    values = [y for one in traces for y in one["y"]]
    if series == "max_violation" and min(values) > 0:
        return log_axis(axis, values, "count")
    last = max(x for one in traces for x in one["x"])
    late = [y for one in traces for x, y in zip(one["x"], one["y"], strict=True) if x >= last / 3]
    if series == "max_violation" or max(late) == min(late):
        return {"title": {"text": axis}}
    spare = 0.06 * (max(late) - min(late))
    return {"title": {"text": axis}, "range": [rounded(min(late) - spare), rounded(max(late) + spare)]}


NOTES = {
    "max_violation": "MaxVio: the busiest expert's tokens over the mean, less one; 0 is even. Of a training "
    "batch; in the table also over the whole validation set, where recorded.",
    "validation_bits": "Lower is better; the start of training may lie above the plot. Another seed would move "
    "these lines, too.",
}


def trace(place: int, arm: Arm, series: str, axis: str) -> Trace:
    """An arm's line, thinned, with markers only where they can be told apart."""
    points = arm.points(series)
    kept = [points[i] for i in spaced(len(points)).tolist()]
    known = ARMS.index(arm.name) if arm.name in ARMS else min(len(ARMS) + place, len(HUE) - 1)
    look = Look(HUE[known], "dash" if arm.name == "none" else "solid", MARKERS[known % len(MARKERS)], 1.0)
    words = f"{html.escape(arm.name)}, step %{{x}}: {axis} %{{y}}<extra></extra>"
    found = line(arm.name, [s for s, _ in kept], [v for _, v in kept], look, words)
    return found if len(kept) <= MARKED else found | {"mode": "lines"}


def extremes(drawn: Sequence[Arm], series: str, axis: str) -> str:
    """The best and the worst arm over the last quarter of training."""
    ranked = sorted((value, arm.name) for arm in drawn if (value := arm.late(series)) is not None)
    (least, best), (most, worst) = ranked[0], ranked[-1]
    text = f"{axis} over the last quarter of training: {exact(least, series)} with {spoken(best)}"
    return f"{text}." if len(ranked) == 1 else f"{text}, the least, to {exact(most, series)} with {spoken(worst)}."


def numbers(view: View, series: str) -> Html:
    """Arms of every training case at a few steps, then over the last quarter, then MaxVio over the validation set."""
    rows = []
    for case in trainings(view):
        for arm in arms(case):
            points = arm.points(series)
            picked = (
                [points[i] for i in sorted({round(part * (len(points) - 1)) for part in (0, 0.25, 0.5, 1)})]
                if (points)
                else []
            )
            told = ", ".join(f"{whole(s)}: {exact(v, series)}" for s, v in picked) or MISSING
            last: list[Cell] = [number(exact(arm.late(series), series))]
            if series == "max_violation":
                last.append(number(exact(arm.late("max_violation_global"), series)))
            rows.append(row([f"{case.first.model}/{case.first.sizes}", arm.name, told, *last]))
    more = [">Validation set, last quarter"] if series == "max_violation" else []
    return table(["Case", "Arm", "At steps", ">Last quarter", *more], capped(rows))


def exact(value: float | None, series: str) -> str:
    """A number, or a dash: bits to the digit in which arms differ."""
    return DASH if value is None else digits(value, 4 if series == "validation_bits" else 3)


def answer(view: View) -> str | None:
    """Imbalance and validation without balancing beside the most even arm; None without training records."""
    for case in trainings(view):
        found = {arm.name: (arm.late("max_violation"), arm.late("validation_bits")) for arm in arms(case)}
        levels = {name: level for name, (level, _) in found.items() if level is not None}
        if levels:
            even = min(levels, key=lambda name: levels[name])
            parts = [
                f"{digits(levels[name])}{bits(found[name][1])} with {spoken(name)}"
                for name in dict.fromkeys(["none", even])
                if name in levels
            ]
            start = f"In training ({case.first.model}), the busiest expert's excess over the mean (MaxVio) comes to"
            return f"{start} {listed(parts)}."
    return None


def bits(value: float | None) -> str:
    """Validation in brackets, where known."""
    return "" if value is None else f" (validation {digits(value, 4)} bits a byte)"
