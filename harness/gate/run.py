"""The timing gate's measuring: lanes of fresh processes that visit every case, looks, and what is asked once more.

A lane is a core: its processes come one after another, each loads both revisions anew and visits the cases in an order
of its own. After the first pass each case gets a verdict; those that are unclear are visited again by more fresh
processes, as long as there are planned looks and time. Two lanes side by side disturb each other no more than a
neighbour would, and that is what alternating in short slots is for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ..deviation import INCOMPATIBLE, INCONCLUSIVE, NOTHING, PASS, worst
from ..verdict import LOOKS, Rule
from .case import GateCase, broken_proof
from .lane import Lane, Pair
from .options import GateOptions
from .revision import Stopped

TOLERANCE = {"cpu": 0.03, "cuda": 0.01}
SLOWED_BY = {"cpu": 0.10, "cuda": 0.03}
BUDGET = {"cpu": 27.0, "cuda": 120.0}
PASSES = {"cpu": 2, "cuda": 3}  # processes of a lane before the first look
FIRST_SHARE = 0.72  # of the budget
LEAST_SECONDS = 0.1
LANES = 2


@dataclass(frozen=True)
class Found:
    """What the timing gate found. `broken`: why the run cannot be trusted, None when its proof held. `base_software`:
    that of the base's own environment, None where both revisions ran under the head's."""

    cases: Sequence[GateCase]
    device: str
    software: Mapping[str, Any]
    base_software: Mapping[str, Any] | None
    broken: str | None
    seconds: float
    processes: int

    @property
    def code(self) -> int:
        """The gravest of all cases; of a run that cannot be trusted, no verdict counts."""
        fixed = [case.code for case in self.cases if case.kind in ("incorrect", "missing")]
        if self.broken is not None:
            return worst([INCONCLUSIVE, *fixed])
        compared = [case for case in self.cases if case.head is not None]
        if not compared and not fixed:
            left = [case.kind for case in self.cases]
            return INCOMPATIBLE if "incomparable" in left else INCONCLUSIVE if "unclear" in left else NOTHING
        return worst([PASS, *(case.code for case in self.cases)])


@dataclass
class GateRun:
    """Measures under `options`, within `options.budget` seconds or the device's default.

    `match`: only cases with it in their name. `slowed_by`: the injected slowdown, 0.1 for 10 %; None for the device's.
    """

    options: GateOptions
    log: Path
    match: str = ""
    slowed_by: float | None = None
    say: Callable[[str], None] = lambda said: None
    cases: list[GateCase] = field(default_factory=list)

    def run(self) -> Found:
        """Raises Stopped when nothing can be measured."""
        begin, stop = time.monotonic(), threading.Event()
        lanes = self._lanes(stop)
        with ThreadPoolExecutor(len(lanes)) as pool:
            try:
                first, *_ = pool.map(lambda lane: lane.open(), lanes)
                device = first["device"]
                self.cases = self._listed(first["cases"], device)
                if device == "cuda":  # two processes on one GPU would wait for each other
                    for lane in lanes[1:]:
                        lane.close()
                self._measure(pool, lanes[:1] if device == "cuda" else lanes, device, begin)
            finally:
                stop.set()
                for lane in lanes:
                    lane.close()
        processes, seconds = sum(lane.processes for lane in lanes), time.monotonic() - begin
        return Found(
            self.cases,
            device,
            first["software"],
            first.get("base_software"),
            broken_proof(self.cases),
            seconds,
            processes,
        )

    def _lanes(self, stop: threading.Event) -> list[Lane]:
        if self.options.base_python:  # on other cores they would not alternate
            return [Pair(self.options, self.log, stop)]
        return [Lane(self.options, self.log, stop) for _ in range(1 if self.options.device == "cuda" else _cores())]

    def _listed(self, offered: Sequence[Mapping[str, Any]], device: str) -> list[GateCase]:
        cases = []
        for one in offered:
            share = SLOWED_BY[device] if self.slowed_by is None else self.slowed_by
            case = GateCase(one["case"], one["contender"], share)
            case.lacking(one["base"], one["head"])
            cases.append(case)
        found = [case for case in cases if self.match in case.name]
        if not found:
            known = ", ".join(case.name for case in cases) or "none"
            word = f"no gate case has {self.match!r} in its name" if self.match else "there is no gate case"
            raise Stopped(NOTHING, f"{word}; there are: {known}")
        return found

    def _measure(self, pool: Executor, lanes: Sequence[Lane], device: str, begin: float) -> None:
        """Passes and looks."""
        budget = BUDGET[device] if self.options.budget is None else self.options.budget
        unclear = [case for case in self.cases if not case.settled]
        rule = Rule(TOLERANCE[device], cases=len(unclear))
        for look, deadlines in enumerate(_schedule(budget, time.monotonic() - begin, PASSES[device])):
            if look and time.monotonic() + max(lane.opening for lane in lanes) > begin + deadlines[-1]:
                continue  # too late for a process; the next look has more time
            for deadline in deadlines:
                visit = partial(Lane.visit, cases=unclear, until=begin + deadline)
                for case, answer in chain.from_iterable(pool.map(visit, lanes)):
                    case.take(answer)
            for case in unclear:
                case.look(rule, look)
            unclear = [case for case in unclear if not case.settled]
            if not unclear:
                break
            self.say(f"after look {look + 1} of {len(LOOKS)}: {len(unclear)} of {len(self.cases)} cases are unclear")


def _schedule(budget: float, spent: float, passes: int) -> list[list[float]]:
    """Seconds after the beginning at which each pass of each look ends, when so many went into loading."""
    first, later = FIRST_SHARE * budget, (1 - FIRST_SHARE) * budget / (len(LOOKS) - 1)
    looks = [[first - (first - spent) * (passes - number) / passes for number in range(1, passes + 1)]]
    return looks + [[first + later * number] for number in range(1, len(LOOKS))]


def _cores() -> int:
    """Lanes on a CPU."""
    return min(LANES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
