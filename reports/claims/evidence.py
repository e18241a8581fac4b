"""From a claim's joins to records: which cases have the quantity, its value and interval, and which conditions hold.

A figure without an interval stays without one, unless it is a count: then it is its own interval. Ratios of latencies
are paired as everywhere in these pages. A mean over seeds has a t interval from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from harness.record import Figure, Record

from .. import facts
from ..seeds import mean_interval, without_seed
from ..view import View, mapping, plain
from . import verdict
from .claim import Claim, Condition, Form, Join

FEWEST_SEEDS = 3
UNITS: dict[Form, str] = {"ratio": "ratio", "speed-up": "ratio", "saving": "share", "change": "share",
                          "distance": "share"}  # fmt: skip
FALLING = ("speed-up", "saving")
RATES = ("byte_rate", "flop_rate", "throughput", "floor_share")  # over latency, whose interval is theirs


@dataclass(frozen=True)
class Held:
    """A condition as a record has it."""

    condition: Condition
    ours: str
    same: bool


@dataclass(frozen=True)
class Evidence:
    """A quantity as recorded: of which contender in which case, and the verdict on it.

    cases   those its figure is a mean of, or those it was chosen from
    """

    join: Join
    view: View
    case: facts.Case
    record: Record
    over: Record | None
    figure: Figure
    unit: str
    held: tuple[Held, ...]
    cases: int = 1

    @property
    def comparable(self) -> bool:
        """Whether every essential condition is the published one."""
        return all(one.same or not one.condition.essential for one in self.held)

    @property
    def verdict(self) -> str:
        """The rule's word on it."""
        return verdict.judge(self.figure, self.join.effect, self.comparable)


@dataclass(frozen=True)
class Judged:
    """A claim with all evidence found for it, the decisive one first, and its verdict."""

    claim: Claim
    evidence: tuple[Evidence, ...]

    @property
    def verdict(self) -> str:
        """Arithmetic where sums settle it, else the first evidence's, else that it was not measured."""
        if self.claim.identity:
            return verdict.settle(self.claim.identity)
        return self.evidence[0].verdict if self.evidence else verdict.NOT_MEASURED


def judge(claims: Sequence[Claim], views: Sequence[View]) -> list[Judged]:
    """Every claim with what these runs say about it."""
    return [
        Judged(claim, tuple(found for join in claim.joins if (found := evidence(join, views)) is not None))
        for claim in claims
    ]


def evidence(join: Join, views: Sequence[View]) -> Evidence | None:
    """What a join finds: comparable before not, a GPU's before a CPU's, the newest run's before older ones'."""
    found = [
        one for view in views if fnmatchcase(view.run.header.device, join.device) for one in candidates(join, view)
    ]
    found.sort(key=lambda one: (not one.comparable, not one.view.on_gpu))
    return found[0] if found else None


def candidates(join: Join, view: View) -> list[Evidence]:
    """At most one of a run, or one a group of seeds."""
    single = [one for case in view.cases if matches(join, case) and (one := single_case(join, view, case)) is not None]
    if join.pick == "mean":
        groups: dict[str, list[Evidence]] = {}
        for one in single:
            groups.setdefault(without_seed(one.case.first), []).append(one)
        return sorted((mean(group) for group in groups.values()), key=lambda one: -one.cases)
    if join.pick == "best" and single:
        sign = -1.0 if join.effect.larger else 1.0
        first = min(single, key=lambda one: (not one.comparable, sign * one.figure.value))
        return [_of(first, first.figure, len(single))]
    return single


def matches(join: Join, case: facts.Case) -> bool:
    """Whether a case is of the join's operation, model and sizes."""
    first = case.first
    asked = ((first.operation, join.operation), (first.model, join.model), (first.sizes, join.sizes))
    return all(fnmatchcase(name, pattern) for name, pattern in asked)


def single_case(join: Join, view: View, case: facts.Case) -> Evidence | None:
    """The quantity in one case, or None where a part of it is missing."""
    record = best(join.of, join.metric, view, case)
    over = best(join.over, join.metric, view, case) if join.over else None
    if record is None or (join.over and over is None):
        return None
    signed = replace(join, form="change") if join.form == "distance" and join.pick == "mean" else join
    figure = quotient(signed, view, record, over) if over is not None else recorded(record, join.metric)
    figure = known(figure, join.exact)
    scale = scaling(join, view, record) if figure is not None else None
    if figure is None or scale is None:
        return None
    figure = _each(figure, lambda value: value * scale)
    unit = "share" if join.per else UNITS.get(join.form) or view.unit(join.metric)
    held = tuple(hold(one, view, record, over) for one in join.conditions)
    return Evidence(join, view, case, record, over, figure, unit, held)


def best(pattern: str, metric: str, view: View, case: facts.Case) -> Record | None:
    """The best contender of a pattern that has the metric; the first where neither way is better."""
    found = [r for r in case.records if fnmatchcase(r.contender, pattern) and metric in r.figures]
    declared = view.metrics.get(metric)
    sign = {"lower": 1.0, "higher": -1.0}.get(declared.better if declared else "", 0.0)
    return min(found, key=lambda r: sign * r.figures[metric].value, default=None)


def quotient(join: Join, view: View, record: Record, over: Record) -> Figure | None:
    """Of two contenders of one case, in the form asked for; None where it would divide by nothing."""
    top, bottom = record.figures[join.metric], over.figures[join.metric]
    if top.value <= 0 or bottom.value <= 0:
        return None
    if join.metric == "latency":
        ratio = view.ratio(record, over)
    elif None in (top.low, top.high, bottom.low, bottom.high) or not bottom.low:
        ratio = Figure(top.value / bottom.value)
    else:
        assert top.low is not None and top.high is not None and bottom.high is not None
        ratio = Figure(top.value / bottom.value, top.low / bottom.high, top.high / bottom.low)
    if ratio is None or ratio.value <= 0 or (ratio.low is not None and ratio.low <= 0):
        return None
    return in_form(ratio, join.form)


def in_form(ratio: Figure, form: Form) -> Figure:
    """A ratio as speed-up, saving, change or distance from 1, its interval with it."""
    by: dict[Form, Callable[[float], float]] = {
        "speed-up": lambda value: 1 / value,
        "saving": lambda value: 1 - value,
        "change": lambda value: value - 1,
        "distance": lambda value: value - 1,
    }
    found = _each(ratio, by.get(form, float))
    if form in FALLING:
        found = Figure(found.value, found.high, found.low)
    return distance(found) if form == "distance" else found


def distance(change: Figure) -> Figure:
    """The magnitude of a change: an interval around 0 begins there."""
    if change.low is None or change.high is None:
        return Figure(abs(change.value))
    ends = sorted((abs(change.low), abs(change.high)))
    return Figure(abs(change.value), 0.0 if change.low <= 0 <= change.high else ends[0], ends[1])


def recorded(record: Record, metric: str) -> Figure:
    """A figure of a record; a rate has the interval of the latency it divides by."""
    figure, latency = record.figures[metric], record.figures.get("latency")
    if metric not in RATES or figure.low is not None or latency is None or not latency.low or latency.high is None:
        return figure
    return Figure(figure.value, figure.value * latency.value / latency.high, figure.value * latency.value / latency.low)


def known(figure: Figure | None, exact: bool) -> Figure | None:
    """A count is its own interval."""
    return Figure(figure.value, figure.value, figure.value) if figure is not None and exact else figure


def scaling(join: Join, view: View, record: Record) -> float | None:
    """What the value is multiplied by; None where the record or the run does not tell it."""
    times = plain(dig(mapping(record.shape), join.times)) if join.times else 1.0
    per = plain(dig(view.run.header.ceilings, join.per)) if join.per else 1.0
    return None if times is None or not per or per <= 0 else times / per


def mean(group: Sequence[Evidence]) -> Evidence:
    """The mean over seeds, with a t interval from three on; the first stands for all.

    A distance is that of the mean change: seeds that lie on both sides of no change come out near it. The interval of a
    share ends at 0 and 1.
    """
    first, n = group[0], len(group)
    value, low, high = mean_interval([one.figure.value for one in group])
    if first.join.form == "value" and first.unit == "share":
        low, high = max(low, 0.0), min(high, 1.0)
    figure = Figure(value) if n < FEWEST_SEEDS else Figure(value, low, high)
    return _of(first, distance(figure) if first.join.form == "distance" else figure, n)


def hold(condition: Condition, view: View, record: Record, over: Record | None) -> Held:
    """A condition beside what the record tells, or what this suite always does."""
    if not condition.field:
        return Held(condition, condition.ours, condition.same)
    told = {
        "device": view.label,
        "model": record.model,
        "sizes": record.sizes,
        "contender": record.contender,
        "over": over.contender if over is not None else "",
        "shape": record.shape,
    }
    value = dig(told, condition.field)
    words = "not recorded" if value is None else str(value)
    return Held(condition, words, any(fnmatchcase(words, one.strip()) for one in condition.match.split("|")))


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path of nested mappings, or None."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _each(figure: Figure, change: Callable[[float], float]) -> Figure:
    low, high = (None if bound is None else change(bound) for bound in (figure.low, figure.high))
    return Figure(change(figure.value), low, high)


def _of(one: Evidence, figure: Figure, cases: int) -> Evidence:
    return Evidence(one.join, one.view, one.case, one.record, one.over, figure, one.unit, one.held, cases)
