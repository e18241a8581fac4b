"""Does the clock tell the truth? Device times from events beside the profiler's own kernel times, kernel by kernel.

`python -m harness.crosscheck` on a GPU machine. Both see the same calls with cold caches; the profiler reads the
start and end of each kernel from the hardware (CUPTI), so that it neither knows about events nor about the gate.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from .clock import CacheFlush, EventClock, empty_pair_ns

AGREEMENT = 0.02
SLOTS = 12
GATE_KERNEL = "spin_kernel"


def kernels() -> dict[str, Callable[[], object]]:
    """Single kernels of 20 us and more, bound by memory and by arithmetic."""
    device, dtype = "cuda", torch.bfloat16
    found: dict[str, Callable[[], object]] = {}
    for megabytes in (64, 128, 256, 512):
        source = torch.rand(megabytes * 1024**2 // 4, device=device)
        target = torch.empty_like(source)
        found[f"copy {megabytes} MB"] = lambda s=source, t=target: t.copy_(s)  # type: ignore[misc]
    for n in (2048, 3072, 4096, 8192):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        c = torch.empty(n, n, device=device, dtype=dtype)
        found[f"matmul {n}"] = lambda a=a, b=b, c=c: torch.mm(a, b, out=c)  # type: ignore[misc]
    wide = torch.randn(8192, 8192, device=device, dtype=dtype)
    found["softmax 8192 x 8192"] = lambda: torch.softmax(wide, -1)
    for length in (2048, 4096):
        q, k, v = (torch.randn(1, 32, length, 128, device=device, dtype=dtype) for _ in range(3))
        found[f"attention {length}"] = lambda q=q, k=k, v=v: scaled_dot_product_attention(  # type: ignore[misc]
            q, k, v, is_causal=True
        )
    return found


def compare(call: Callable[[], object], flush: CacheFlush, empty_ns: float) -> tuple[float, float]:
    """Median nanoseconds of the same calls by events and by the profiler (first kernel's start to last one's end)."""
    clock = EventClock(call, flush, 1, empty_ns)
    clock.slot()
    flush_kernels, call_kernels = len(_spans(flush)), len(_spans(call))
    samples: list[float] = []
    spans = _spans(lambda: samples.extend(sample for _ in range(SLOTS) for sample in clock.slot()))
    per_call = flush_kernels + call_kernels
    times = []
    for index in range(len(samples)):
        mine = spans[index * per_call + flush_kernels : (index + 1) * per_call]
        times.append(mine[-1][1] - mine[0][0])
    return statistics.median(samples), statistics.median(times)


def _spans(body: Callable[[], object]) -> list[tuple[int, int]]:
    """Start and end of each kernel that `body` puts on the GPU, the gate's left out, in order."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        body()
        torch.cuda.synchronize()
    events = [
        e for e in seen.profiler.kineto_results.events() if e.device_type().name == "CUDA" and e.duration_ns() > 0
    ]
    return sorted((int(e.start_ns()), int(e.end_ns())) for e in events if GATE_KERNEL not in e.name())


def main() -> int:
    """Print the table; exit status 1 when fewer than six kernels agree within 2 %."""
    if not torch.cuda.is_available():
        print("there is no GPU here: the event clock cannot be checked")
        return 2
    flush = CacheFlush("cuda")
    empty = empty_pair_ns(flush)
    print(f"empty pair of events: {empty:.0f} ns, taken off each sample")
    agreeing = 0
    for name, call in kernels().items():
        call()
        events, traced = compare(call, flush, empty)
        difference = events / traced - 1
        agreeing += abs(difference) <= AGREEMENT and traced >= 20_000
        print(f"{name:22s} events {events / 1e3:9.2f} us   profiler {traced / 1e3:9.2f} us   {100 * difference:+.2f} %")
    print(f"{agreeing} kernels of 20 us and more agree within {100 * AGREEMENT:.0f} %")
    return 0 if agreeing >= 6 else 1


if __name__ == "__main__":
    sys.exit(main())
