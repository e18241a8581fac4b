"""Clocks: wall time with cold caches on a CPU, device time behind a gate on a GPU.

On a GPU the host enqueues a gate (a kernel that only waits), then for each sample a cache flush, an event, the call
and another event. While the gate holds, nothing behind it starts, so launch cost cannot leak into the time; the proof
is that the first event is still pending when everything has been enqueued. Without the proof the gate is made twice as
long as enqueuing took, and after four attempts, or at a gate of a second, the call is bound by the host (it
synchronises, or launches faster than the queue takes), and its time is wall time and called that. The flush *reads*
twice the L2 cache: writing would leave dirty lines whose write-back the measured kernel would pay for.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns  # by name: whoever replaces it in `time` later does not move this clock
from typing import Protocol

import torch

from .machine import last_level_cache_bytes

Thunk = Callable[[], object]
FALLBACK_CACHE_BYTES = 32 * 1024**2
GATE_CYCLES = 400_000
LAUNCH_CYCLES = 30_000  # a launch from PyTorch takes the host 5 to 15 us; a gate that opens too early costs a call
LONGEST_GATE_CYCLES = 2_000_000_000
CYCLES_PER_NS = 2  # or a little less: a gate is rather too long
GATE_ATTEMPTS = 4
SLOT_NS = 200_000
LAUNCH_LIMIT = 400


class Clock(Protocol):
    """Times one contender: `slot` returns nanoseconds [calls], one sample a call, in order."""

    name: str
    submit_ns: float | None

    def slot(self) -> list[float]:
        """Measure one short slot."""


class CacheFlush:
    """Reads a buffer of twice the last-level cache, so that what is measured next finds none of its data there."""

    def __init__(self, device: str) -> None:
        if device == "cuda":
            size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
        else:
            size = 2 * (last_level_cache_bytes() or FALLBACK_CACHE_BYTES)
        self.bytes = size
        self._buffer = torch.ones(size // 4, dtype=torch.float32, device=device)
        self._sink = torch.zeros((), dtype=torch.float32, device=device)

    def __call__(self) -> None:
        torch.sum(self._buffer, dim=0, out=self._sink)


class WallClock:
    """CPU: flush, then one call between two readings of the monotonic clock."""

    name = "wall"
    submit_ns: float | None = None

    def __init__(self, call: Thunk, flush: Thunk) -> None:
        self._call, self._flush = call, flush

    def slot(self) -> list[float]:
        """One cold call."""
        self._flush()
        begin = perf_counter_ns()
        self._call()
        return [float(perf_counter_ns() - begin)]


class EventClock:
    """GPU: calls between CUDA events behind a gate, with proof that they were queued in time.

    The time of an empty pair of events, measured the same way when the clock is built, is the clock's own and is
    taken off each sample.
    """

    name = "events"

    def __init__(self, call: Thunk, flush: Thunk, launches: int, empty_ns: float | None = None) -> None:
        self._call, self._flush = call, flush
        self._launches = max(1, launches)
        self._gate = max(GATE_CYCLES, LAUNCH_CYCLES * self._launches)
        self._calls = 1
        self.submit_ns: float | None = None
        self._submitted_ns = 0
        self._empty = empty_pair_ns(flush) if empty_ns is None else empty_ns
        self._calibrated = False

    def slot(self) -> list[float]:
        """A few cold calls; wall times, with `name` changed to "host-bound", when the queue cannot be kept full."""
        if self.name == "host-bound":
            return self._wall_slot()
        for _ in range(GATE_ATTEMPTS):
            samples = self._gated(self._calls)
            if samples is not None:
                if not self._calibrated:
                    self._calibrate(samples)
                return samples
            if self._calls > 1:
                self._calls = 1
            else:  # of a call that waits for the gate itself, enqueuing takes as long as the gate, whatever that is
                self._gate = 2 * CYCLES_PER_NS * self._submitted_ns
            if self._gate > LONGEST_GATE_CYCLES:
                break
        self.name = "host-bound"
        return self._wall_slot()

    def _calibrate(self, samples: list[float]) -> None:
        fill = int(SLOT_NS // max(samples[0], 1.0)) + 1
        self._calls = max(1, min(fill, 16, LAUNCH_LIMIT // (self._launches + 3)))
        self._calibrated = True

    def _gated(self, calls: int) -> list[float] | None:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        torch.cuda.synchronize()
        torch.cuda._sleep(self._gate)
        begin = perf_counter_ns()
        for first, last in pairs:
            self._flush()
            first.record()
            self._call()
            last.record()
        self._submitted_ns = perf_counter_ns() - begin
        held = not pairs[0][0].query()
        torch.cuda.synchronize()
        if not held:
            return None
        self.submit_ns = self._submitted_ns / calls
        return [max(0.0, first.elapsed_time(last) * 1e6 - self._empty) for first, last in pairs]

    def _wall_slot(self) -> list[float]:
        self._flush()
        torch.cuda.synchronize()
        begin = perf_counter_ns()
        self._call()
        torch.cuda.synchronize()
        return [float(perf_counter_ns() - begin)]


def empty_pair_ns(flush: Thunk) -> float:
    """Median nanoseconds between two events with nothing between them, behind a gate: the clock's own part."""
    clock = EventClock(lambda: None, flush, launches=1, empty_ns=0.0)
    clock._calls, clock._calibrated = 16, True
    samples = [sample for _ in range(4) for sample in clock.slot()]
    return sorted(samples)[len(samples) // 2] if clock.name == "events" else 0.0


class Replay:
    """A call captured as a CUDA graph: replays it and returns its result.

    It keeps the call, for the graph reads what that holds. Raises RuntimeError when the call cannot be captured.
    """

    def __init__(self, call: Thunk) -> None:
        self._call = call
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = call()

    def __call__(self) -> object:
        self._graph.replay()
        return self._result
