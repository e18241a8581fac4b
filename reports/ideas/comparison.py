"""A technique beside what it replaces, over all cases of an operation: a clause, on the side it belongs to.

Nothing here knows whether an idea is supposed to win: where it takes less time it is told under what it buys, where it
takes more under what it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.record import Figure, Record
from harness.units import full, show, some

from .. import facts
from ..view import View

UNPAIRED, HOST = ("pairing", "unpaired"), ("clock", "host-bound")
WIDE = 0.02  # of a ratio, below which an interval is called narrow


@dataclass(frozen=True)
class Point:
    """One case in which both were timed; `figure` is the technique's time over that of `other`."""

    case: facts.Case
    mine: Record
    other: Record
    figure: Figure

    @property
    def named(self) -> str:
        """The case without its study: `decode/v3/b1-s4096`."""
        return self.case.id.split(".", 1)[-1]

    def has(self, key: str, word: str) -> bool:
        """Whether the timing of either says so, such as `clock` that it is `host-bound`."""
        return word in (self.mine.timing.get(key), self.other.timing.get(key))

    @property
    def side(self) -> int:
        """-1 where it is faster by its whole interval, 1 where slower, 0 where that cannot be told."""
        low, high = self.figure.low, self.figure.high
        if low is None or high is None:
            return 0
        return -1 if high < 1 else int(low > 1)


@dataclass(frozen=True)
class Comparison:
    """`doing` is what takes the time, `other` whose time it is held against; points by its time, most last."""

    doing: str
    other: str
    points: tuple[Point, ...]

    @property
    def buys(self) -> bool:
        """Whether it is faster in at least as many cases as it is slower."""
        sides = [point.side for point in self.points]
        return sides.count(-1) >= sides.count(1) and -1 in sides

    @property
    def short(self) -> str:
        """The median and the range: `decoding in 0.13× the time of MHA (21 cases, 0.082× to 0.43×)`."""
        values = [point.figure.value for point in self.points]
        if len(values) == 1:
            return f"{self.doing} in {full(self.points[0].figure, 'ratio')} the time of {self.other} (one case)"
        ends = f"{show(min(values), 'ratio')} to {show(max(values), 'ratio')}"
        middle = show(float(np.median(values)), "ratio")
        return f"{self.doing} in {middle} the time of {self.other} ({len(values)} cases, {ends})"

    @property
    def clause(self) -> str:
        """What it takes over all cases, how often it is ahead, and the case that takes longest with its interval."""
        ends = sorted(point.figure.value for point in self.points)
        last = self.points[-1]
        named = last.named
        if len(ends) == 1:
            return f"{self.doing} takes {full(last.figure, 'ratio')} the time of {self.other} ({named})"
        least, most = show(ends[0], "ratio"), show(ends[-1], "ratio")
        span = least if least == most else f"{least} to {most}"
        word, side = ("faster", -1) if self.buys else ("slower", 1)
        count = sum(point.side == side for point in self.points)
        return (
            f"{self.doing} takes {span} the time of {self.other} ({word} in {count} of {len(ends)} cases; in the "
            f"longest, {named}, {full(last.figure, 'ratio')})"
        )

    @property
    def exception(self) -> tuple[str, str] | None:
        """The cases on the other side of its verdict, short and with the farthest of them; None without any."""
        side, word, most = (1, "more", "most") if self.buys else (-1, "less", "best")
        found = [point for point in self.points if point.side == side]
        if not found:
            return None
        far = max(found, key=lambda point: side * point.figure.value)
        short = f"{word} time than {self.other} in {len(found)} of {len(self.points)} cases"
        return (
            f"{self.doing} in {short}",
            f"{self.doing} takes {short}, {full(far.figure, 'ratio')} at {most} ({far.named})",
        )


def compare(
    views: Sequence[View],
    cases: Callable[[View], Sequence[facts.Case]],
    technique: str,
    base: str,
    doing: str,
    other: str,
) -> Comparison | None:
    """The best of one technique over the best of another, in the cases of these runs; None where both never ran.

    A case that several runs have counts once, as the first of them has it.
    """
    points: list[Point] = []
    for view in views:
        known = {point.case.id for point in points}
        for case in (case for case in cases(view) if case.id not in known):
            mine, its = case.best(technique), case.best(base)
            figure = view.ratio(mine, its) if mine is not None and its is not None else None
            if figure is not None and mine is not None and its is not None:
                points.append(Point(case, mine, its, figure))
    points.sort(key=lambda point: (point.other.figures["latency"].value, point.case.id))
    return Comparison(doing, other, tuple(points)) if points else None


def sureness(found: Sequence[Comparison]) -> str | None:
    """How many ratios there are, how wide their intervals, how many settle nothing; None without any."""
    points = [point for one in found for point in one.points]
    if not points:
        return None
    widths = [
        (f.high - f.low) / (2 * f.value) for p in points if (f := p.figure).low is not None and f.high is not None
    ]
    text = f"{some(len(points), 'ratio')} of verified results"
    if widths:
        narrow = sum(width <= WIDE for width in widths)
        text += f", {narrow} of them known within ±{show(WIDE, 'share')}, the widest within "
        text += f"±{show(max(widths), 'share')}"
    apart, host = (sum(point.has(*words) for point in points) for words in (UNPAIRED, HOST))
    text = f"{text}; {unclear(found)}" + (f"; {apart} from contenders timed apart" if apart else "")
    return text + (f"; {host} with a side that waited for the host, so not the GPU's time alone" if host else "")


def unclear(found: Sequence[Comparison]) -> str:
    """How many ratios leave open which is faster."""
    sides = [point.side for one in found for point in one.points]
    if 0 in sides:
        count = sides.count(0)
        return f"{count} of {some(len(sides), 'ratio')} {'leaves' if count == 1 else 'leave'} open which is faster"
    return (
        f"each of {len(sides)} ratios tells which is faster"
        if len(sides) > 1
        else "its only ratio tells which is faster"
    )
