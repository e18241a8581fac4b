"""Memory of a call: bytes that stay and the highest point in between, counted by torch's own allocators.

On a GPU the caching allocator keeps both counts. On a CPU torch's profiler reports every allocation and release, which
are added up here in order; memory taken outside torch (NumPy, a library's own heap) is not seen on either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Usage:
    """`kept`: bytes allocated by the call and still alive after it. `peak`: highest allocation while it ran."""

    kept: int
    peak: int


def measure(call: Callable[[], Any], device: str) -> tuple[Any, Usage]:
    """The call's result, and what it allocated on `device` above what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        return result, Usage(torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as trace:
        result = call()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: int(e.start_ns())):
        held += event.nbytes()
        peak = max(peak, held)
    return result, Usage(held, peak)


def launches(call: Callable[[], Any]) -> int:
    """Kernels, copies and fills that one call puts on the GPU, counted by torch's profiler."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as trace:
        call()
        torch.cuda.synchronize()
    events = trace.profiler.kineto_results.events()
    return sum(1 for e in events if e.device_type().name == "CUDA" and e.duration_ns() > 0)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation did not fit."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return "can't allocate memory" in text or "out of memory" in text
