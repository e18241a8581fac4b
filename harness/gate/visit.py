"""One visit of a case by one process: arms set up in random order, verified, timed in turn, verified again.

Arms are the base, the base a second time as control, the head, and a slowed copy of the base, which must be noticed.
Each has its own copy of the code, weights, inputs and state: of arms that shared code, the others would find theirs
colder and come out up to 1 % slower. In each round each arm has one slot, in random order.
What a revision's code raises is that revision's failure; a contract that has changed is said before either is blamed.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from .. import verify
from ..ambient import Ambient
from ..case import Workload
from ..clock import Thunk
from ..entrant import Side
from ..failure import describe, out_of_memory
from ..registry import Registry
from .arm import Arm
from .bridge import Bridge, Changed, compare, require_same_truth

HARNESS = -1
ROLL_ROUNDS = 8
WARM_ROUNDS = 3
LEAST_ROUNDS, MOST_ROUNDS = 24, 4000
Turn = Callable[[int], None]
T = TypeVar("T")


class Failed(Exception):
    """A revision's own code failed: BASE's or HEAD's."""

    def __init__(self, revision: int, status: str, message: str) -> None:
        super().__init__(message)
        self.revision, self.status = revision, status


class Copy:
    """A contender as one copy of its revision's code has it, with its contract, on a workload."""

    def __init__(self, registry: Registry, workload: Workload, contender: str, shape: Any) -> None:
        self.implementation = registry.implementations[workload.operation][contender]
        self.technique = self.implementation.technique
        self.operation = registry.operations[workload.operation]
        self.reference = registry.reference(workload.operation, self.technique).setup
        self.shape = shape

    def side(self, device: str, seed: int) -> Side:
        """Fresh weights and inputs, of the same values in every copy, and the truth."""
        return Side(self.operation, self.technique, self.reference, self.shape, device, seed)


def carried_over(head: Copy, registry: Registry, bridge: Bridge, workload: Workload) -> Copy:
    """The base's copy of `head`'s contender, given what the head's contract draws.

    Raises Changed where the contracts differ at sight.
    """
    copy = Copy(registry, workload, head.implementation.contender, bridge(workload.shape))
    compare(head.operation, copy.operation, head.shape, copy.shape, head.technique)
    copy.operation = bridge.operation(head.operation, copy.operation, head.shape)
    return copy


class Visit:
    """The copies by arm ("base", "control", "head", "slowed"); `slowed_by`: how much longer calls of the last take."""

    def __init__(
        self, workload: Workload, copies: Mapping[str, Copy], slowed_by: float, device: str, turn: Turn
    ) -> None:
        self._graph, self._device, self._turn, self._ambient = workload.graph, device, turn, Ambient(device)
        self._seed = random.SystemRandom().randrange(2**31)
        self._rng = random.Random(self._seed)
        self._copies = copies
        self.arms = [
            Arm(name, copy.implementation, slowed_by if name == "slowed" else 0.0) for name, copy in copies.items()
        ]

    def run(self, seconds: float, flush: Thunk, empty_ns: float | None) -> dict[str, list[float]]:
        """Nanoseconds [rounds] of each arm. Raises Changed or Failed."""
        for arm in self._shuffled():
            side = self._guarded(arm.revision, partial(self._copies[arm.name].side, self._device, self._seed))
            self._guarded(arm.revision, partial(arm.set_up, side, flush, self._graph, empty_ns))
        sides = {arm.name: arm.side for arm in self.arms}
        require_same_truth(sides["head"], sides["base"])
        gc.collect()
        gc.disable()
        try:
            self._rounds(seconds)
        finally:
            gc.enable()
        for arm in self.arms:
            self._guarded(arm.revision, arm.entrant.verify_second)
        return {arm.name: arm.slots for arm in self.arms}

    def _rounds(self, seconds: float) -> None:
        for _ in range(WARM_ROUNDS):
            for arm in self._shuffled():
                self._guarded(arm.revision, arm.slot)
        typical = [self._guarded(arm.revision, arm.calibrate) for arm in self.arms]
        for arm in self.arms:
            arm.fill(min(typical))
        begin = time.monotonic()
        for number in range(MOST_ROUNDS):
            if number % ROLL_ROUNDS == 0:
                for arm in self.arms:
                    arm.side.roll()
            for arm in self._shuffled():
                arm.slots.append(self._guarded(arm.revision, arm.slot))
            if time.monotonic() - begin > seconds and number + 1 >= LEAST_ROUNDS:
                break

    def _shuffled(self) -> list[Arm]:
        return self._rng.sample(self.arms, len(self.arms))

    def _guarded(self, revision: int, action: Callable[[], T]) -> T:
        """Run a revision's code. Raises Failed for what it raises, Changed as it is."""
        self._turn(revision)
        try:
            result = action()
            changed = self._ambient.changed()
            if changed is not None:
                raise verify.Incorrect(f"changed torch's {changed} for everybody")
            return result
        except Changed:
            raise
        except BaseException as error:  # exit() of a contender's own is its failure too
            status = "incorrect" if isinstance(error, verify.Incorrect) else "oom" if out_of_memory(error) else "error"
            said = str(error) if status == "incorrect" else describe(error)
            raise Failed(revision, status, said) from error
        finally:
            self._turn(HARNESS)
