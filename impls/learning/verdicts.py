"""Rewards of many responses, whatever the function that gives them does: raise, return no number, or never return.

A user's reward is their code. What goes wrong costs the response at hand, which gets NaN and is left out of its group's
mean and of the update; the first such response is kept in words, all are counted. The time limit interrupts Python code
in the main thread by a timer signal; elsewhere, and inside a library's own code, there is none. Wins: a run goes on.
Loses: nothing that is told; whether a faulty reward biases what is learnt, only its author knows.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .tasks import Problem

RewardFunction = Callable[[Problem, str], float]
SECONDS = 1.0


@dataclass
class Faults:
    """How many responses got no reward, and what happened to the first, in words."""

    count: int = 0
    first: str = ""

    def note(self, problem: Problem, response: str, why: str) -> None:
        """One more."""
        self.count += 1
        self.first = self.first or f"problem {problem.prompt!r}, response {response!r}: {why}"


@dataclass(frozen=True)
class Judge:
    """Calls a reward function under a time limit of `seconds`; faults are noted in `faults`."""

    reward: RewardFunction
    seconds: float = SECONDS
    faults: Faults = field(default_factory=Faults)

    def rewards(self, problems: Sequence[Problem], responses: Sequence[str], room: int | None = None) -> list[float]:
        """One reward a response, NaN where there is none: of prompts longer than `room`, which were not asked whole."""
        with limited() as limit:
            return [self._one(*pair, room, limit) for pair in zip(problems, responses, strict=True)]

    def _one(self, problem: Problem, response: str, room: int | None, limit: Callable[[float], None]) -> float:
        if room is not None and len(problem.prompt) > room:
            self.faults.note(
                problem, response, f"its prompt has {len(problem.prompt)} symbols, there is room for {room}"
            )
            return math.nan
        try:
            limit(self.seconds)
            try:
                found = float(self.reward(problem, response))
            finally:
                limit(0.0)
        except Exception as error:
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.faults.note(problem, response, f"its reward raised {told}")
            return math.nan
        except _Late:
            self.faults.note(problem, response, f"its reward took more than {self.seconds:g} s")
            return math.nan
        if not math.isfinite(found):
            self.faults.note(problem, response, f"its reward is {found}")
            return math.nan
        return found


class _Late(BaseException):
    """Raised by the timer; no `except Exception` of a reward catches it."""


@contextmanager
def limited() -> Iterator[Callable[[float], None]]:
    """A function that sets the time left, 0 for none; it does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda seconds: None
        return

    def late(number: int, frame: Any) -> None:
        raise _Late

    before, left = signal.signal(signal.SIGALRM, late), signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield _set
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left[0]:
            signal.setitimer(signal.ITIMER_REAL, *left)


def _set(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
