"""The trial: an operation that is carried out once, step by step, and judged by where it ends, such as a training run.

All contenders take their steps in turn, in random order within each round, so their times compare as those of a contest
do: the latency is the median step. A trial ends with the workload's last step or when its time is up, and says how far
it came. Nothing computes what its end must be, so a contender passes when every step returned a finite number, the
numbers fell (a reward: rose), another setup of it begins alike, and the technique's contenders all begin alike.
Wins where the result of many steps is the question. Loses to a contest where a single call can be repeated: there each
result is compared with the truth.
"""

from __future__ import annotations

import gc
import math
import numbers
import time
from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter_ns  # by name: whoever replaces it in `time` later does not move this clock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import memory
from .contract import Course, Operation, Trial
from .failure import describe, out_of_memory
from .measurement import Measurement, Timed
from .metrics import COMMON
from .record import Record
from .registry import Implementation
from .tree import clone, storage_bytes
from .verify import Incorrect

SEED = 0  # a trial can be repeated: what it begins with is the same in every run
ENDS = 0.1  # of the steps, at the start and at the end, over which what they returned is averaged
METHODS = ("advance", "note", "figures", "series")


class Runner(Timed):
    """One contender's trial; raises what its code raises, and Incorrect for what it must not return."""

    def __init__(self, implementation: Implementation, operation: Operation, weights: Any, shape: Any, device: str):
        super().__init__(implementation)
        assert operation.trial is not None
        self.trial: Trial = operation.trial
        self.values: list[float] = []
        self.series: dict[str, list[float]] = {}
        self.again = math.nan
        self.stopped, self.reference = "budget", ""
        self._operation, self._weights, self._shape, self._device = operation, weights, shape, device
        self._course: Course | None = None

    def set_up(self) -> None:
        """Begin the course with a copy of the weights, so that nobody trains on what another has changed."""
        begin = time.perf_counter()
        self._course = self._begun(clone(self._weights))
        self.figures["setup"] = time.perf_counter() - begin

    def _begun(self, weights: Any) -> Course:
        made: Course = self.implementation.setup(weights, self._shape)
        missing = [name for name in METHODS if not callable(getattr(made, name, None))]
        if missing:
            raise TypeError(f"setup returned {type(made).__name__} without {', '.join(missing)}; see harness.Course")
        return made

    def step(self, number: int) -> None:
        """One step, timed, and what is noted after it, which is not."""
        assert self._course is not None
        gc.disable()
        try:
            self._synchronize()
            begin = perf_counter_ns()
            found = self._course.advance()
            self._synchronize()
            elapsed = float(perf_counter_ns() - begin)
        finally:
            gc.enable()
        self.values.append(self._finite(found, number + 1))
        self.add(number, [elapsed])
        self._course.note()

    @staticmethod
    def _finite(found: Any, step: int) -> float:
        if not isinstance(found, numbers.Real):
            raise TypeError(f"step {step} returned {type(found).__name__}, expected a number")
        if not math.isfinite(found):
            raise Incorrect(f"step {step} returned {float(found)}")
        return float(found)

    def finish(self) -> None:
        """Where it ended, and whether it moved as it must."""
        assert self._course is not None
        self.figures["setup"] += self.samples[0] / 1e9
        self.figures["steps"] = float(len(self.values))
        self.figures |= self._declared(self._course.figures())
        self.series = {name: self._plain(name, values) for name, values in self._course.series().items()}
        self._course = None
        start, end = self.ends
        if not (end < start if self.trial.better == "lower" else end > start):
            word = "fall" if self.trial.better == "lower" else "rise"
            raise Incorrect(f"what its steps return did not {word}: {start:.6g} at the start, {end:.6g} at the end")

    def begin_again(self) -> None:
        """Set up a second time and take two steps, untimed: the first must return what it did, and memory is read."""
        weights = clone(self._weights)
        course, built = memory.measure(lambda: self._begun(weights), self._device)
        found, first = memory.measure(course.advance, self._device)
        self.again = self._finite(found, 1)
        if apart(self.again, self.values[0]) > self.trial.alike:
            raise Incorrect(f"its first step returned {self.values[0]:.9g}; set up again, {self.again:.9g}")
        self.figures["resident"] = storage_bytes(weights) + built.kept + first.kept
        self.figures["peak"] = memory.measure(course.advance, self._device)[1].peak

    @property
    def ends(self) -> tuple[float, float]:
        """Means of what the first and the last steps returned."""
        count = max(1, round(ENDS * len(self.values)))
        return float(np.mean(self.values[:count])), float(np.mean(self.values[-count:]))

    def _declared(self, figures: Mapping[str, float]) -> dict[str, float]:
        known = {metric.name for metric in self._operation.metrics} - set(COMMON)
        unknown = sorted(set(figures) - known)
        if unknown:
            raise ValueError(f"its figures hold {', '.join(unknown)}, which {self._operation.name} does not declare")
        return {name: self._plain(name, [value])[0] for name, value in figures.items()}

    @staticmethod
    def _plain(name: str, values: Sequence[float]) -> list[float]:
        found = [float(value) for value in values]
        if not all(map(math.isfinite, found)):
            raise Incorrect(f"{name} holds values that are not finite")
        return found

    def told(self) -> dict[str, Any]:
        """What was checked, for the record."""
        start, end = self.ends
        checked = ["every step finite", "fell" if self.trial.better == "lower" else "rose", "begins alike when set up"]
        return {
            "checked": [*checked, *([f"begins like {self.reference}"] if self.reference else [])],
            "start": start,
            "end": end,
            "first": self.values[0],
            "again": self.again,
            "reference": self.reference or None,
            "limit": self.trial.alike,
            "data": self.trial.data(self._weights) or None,
            "seed": SEED,
        }

    def _synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


class Trials(Measurement[Runner]):
    """The trials of one case's contenders."""

    after = 1.5
    alone = 1.0

    def run(self, seconds: float, sample_file: str) -> list[Record]:
        """Measure for about `seconds`; returns a record for every contender. Samples end up in `arrays`."""
        self._weights: dict[str, Any] = {}
        records = super().run(seconds, sample_file)
        self._weights.clear()
        return records

    def _entrant(self, implementation: Implementation) -> Runner | None:
        shape, technique = self.workload.shape, implementation.technique
        if technique not in self._weights:
            try:
                generator = torch.Generator(device=self.device).manual_seed(SEED)
                self._weights[technique] = self.operation.weights(shape, technique, generator)
            except Exception as error:
                status = "oom" if out_of_memory(error) else "error"
                reason = f"what {technique} begins with could not be had: {describe(error)}"
                self._failures[implementation.contender] = (status, reason)
                return None
        return Runner(implementation, self.operation, self._weights[technique], shape, self.device)

    def _set_up(self, entrant: Runner) -> None:
        entrant.set_up()

    def _measure(self, entrants: list[Runner], deadline: float) -> None:
        assert self.operation.trial is not None
        count, least = self.operation.trial.steps(self.workload.shape), self.operation.trial.least
        for number in range(count):
            for runner in self._running(entrants):
                self._guarded(runner, partial(runner.step, number))
            if time.monotonic() > deadline and number + 1 >= least:
                break
        for runner in entrants:
            runner.stopped = "last step" if len(runner.values) == count else "budget"
            for action in (runner.finish, runner.begin_again):
                if runner.name not in self._failures:
                    self._guarded(runner, action)
        passed = {runner.name: runner for runner in entrants if runner.name not in self._failures}
        self._finished |= passed
        for runner in passed.values():
            self._guarded(runner, partial(self._require_common_start, runner))
        for name in set(passed) & set(self._failures):
            del self._finished[name]

    def _require_common_start(self, runner: Runner) -> None:
        """Raises Incorrect where a contender begins elsewhere than its technique's reference, or else the baseline."""
        technique = runner.implementation.technique
        names = [f"{technique}/reference", *self.operation.baseline]
        found = [self._finished[n] for n in names if n in self._finished]
        reference = next((r for r in found if r.implementation.technique == technique), runner)
        if reference is runner:
            return
        runner.reference = reference.name
        own, other = runner.values[0], reference.values[0]
        if apart(own, other) > runner.trial.alike:
            raise Incorrect(f"its first step returned {own:.9g}, that of {reference.name} {other:.9g}: not one start")

    def _verification(self, entrant: Runner) -> dict[str, Any]:
        return entrant.told()

    def _timing(self, entrant: Runner) -> dict[str, Any]:
        assert self.operation.trial is not None
        planned = self.operation.trial.steps(self.workload.shape)
        found = {"clock": "wall", "caches": "as left", "stopped": entrant.stopped}
        return {**found, "steps": len(entrant.values), "planned": planned}

    def _series(self, entrant: Runner) -> dict[str, list[float]]:
        return {**super()._series(entrant), **entrant.series}

    def _arrays(self, entrant: Runner) -> dict[str, NDArray[np.float64]]:
        return {**super()._arrays(entrant), f"{entrant.name}:value": np.asarray(entrant.values)}


def apart(one: float, other: float) -> float:
    """How far two numbers are from each other, over the larger."""
    return abs(one - other) / (max(abs(one), abs(other)) or 1.0)
