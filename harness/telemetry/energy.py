"""Energy of one call: the GPU's total-energy counter over many calls, from one of its steps to another.

The counter advances in steps of some 20 to 100 ms, so a window that begins and ends anywhere is off by one. Here it
begins where a step was seen and ends where another was, with at least `LEAST_STEPS` between. Calls follow each other
without a gap: a batch is on the GPU while the one before is waited for. So caches are as the previous call left them,
and the power that the GPU takes for being on is in it, as it is for whoever pays. Wins over integrating power readings,
which are means over a time of their own; loses what is shorter than the window, and tells nothing of a part of a call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import gpu

LEAST_STEPS = 10
LEAST_SECONDS = 0.5
PATIENCE = 2.5  # seconds: a counter that has not stepped ten times by then does not tell
BATCH_SECONDS = 0.002
MOST_CALLS = 256
AHEAD = 2


@dataclass(frozen=True)
class Energy:
    """Of one call in joules, over a window of so many seconds, calls and steps of the counter."""

    joules: float
    seconds: float
    calls: int
    steps: int


def counter(index: int = 0) -> Callable[[], int | None] | None:
    """Reads CUDA's GPU `index`: millijoules since the driver was loaded. None where there is no such counter."""
    nvml = gpu.opened()[0]
    handles = [] if nvml is None else gpu.handles(nvml)
    if nvml is None or index >= len(handles) or handles[index] is None:
        return None

    def now() -> int | None:
        found = gpu.read(nvml.nvmlDeviceGetTotalEnergyConsumption, handles[index])
        return None if found is None else int(found)

    return now if now() is not None else None


def measured(
    call: Callable[[], Any],
    latency_s: float,
    read: Callable[[], int | None],
    marked: Callable[[], Callable[[], None]],
    clock: Callable[[], float] = time.monotonic,
    patience: float = PATIENCE,
) -> Energy | None:
    """Call it until the counter has stepped often enough; None where it does not within `patience` seconds.

    latency_s   about how long a call takes: a batch takes 2 ms
    marked      marks the end of what was given to the GPU; what it returns waits for that
    """
    batch = max(1, min(MOST_CALLS, int(BATCH_SECONDS / max(latency_s, 1e-9))))
    waiting: deque[Callable[[], None]] = deque()
    first: tuple[float, int, int] | None = None  # when a step was seen, the counter then, calls done by then
    begin, seen, done, steps = clock(), read(), 0, 0
    try:
        while clock() - begin < patience:
            for _ in range(batch):
                call()
            waiting.append(marked())
            if len(waiting) < AHEAD:
                continue
            waiting.popleft()()
            done += batch
            now, reading = clock(), read()
            if reading is None or seen is None:
                return None
            if reading == seen:
                continue
            seen = reading
            if first is None:
                first = (now, reading, done)
                continue
            steps += 1
            if steps >= LEAST_STEPS and now - first[0] >= LEAST_SECONDS:
                calls = done - first[2]
                return Energy((reading - first[1]) / 1000 / calls, now - first[0], calls, steps)
    finally:
        while waiting:
            waiting.popleft()()
    return None


def of_call(call: Callable[[], Any], latency_s: float) -> Energy | None:
    """The energy of a call on the GPU that torch uses; None where there is no counter, or it steps too seldom."""
    import torch

    read = counter(torch.cuda.current_device())
    if read is None:
        return None

    def marked() -> Callable[[], None]:
        event = torch.cuda.Event()
        event.record()
        return lambda: event.synchronize()

    return measured(call, latency_s, read, marked)
