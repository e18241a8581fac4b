"""Every figure the suite reports, declared once: its unit, which way is better, and what exactly it means.

Tables, pages and gates read these declarations; a record refuses a figure nobody declared. An operation adds its own
(KV bytes a token, expert balance) in its contract, and they travel in the run's header, so that pages need no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Metric:
    """`unit` is one of ns, s, bytes, tokens/s, share (0 to 1), ratio, count, or an operation's own word.

    `exact`: the same code under the same software gives the same value, on any machine; a difference of up to so much,
    in `unit`, is none. None: the value has noise. What `python -m harness.exact` compares.
    """

    name: str
    unit: str
    better: Better
    meaning: str
    exact: float | None = None


ROUNDING = 512  # bytes: CUDA's allocator hands out multiples

COMMON = {
    metric.name: metric
    for metric in (
        Metric("latency", "ns", "lower", "Median time of one call; device time on a GPU, wall time on a CPU."),
        Metric("ratio", "ratio", "lower", "Latency over the latency of the case's baseline, from paired rounds."),
        Metric("floor", "ns", "lower", "Least time the hardware allows: bytes or FLOPs over the measured ceilings."),
        Metric("floor_share", "share", "higher", "Floor over latency: 1 is the hardware's own limit."),
        Metric("throughput", "tokens/s", "higher", "Tokens processed (decode: new tokens) over latency, one layer."),
        Metric(
            "resident",
            "bytes",
            "lower",
            "Weights, what setup keeps (a trial: with its first step), and state such as the KV cache.",
            ROUNDING,
        ),
        Metric(
            "state", "bytes", "lower", "The part of resident that the call updates, as this layout holds it.", ROUNDING
        ),
        Metric("peak", "bytes", "lower", "Highest allocation during one call above resident and inputs.", ROUNDING),
        Metric("flops", "count", "neither", "Floating-point operations of one call, by the contract's cost model.", 0),
        Metric("bytes", "bytes", "neither", "Least bytes of one call: each needed byte once, caches cold.", 0),
        Metric("flop_rate", "FLOP/s", "higher", "Cost model's FLOPs over latency."),
        Metric("byte_rate", "bytes/s", "higher", "Least bytes over latency."),
        Metric(
            "energy",
            "J",
            "lower",
            "Energy of one call among many without a gap, by the GPU's own counter.",
        ),
        Metric("token_energy", "J/token", "lower", "Energy of one call over the tokens it processes."),
        Metric("error", "ratio", "lower", "Relative Frobenius error against the reference in higher precision."),
        Metric("setup", "s", "lower", "Time from weights to a callable, first call and compilation included."),
        Metric("steps", "count", "neither", "Steps taken: fewer than the case's name says where the time was up."),
        Metric("launches", "count", "lower", "Kernels, copies and fills that one call puts on the GPU."),
        Metric("submit", "ns", "lower", "Host time to enqueue one call; it is not part of the latency."),
    )
}

# What one call does, counted in an untimed pass or without a GPU; only the exact gate keeps these.
COUNTED = {
    metric.name: metric
    for metric in (
        Metric("operators", "count", "lower", "ATen operators that one call dispatches, views included.", 0),
        Metric("allocations", "count", "lower", "Allocations of one call by torch's allocator.", 0),
        Metric("triton_launches", "count", "lower", "Triton kernels that one call launches.", 0),
        Metric("registers", "count", "lower", "Registers a thread of the compiled kernel takes.", 0),
        Metric("spilled", "bytes", "lower", "Registers a thread stores to local memory for want of room.", 0),
        Metric("stack", "bytes", "lower", "Local memory of a thread.", 0),
        Metric("shared", "bytes", "lower", "Shared memory of a program.", 0),
        Metric("tensor_core", "count", "higher", "Matrix instructions in the compiled kernel (wgmma, mma).", 0),
    )
}
