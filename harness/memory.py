"""Memory of a call: bytes that stay and the highest point in between, counted by torch's own allocators.

On a GPU the caching allocator keeps both counts. On a CPU torch's profiler reports every allocation and release, which
are added up here in order; memory taken outside torch (NumPy, a library's own heap) is not seen on either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Usage:
    """`kept`: bytes allocated by the call and still alive after it. `peak`: highest allocation while it ran.
    `allocations`: how often it asked the allocator for memory."""

    kept: int
    peak: int
    allocations: int


def measure(call: Callable[[], Any], device: str) -> tuple[Any, Usage]:
    """The call's result, and what it allocated on `device` above what was there before."""
    if device == "cuda":
        torch.cuda.synchronize()
        before, asked = torch.cuda.memory_allocated(), _asked()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        kept, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
        return result, Usage(kept, peak, _asked() - asked)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as trace:
        result = call()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: int(e.start_ns())):
        held += event.nbytes()
        peak = max(peak, held)
    return result, Usage(held, peak, sum(1 for event in events if event.nbytes() > 0))


def _asked() -> int:
    """Allocations on the GPU so far."""
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


def launches(call: Callable[[], Any]) -> int:
    """Kernels, copies and fills that one call puts on the GPU, counted by torch's profiler."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as trace:
        call()
        torch.cuda.synchronize()
    events = trace.profiler.kineto_results.events()
    return sum(1 for e in events if e.device_type().name == "CUDA" and e.duration_ns() > 0)


def free_bytes(device: str) -> int | None:
    """Memory that is free now; None where it cannot be read."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    try:
        found = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None
