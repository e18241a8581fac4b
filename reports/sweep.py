"""Cases that differ in one length alone, as points of a line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from harness.record import Record

from . import facts
from .view import View


@dataclass(frozen=True)
class Sweep:
    """Cases of one model with everything but a length, in tokens, held fixed: (length, case), ascending."""

    view: View
    operation: str
    model: str
    setting: str
    points: tuple[tuple[float, facts.Case], ...]

    @property
    def study(self) -> str:
        """The study the cases belong to."""
        return self.points[0][1].first.study

    @property
    def title(self) -> str:
        """Model and what is held fixed: `v3, batch 128`."""
        return ", ".join(filter(None, (self.model, self.setting)))

    @property
    def lengths(self) -> list[float]:
        """Lengths in tokens."""
        return [n for n, _ in self.points]

    @cached_property
    def techniques(self) -> list[str]:
        """Techniques with a latency anywhere in the sweep."""
        return facts.techniques(r for _, case in self.points for r in case.records if "latency" in r.figures)

    def best(self, technique: str) -> list[tuple[float, Record]]:
        """The fastest contender of a technique at each length where one passed."""
        return [(n, found) for n, case in self.points if (found := case.best(technique)) is not None]

    @property
    def last(self) -> tuple[float, facts.Case]:
        """The longest length with a latency, or the longest of all."""
        return next(((n, c) for n, c in reversed(self.points) if c.passed), self.points[-1])
