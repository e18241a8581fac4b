"""The hardware's own limits, measured in the same run, and how close a latency comes to them.

Bandwidth is measured for the two kinds of traffic that kernels have, reading alone and copying; the matrix rate for
each dtype, FP8 among them where the machine has it. Datasheet figures are not used: a power-capped or shared machine
does not reach them. The best of several tries counts, for a ceiling is what the machine can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .contract import Cost

TRIES = 5
SUSPECT_SHARE = 1.05
ROW = 8192
GATE_CYCLES = 1_000_000
MATRIX_DTYPES = ("float32", "bfloat16")
FP8, FP8_SINCE = "float8_e4m3fn", (8, 9)


def ceilings(device: str) -> dict[str, Any]:
    """Read and copy bandwidth in bytes/s (a copy counts both ways), and FLOP/s of a square product by dtype.

    Two ways of summing a buffer compete for the reading rate: neither reaches it on every machine.
    """
    source = torch.rand(_buffer_bytes(device) // 4 // ROW, ROW, device=device)
    target = torch.empty_like(source)
    rows = torch.empty(len(source), device=device)
    sink = torch.zeros((), device=device)
    size = source.numel()
    read = min(
        _best(lambda: torch.sum(source, dim=(0, 1), out=sink), device),
        _best(lambda: torch.sum(source, dim=1, out=rows), device),
    )
    copy = _best(lambda: target.copy_(source), device)
    return {
        "read_bandwidth": 4 * size / read,
        "copy_bandwidth": 8 * size / copy,
        "matrix": {dtype: _matrix_rate(dtype, device) for dtype in MATRIX_DTYPES} | _fp8_rate(device),
    }


def _buffer_bytes(device: str) -> int:
    """Far more than any cache holds, and little of the memory."""
    if device == "cuda":
        return min(8 * 1024**3, int(torch.cuda.get_device_properties(0).total_memory) // 16)
    return 192 * 1024**2


def _side(device: str) -> int:
    """Rows and columns of the square matrices."""
    return 8192 if device == "cuda" else 1536


def _matrix_rate(name: str, device: str) -> float:
    n, dtype = _side(device), getattr(torch, name)
    left = torch.randn(n, n, device=device, dtype=dtype)
    right = torch.randn(n, n, device=device, dtype=dtype)
    return float(2 * n**3) / _best(lambda: left @ right, device)


def _fp8_rate(device: str) -> dict[str, float]:
    """The same in FP8 with the tensor core's own accumulator, its fastest; nothing where the GPU or this PyTorch lacks
    it, and on a CPU, which emulates it."""
    if not _has_fp8(device):
        return {}
    n, one = _side(device), torch.ones((), device=device)
    left, right = (torch.randn(n, n, device=device).to(torch.float8_e4m3fn) for _ in range(2))

    def product() -> torch.Tensor:
        return torch._scaled_mm(left, right.T, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)

    try:
        return {FP8: float(2 * n**3) / _best(product, device)}
    except RuntimeError:
        return {}


def _has_fp8(device: str) -> bool:
    return device == "cuda" and torch.cuda.get_device_capability() >= FP8_SINCE


def _best(call: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of several calls after one that warms up; on a GPU, launched while it still waits."""
    call()
    times = []
    for _ in range(TRIES):
        if device == "cuda":
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda._sleep(GATE_CYCLES)
            first.record()
            call()
            last.record()
            torch.cuda.synchronize()
            times.append(float(first.elapsed_time(last)) / 1e3)
        else:
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
    return min(times)


def floor_ns(cost: Cost, measured: Mapping[str, Any]) -> float | None:
    """Least nanoseconds: the larger of FLOPs over the dtype's rate and bytes over bandwidth.

    Bytes that are both read and written move at the copy's bandwidth, the rest at reading's. None when the run has no
    ceiling for the dtype.
    """
    rate = measured.get("matrix", {}).get(cost.dtype)
    if not rate:
        return None
    both = 2 * min(cost.read_bytes, cost.write_bytes)
    rest = cost.read_bytes + cost.write_bytes - both
    moving = both / measured["copy_bandwidth"] + rest / measured["read_bandwidth"]
    return float(1e9 * max(cost.flops / rate, moving))
