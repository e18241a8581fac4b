"""One visit of a case by one process: arms set up in random order, verified, timed in turn, verified again.

Arms are the base, the base a second time as control, the head, and a slowed copy of the base, which must be noticed.
Each has its own copy of the code, weights, inputs and state: of arms that shared code, the others would find theirs
colder and come out up to 1 % slower. In each round each arm has one slot, in random order.
What a revision's code raises is that revision's failure; a contract that has changed is said before either is blamed.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Collection, Mapping
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
from .options import REVISIONS
from .rounds import timed

HARNESS = -1
WARM_ROUNDS = 3
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
    """The copies by arm ("base", "control", "head", "slowed"); `slowed_by`: how much longer calls of the last take.

    `names`: the arms that are timed in this process, all of them unless the two revisions have a process each.
    """

    def __init__(
        self,
        workload: Workload,
        copies: Mapping[str, Copy],
        slowed_by: float,
        device: str,
        turn: Turn,
        seed: int,
        names: Collection[str] = REVISIONS,
    ) -> None:
        self._graph, self._device, self._turn, self._ambient = workload.graph, device, turn, Ambient(device)
        self._seed, self._rng = seed, random.Random(seed)
        self._copies = copies
        self.arms = {
            name: Arm(name, copy.implementation, slowed_by if name == "slowed" else 0.0)
            for name, copy in copies.items()
            if name in names
        }

    def run(self, seconds: float, flush: Thunk, empty_ns: float | None) -> dict[str, list[float]]:
        """Nanoseconds [rounds] of each arm. Raises Changed or Failed."""
        try:
            self.fill(self.open(flush, empty_ns))
            rounds = timed(seconds, self._round, self.roll)
        finally:
            gc.enable()
        self.close()
        return rounds

    def open(self, flush: Thunk, empty_ns: float | None) -> float:
        """Set up and verify, warm up, and leave garbage be until `close`: nanoseconds of a typical call."""
        for arm in self._shuffled():
            self._guarded(arm.revision, partial(arm.set_up, self._side(arm.name), flush, self._graph, empty_ns))
        if "base" in self.arms:
            head = self.arms["head"].side if "head" in self.arms else self._side("head")
            require_same_truth(head, self.arms["base"].side)
        gc.collect()
        gc.disable()
        for _ in range(WARM_ROUNDS):
            for arm in self._shuffled():
                self._guarded(arm.revision, arm.slot)
        return min(self._guarded(arm.revision, arm.calibrate) for arm in self.arms.values())

    def _round(self) -> dict[str, float]:
        return {arm.name: self._guarded(arm.revision, arm.slot) for arm in self._shuffled()}

    def _side(self, name: str) -> Side:
        return self._guarded(REVISIONS[name], partial(self._copies[name].side, self._device, self._seed))

    def fill(self, typical_ns: float) -> None:
        """As many calls a slot as fill it; the same for all arms of a case."""
        for arm in self.arms.values():
            arm.fill(typical_ns)

    def slot(self, name: str) -> float:
        """Nanoseconds of one call of an arm, from one slot."""
        arm = self.arms[name]
        return self._guarded(arm.revision, arm.slot)

    def roll(self) -> None:
        """Go on to the next draw of inputs."""
        for arm in self.arms.values():
            arm.side.roll()

    def close(self) -> None:
        """Verify on the second draw."""
        gc.enable()
        for arm in self.arms.values():
            self._guarded(arm.revision, arm.entrant.verify_second)

    def _shuffled(self) -> list[Arm]:
        return self._rng.sample(list(self.arms.values()), len(self.arms))

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
