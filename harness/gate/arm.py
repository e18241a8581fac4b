"""One arm of a gate's case: a revision's contender with weights, inputs and state of its own, verified and timed.

On a CPU a slot is a third of a millisecond of calls with warm caches: long enough for the clock, so short that a
neighbour on the machine meets all arms alike. One that the scheduler interrupts is taken again. Flushing the caches
would take twenty times as long as what is measured, and then it would not. On a GPU a slot is that of the contest's
clock: device time, cold caches.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from time import perf_counter_ns

import torch

from ..clock import EventClock
from ..entrant import Entrant, Side
from ..registry import Implementation
from .options import REVISIONS

SLOT_NS = 300_000
CALIBRATING_SLOTS = 9
ATTEMPTS = 8
SLEEP_CYCLES = 1_000_000
Thunk = Callable[[], object]


class Arm:
    """`name` is one of REVISIONS. `share`: by how much of its own time it is slowed, 0.1 for 10 %."""

    def __init__(self, name: str, implementation: Implementation, share: float = 0.0) -> None:
        self.name, self.revision, self.share = name, REVISIONS[name], share
        self._implementation = implementation
        self._calls = 1

    def set_up(self, side: Side, flush: Thunk, graph: bool, empty_ns: float | None) -> None:
        """Set up and verify on the first draw. Raises what the implementation raises."""
        self.side, self._flush, self._empty = side, flush, empty_ns
        self.entrant = Entrant(self._implementation, side, flush, graph)
        self.entrant.take(self._implementation.setup(side.weights, side.shape))
        self.entrant.verify_first()
        self.entrant.clock = self.entrant.make_clock(empty_ns)

    def calibrate(self) -> float:
        """Nanoseconds of a typical call; from now on a GPU's calls are slowed by their share of it."""
        typical = sorted(self.slot() for _ in range(CALIBRATING_SLOTS))[CALIBRATING_SLOTS // 2]
        if self.share and self.side.device == "cuda":
            cycles, call = round(self.share * typical * _cycles_per_ns()), self.entrant.call

            def slowed() -> object:
                result = call()
                torch.cuda._sleep(cycles)
                return result

            launches = int(self.entrant.figures["launches"]) + 1
            self.entrant.clock = EventClock(slowed, self._flush, launches, self._empty)
        return typical

    def fill(self, typical_ns: float) -> None:
        """As many calls a slot as fill it, when one takes so long; the same for all arms of a case."""
        self._calls = max(1, round(SLOT_NS / max(typical_ns, 1.0)))

    def slot(self) -> float:
        """Nanoseconds of one call, from one slot; on a CPU from the first in which no other thread got the core."""
        if self.side.device == "cuda":
            samples = sorted(self.entrant.clock.slot())
            return samples[len(samples) // 2]
        for _ in range(ATTEMPTS):
            before = _preemptions()
            elapsed = self._wall_slot()
            if _preemptions() == before:
                break
        return elapsed

    def _wall_slot(self) -> float:
        call = self.entrant.call
        begin = now = perf_counter_ns()
        for _ in range(self._calls):
            call()
        if self.share:  # of what these very calls took, however fast the processor is just now
            now = perf_counter_ns()
            until = now + self.share * (now - begin)
            while now < until:
                now = perf_counter_ns()
        return max(1.0, (perf_counter_ns() - begin) / self._calls)


def _preemptions() -> int:
    """How often the scheduler took the core from this thread; what the thread itself waits for is not among it."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw if hasattr(resource, "RUSAGE_THREAD") else 0


def _cycles_per_ns() -> float:
    """The rate at which the GPU counts a sleep's cycles."""
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(SLEEP_CYCLES)
    first.record()
    torch.cuda._sleep(SLEEP_CYCLES)
    last.record()
    torch.cuda.synchronize()
    return SLEEP_CYCLES / (float(first.elapsed_time(last)) * 1e6)
