"""The history as lines: latencies of each contender in each case over the runs of one machine, with its changes.

A line never leaves its machine's fingerprint or its method; another torch, triton, driver or Python does not end it but
is marked where it came. Pages draw what is here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .changes import change_points, levels
from .provenance import changed_tools, commit, fingerprint, label, toolchain
from .record import Header
from .store import Points

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A new level of one line: nanoseconds before and after.

    `place` is the first run's position on the machine, `last` that of the run before it in the line; `tools` names
    what changed in the toolchain between them, empty where nothing did; `own` says whether the implementation's file
    changed, None where that is not known; `held` whether the newest level is still on this side.
    """

    line: int
    place: int
    last: int
    before: float
    after: float
    tools: str
    own: bool | None
    held: bool

    @property
    def ratio(self) -> float:
        """Level after over level before: above 1 is slower."""
        return self.after / self.before


@dataclass(frozen=True)
class Machine:
    """The runs of one fingerprint and method in order of time.

    `places` [runs] are their positions in the whole history. `latency`, `low`, `high` are nanoseconds [lines, runs],
    NaN where not measured; `source` [lines, runs] are positions of digests, -1 where not measured.
    """

    fingerprint: str
    method: str
    runs: Sequence[Header]
    places: NDArray[np.int64]
    lines: Sequence[tuple[str, str]]
    latency: Array
    low: Array
    high: Array
    source: NDArray[np.int64]
    sources: Sequence[str]

    @property
    def label(self) -> str:
        """The machine in a few words, as its newest run has it."""
        return label(self.runs[-1])

    @cached_property
    def tools(self) -> list[tuple[int, str]]:
        """Where the toolchain changed from one run to the next: position and words."""
        known = [toolchain(header) for header in self.runs]
        pairs = enumerate(itertools.pairwise(known), 1)
        return [(place, words) for place, (one, other) in pairs if (words := changed_tools(one, other))]

    @cached_property
    def points(self) -> list[list[int]]:
        """Positions at which each line begins a new level."""
        return change_points(np.log(self.latency))

    @cached_property
    def changes(self) -> list[Change]:
        """Every change of every line, the newest first, the greatest of a run first."""
        found = [change for line in range(len(self.lines)) for change in self._changes(line)]
        return sorted(found, key=lambda c: (-c.place, -abs(np.log(c.ratio)), c.line))

    def measured(self, line: int) -> NDArray[np.int64]:
        """Positions of runs in which a line was measured."""
        return np.flatnonzero(np.isfinite(self.latency[line]))

    def levels(self, line: int) -> Array:
        """Nanoseconds [levels]: medians between changes."""
        runs = self.measured(line)
        return levels(self.latency[line, runs], np.searchsorted(runs, self.points[line]).tolist())

    def _changes(self, line: int) -> list[Change]:
        if not self.points[line]:
            return []
        runs, values = self.measured(line), self.levels(line)
        found = []
        for number, place in enumerate(self.points[line]):
            last = int(runs[np.searchsorted(runs, place) - 1])
            before, after = float(values[number]), float(values[number + 1])
            own = None
            if self.sources[self.source[line, place]] and self.sources[self.source[line, last]]:
                own = bool(self.source[line, place] != self.source[line, last])
            tools = changed_tools(toolchain(self.runs[last]), toolchain(self.runs[place]))
            held = bool(((values[number + 1 :] > np.sqrt(before * after)) == (after > before)).all())
            found.append(Change(line, place, last, before, after, tools, own, held))
        return found

    def span(self, change: Change) -> tuple[str, str]:
        """Commits between which a change lies: of the last run before it and the first after it."""
        one, other = (commit(self.runs[place]) for place in (change.last, change.place))
        return one, other


def machines(points: Points) -> list[Machine]:
    """One for each fingerprint and method, that of the newest run first; runs without a latency are in none."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, header in enumerate(points.runs):
        groups.setdefault((fingerprint(header), header.method), []).append(place)
    found = [_machine(points, who, np.asarray(places)) for who, places in groups.items()]
    return sorted((one for one in found if one.lines), key=lambda one: -int(one.places[-1]))


def _machine(points: Points, who: tuple[str, str], places: NDArray[np.int64]) -> Machine:
    column = np.full(len(points.runs), -1)
    column[places] = np.arange(len(places))
    with np.errstate(invalid="ignore"):
        mine = (column[points.run] >= 0) & (points.latency > 0) & np.isfinite(points.latency)
    lines, row = np.unique(points.line[mine], return_inverse=True)
    at = (row, column[points.run[mine]])

    def table(values: Array) -> Array:
        found = np.full((len(lines), len(places)), np.nan)
        found[at] = values[mine]
        return found

    source = np.full((len(lines), len(places)), -1)
    source[at] = points.source[mine]
    headers = [points.runs[place] for place in places]
    names = [points.series[line] for line in lines]
    times = [table(values) for values in (points.latency, points.low, points.high)]
    return Machine(who[0], who[1], headers, places, names, times[0], times[1], times[2], source, points.sources)
