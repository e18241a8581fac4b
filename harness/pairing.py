"""Two runs, record by record: a verdict on each time, exact metrics beside them, and what only one of them has.

The one place where runs are compared; terminal, page and gate read its result. Wins over two columns of medians: it
knows which differences equal code shows between these very runs, and refuses what cannot be compared. Loses to the
timing gate where both revisions can still be run: nothing cancels between two runs, so small differences stay unclear.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from .baseline import Facts, Value
from .deviation import (
    INCOMPATIBLE,
    INCONCLUSIVE,
    INCORRECT,
    NOTHING,
    PASS,
    REGRESSION,
    Comparison,
    Deviation,
    Rule,
    worst,
)
from .metrics import COMMON, COUNTED
from .provenance import Trait, compared_traits, fingerprint, toolchain
from .record import Figure, Record, Run
from .statistics import Estimate
from .verdict import MEANINGS, Kind, Unchanged, Verdict, percent, stored

TOLERANCE = {"cuda": 0.01, "cpu": 0.03}
ASSUMED = {"cuda": 0.05, "cpu": 0.25}  # how far equal code comes out between runs where too little of it is in both
Side = Literal["A", "B"]


@dataclass(frozen=True)
class Pair:
    """One contender in one case of both runs. `unchanged`: its own file is the same in both."""

    before: Record
    after: Record
    verdict: Verdict
    unchanged: bool

    @property
    def case(self) -> str:
        """The case's id."""
        return self.after.case

    @property
    def contender(self) -> str:
        """Technique and implementation."""
        return self.after.contender


@dataclass(frozen=True)
class Lone:
    """A contender that gives a result in one run and none in the other, for the reason given."""

    side: Side
    record: Record
    reason: str
    code: int = PASS


@dataclass(frozen=True)
class Pairing:
    """Two runs compared.

    traits      what they were taken on, side by side
    alone       results that one of them does not have
    counted     exact metrics that differ, of `compared` in both
    unchanged   how far equal code came out between them
    refused     why no time is compared, or None
    loose       why a difference of exact metrics is told and fails nothing, or None
    """

    before: Run
    after: Run
    traits: tuple[Trait, ...]
    pairs: tuple[Pair, ...]
    alone: tuple[Lone, ...]
    counted: tuple[Deviation, ...]
    compared: int
    unchanged: Unchanged
    tolerance: float
    refused: str | None
    loose: str | None

    def of(self, kind: Kind) -> list[Pair]:
        """Pairs with this verdict, what differs most first."""
        found = [pair for pair in self.pairs if pair.verdict.kind == kind]
        return sorted(found, key=lambda p: (_order(p), p.case, p.contender))

    @cached_property
    def counts(self) -> dict[Kind, int]:
        """How many pairs have which verdict."""
        found = Counter(pair.verdict.kind for pair in self.pairs)
        return {kind: found[kind] for kind in MEANINGS if found[kind]}

    @property
    def problems(self) -> list[str]:
        """Lines of either run that could not be read."""
        sides = (("A", self.before), ("B", self.after))
        return [f"{side}, {run.header.run}: {problem}" for side, run in sides for problem in run.problems]

    @property
    def code(self) -> int:
        """The gravest exit status of all findings."""
        codes = [lone.code for lone in self.alone]
        codes += [deviation.code for deviation in self.counted if self.loose is None]
        codes += [REGRESSION] if self.counts.get("slower") else []
        codes += [INCOMPATIBLE] if self.problems else []
        judged = sum(count for kind, count in self.counts.items() if kind != "incomparable")
        if not judged and not self.compared:
            codes.append(NOTHING)
        elif judged and judged == self.counts.get("unclear"):
            codes.append(INCONCLUSIVE)
        return worst(codes)


CODES = {
    PASS: "nothing is slower, worse or gone",
    REGRESSION: "something is slower, or an exact metric is worse",
    INCONCLUSIVE: "every time is unclear",
    NOTHING: "nothing can be compared, or a contender of a case is gone",
    INCORRECT: "a contender that gave right results gives none any more",
    INCOMPATIBLE: "a run or the history is damaged or of another version",
}


def pair(before: Run, after: Run, tolerance: float | None = None, assumed: float | None = None) -> Pairing:
    """Compare two runs.

    `tolerance` and `assumed` are shares: differences up to the first are none, the second is how far equal code is
    taken to come out between runs where fewer than `Unchanged.LEAST` contenders are unchanged. Defaults by device.
    """
    device = after.header.device if after.header.device in TOLERANCE else "cpu"
    tolerance = TOLERANCE[device] if tolerance is None else tolerance
    earlier = {(record.case, record.contender): record for record in before.records}
    later = {(record.case, record.contender): record for record in after.records}
    refused = _refused(before, after)
    common = [key for key in later if key in earlier and {earlier[key].status, later[key].status} == {"passed"}]
    whys = {key: refused or _other(earlier[key], later[key]) for key in common}
    same = {key for key in common if _same_source(earlier[key], later[key])}
    logs = [
        math.log(later[key].figures["latency"].value / earlier[key].figures["latency"].value)
        for key in sorted(same)
        if whys[key] is None
    ]
    unchanged = Unchanged(np.asarray(logs), ASSUMED[device] if assumed is None else assumed)
    pairs = tuple(
        Pair(earlier[key], later[key], _verdict(earlier[key], later[key], whys[key], tolerance, unchanged), key in same)
        for key in common
    )
    alike = [key for key in common if earlier[key].shape == later[key].shape]
    counted, compared = _counted(before, after, [(earlier[key], later[key]) for key in alike])
    return Pairing(
        before,
        after,
        tuple(compared_traits(before, after)),
        pairs,
        tuple(_alone(earlier, later)),
        tuple(counted),
        compared,
        unchanged,
        tolerance,
        refused,
        _loose(before, after),
    )


def _refused(before: Run, after: Run) -> str | None:
    """Why no time of these runs can be compared, or None."""
    if before.header.method != after.header.method:
        return f"times were taken by method {before.header.method} and by method {after.header.method}"
    one, other = fingerprint(before.header), fingerprint(after.header)
    return None if one == other else f"times are of two machines, {one} and {other}"


def _loose(before: Run, after: Run) -> str | None:
    """Why a difference of exact metrics is told and fails nothing, or None."""
    if before.header.method != after.header.method:
        return "figures were counted by another method"
    if before.header.device != after.header.device:
        return "the devices differ"
    return None if toolchain(before.header) == toolchain(after.header) else "the toolchains differ"


def _same_source(before: Record, after: Record) -> bool:
    digest = after.source.get("digest")
    return bool(digest) and before.source.get("digest") == digest


def _other(before: Record, after: Record) -> str | None:
    """Why the times of one contender cannot be compared, or None."""
    if before.shape != after.shape:
        names = [n for n in {**before.shape, **after.shape} if before.shape.get(n) != after.shape.get(n)]
        return f"the case has other sizes: {', '.join(names[:3])}"
    for name, word in (("clock", "clocks"), ("caches", "states of the caches")):
        one, other = before.timing.get(name), after.timing.get(name)
        if one != other:
            return f"times were taken with other {word}: {one} and {other}"
    for side, record in (("A", before), ("B", after)):
        figure = record.figures.get("latency")
        if figure is None:
            return f"{side} has no latency"
        if not _sound(figure):
            return f"the latency of {side} is no measurement: {figure.value:g} ns [{figure.low}, {figure.high}]"
    return None


def _sound(figure: Figure) -> bool:
    """Whether a latency is above 0 and inside its own interval, as everything is that the harness wrote."""
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return figure.value > 0 and low <= figure.value <= high


def _estimate(figure: Figure) -> Estimate:
    known = figure.low is not None and figure.high is not None
    low, high = (figure.low, figure.high) if known else (-math.inf, math.inf)
    assert low is not None and high is not None
    return Estimate(figure.value, low, high)


def _verdict(before: Record, after: Record, why: str | None, tolerance: float, unchanged: Unchanged) -> Verdict:
    if why is not None:
        return Verdict("incomparable", why)
    found = stored(_estimate(before.figures["latency"]), _estimate(after.figures["latency"]), tolerance, unchanged)
    suspect = [side for side, record in (("A", before), ("B", after)) if record.timing.get("suspect")]
    if suspect:
        said = f"faster than the floor allows in {' and '.join(suspect)}: suspect"
        return Verdict("unclear", said, found.ratio, found.spread)
    if found.kind in ("slower", "faster") and _same_source(before, after):
        said = "its own file is the same in both: the machine, a library or shared code made the difference"
        return Verdict("unclear", said, found.ratio, found.spread)
    return found


def _order(pair: Pair) -> float:
    """Smaller for what differs more."""
    ratio = pair.verdict.ratio
    known = ratio is not None and 0 < ratio.value < math.inf
    return -abs(math.log(ratio.value)) if ratio is not None and known else math.inf


def _alone(earlier: Mapping[tuple[str, str], Record], later: Mapping[tuple[str, str], Record]) -> list[Lone]:
    """Results of one run that the other does not have, the gravest first."""
    measured = {case for case, _ in later}
    found = []
    for key, record in earlier.items():
        other = later.get(key)
        if record.status != "passed" or (other is not None and other.status == "passed"):
            continue
        if key[0] not in measured:
            found.append(Lone("A", record, "B has no such case"))
        elif other is None:
            found.append(Lone("A", record, "it is gone from the case", NOTHING))
        elif other.status == "unavailable":
            found.append(Lone("A", record, f"it cannot run in B: {other.reason}", NOTHING))
        else:
            found.append(Lone("A", record, f"{other.status} in B: {other.reason}", INCORRECT))
    for key, record in later.items():
        other = earlier.get(key)
        if record.status == "passed" and (other is None or other.status != "passed"):
            why = "A does not have it" if other is None else f"{other.status} in A: {other.reason}"
            found.append(Lone("B", record, why))
    return sorted(found, key=lambda lone: (lone.code != INCORRECT, lone.code != NOTHING, lone.side))


def _counted(before: Run, after: Run, pairs: list[tuple[Record, Record]]) -> tuple[list[Deviation], int]:
    """Exact metrics that differ, and how many were compared."""
    declared = {**COMMON, **COUNTED, **before.header.metrics, **after.header.metrics}
    known = {**COMMON, **COUNTED}
    rules = {}
    for name, metric in declared.items():
        exact = metric.exact if metric.exact is not None else known[name].exact if name in known else None
        if exact is not None:
            rules[name] = Rule(metric.better, exact)
    facts: list[Facts] = [{}, {}]
    compared = 0
    for records in pairs:
        names = [name for name in rules if all(name in record.figures for record in records)]
        compared += len(names)
        for side, record in zip(facts, records, strict=True):
            values: dict[str, Value] = {name: _whole(record.figures[name].value) for name in names}
            side.setdefault(record.case, {})[record.contender] = values
    return list(Comparison(rules, {}).against(facts[0], facts[1])), compared


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def scale(found: Pairing) -> str:
    """What equal code says about these two runs, in a sentence."""
    unchanged, count = found.unchanged, found.unchanged.differences.size
    if found.refused:
        return f"No time is compared: {found.refused}."
    if unchanged.known:
        return f"{count} contenders whose file is the same in both came out up to {percent(unchanged.spread)} apart."
    apart = percent(unchanged.spread)
    few = f"Only {count} contenders have the same file in both, fewer than {Unchanged.LEAST}"
    return f"{few}: equal code is taken to come out up to {apart} apart."


def geometric_mean(pairs: list[Pair]) -> float | None:
    """Of the ratios of these pairs; None without any."""
    logs = [math.log(p.verdict.ratio.value) for p in pairs if p.verdict.ratio and p.verdict.ratio.value > 0]
    return math.exp(float(np.mean(logs))) if logs else None
