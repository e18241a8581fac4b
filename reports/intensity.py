"""Where each record of a run lies between its ceilings: FLOPs a byte, FLOPs a second, and what limits it.

Intensity and rates come from the contract's cost model and the median latency; roofs are what the same run measured.
Units: FLOP, bytes, bytes/s, FLOP/s; a share is the floor over the latency, 1 at the roof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.record import Record
from harness.units import listed, show, some

from . import facts
from .view import View, mapping, plain

AGREES = 0.01
BANDWIDTH, UNKNOWN = "bandwidth", "not known"


@dataclass(frozen=True)
class Roofs:
    """Measured ceilings: bytes/s of reading and of copying (None where not measured), FLOP/s by dtype."""

    reading: float | None
    copying: float | None
    matrix: Mapping[str, float]

    @property
    def slope(self) -> float | None:
        """Bytes/s of the slanted roof: whichever kind of traffic was faster."""
        return max(filter(None, (self.reading, self.copying)), default=None)

    def ridge(self, dtype: str) -> float | None:
        """FLOPs a byte from which arithmetic in `dtype` is the limit."""
        return self.matrix[dtype] / self.slope if self.slope else None


@dataclass(frozen=True)
class Point:
    """A record with a place under the roofs; `limit` is `bandwidth`, the dtype whose rate limits it, or not known."""

    record: Record
    intensity: float
    rate: float
    share: float
    limit: str


@dataclass(frozen=True)
class Left:
    """A reason for having no place, and the records it holds for."""

    reason: str
    records: Sequence[Record]


def roofs(view: View) -> Roofs:
    """The ceilings in the run's header."""
    found = mapping(view.run.header.ceilings)
    rates = {str(name): plain(rate) for name, rate in mapping(found.get("matrix")).items()}
    return Roofs(
        plain(found.get("read_bandwidth")) or None,
        plain(found.get("copy_bandwidth")) or None,
        {name: rate for name, rate in rates.items() if rate},
    )


def place(record: Record, found: Roofs) -> Point | None:
    """The record's point, or None without latency, floor, FLOPs or bytes."""
    flops, moved, latency, floor = (record.value(name) for name in ("flops", "bytes", "latency", "floor"))
    if not flops or not moved or not latency or not floor:
        return None
    return Point(record, flops / moved, 1e9 * flops / latency, floor / latency, limit(flops, moved, floor, found))


def limit(flops: float, moved: float, floor_ns: float, found: Roofs) -> str:
    """Which ceiling a floor comes from, told by which of them it agrees with."""
    for dtype, rate in found.matrix.items():
        if abs(1e9 * flops / floor_ns / rate - 1) < AGREES:
            return dtype
    speeds = [speed for speed in (found.reading, found.copying) if speed]
    reached = 1e9 * moved / floor_ns
    if speeds and min(speeds) * (1 - AGREES) <= reached <= max(speeds) * (1 + AGREES):
        return BANDWIDTH
    return UNKNOWN


def points(view: View) -> list[Point]:
    """Every record that has a place, in the order measured."""
    found = roofs(view)
    return [point for record in view.run.records if (point := place(record, found)) is not None]


def left(view: View) -> list[Left]:
    """Every passed record that has no place, by reason, the most frequent first."""
    found = roofs(view)
    groups: dict[str, list[Record]] = {}
    for record in view.run.records:
        if record.status == "passed" and place(record, found) is None:
            groups.setdefault(reason(record, found), []).append(record)
    return [Left(*item) for item in sorted(groups.items(), key=lambda item: -len(item[1]))]


def reason(record: Record, found: Roofs) -> str:
    """Why a record that passed has no place under the roofs."""
    if record.timing.get("pairing") == "simulated":
        return "computed from loads or measured one rank after another: there is no latency of its own to place"
    if facts.steps(record):
        return "a training run, judged by where it ends: trials have no cost model"
    if "latency" not in record.figures:
        return "it has no latency"
    if record.value("flops") is None or record.value("bytes") is None:
        return "its operation has no cost model, or the cost is not one processor's"
    if not found.matrix or not found.slope:
        return "the run measured no ceilings"
    if "floor" not in record.figures:
        return "no ceiling was measured for what it computes in, such as FP8 emulated on a CPU"
    return "its cost model counts no floating-point operations: only its bandwidth has a limit"


def best(found: Iterable[Point]) -> list[Point]:
    """The fastest point of each case."""
    fastest: dict[str, Point] = {}
    for point in found:
        known = fastest.get(point.record.case)
        if known is None or point.record.figures["latency"].value < known.record.figures["latency"].value:
            fastest[point.record.case] = point
    return list(fastest.values())


def limits(found: Sequence[Point]) -> str:
    """How many are limited by what: `102 are limited by bandwidth and 118 by arithmetic in bfloat16`."""
    dtypes = [name for name in dict.fromkeys(p.limit for p in found) if name not in (BANDWIDTH, UNKNOWN)]
    parts: list[str] = []
    for name in (BANDWIDTH, *dtypes, UNKNOWN):
        count = sum(point.limit == name for point in found)
        what = {BANDWIDTH: "by bandwidth", UNKNOWN: "by a ceiling not in the run"}.get(name, f"by arithmetic in {name}")
        verb = "" if parts else f" {'is' if count == 1 else 'are'} limited"
        parts += [f"{count}{verb} {what}"] if count else []
    return listed(parts)


def shares(found: Sequence[Point]) -> str:
    """What the fastest of each case reach, in the median."""
    fastest = best(found)
    median = float(np.median([point.share for point in fastest]))
    half = sum(point.share >= 0.5 for point in fastest)
    return (
        f"In the median the fastest contender of a case reaches {show(median, 'share')} of what the hardware allows, "
        f"and in {half} of {some(len(fastest), 'case')} at least half."
    )
