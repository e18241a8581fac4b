"""FP8 products whose result has too few blocks for all processors: the summed axis is divided among programs too.

Wins at few rows, where time is what the weight takes to come from memory and every processor must ask for a part of
it. Wins undivided too, up to a few blocks a processor: three programs share one, and some add while others multiply.
Loses to the persistent kernel where much is summed, for small blocks read operands more often. Slices and parts follow
from sizes alone, by a model of the time that was fitted to an H200. The launch that adds parts up begins before the
other ends. Nothing is counted, so nothing is left behind for the next call, and results are the same every time.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, empty, float32

from ..triton_jit import TensorDescriptor
from . import triton_split_kernels as kernels
from .quantize import Quantized
from .shape import TILE

ELEMENTS = 512  # of a program that adds parts up
MOST_PARTS = 14
FEW = 6  # blocks of 128 x 128 a processor, up to which results are few
LONG = 8192  # elements summed; beyond, a block a processor is enough for the persistent kernel
FILL_NS = 2680.0  # until programs that begin at one time have their first operands, and their results are written
ADD_NS = 1240.0  # for a second launch
ADD_NS_BYTE = 0.54e-3  # for a byte of a part, written and read


@dataclass(frozen=True)
class Slice:
    """Blocks of rows x columns; stages of operands in flight, warps, programs a processor holds; which way round.

    A step of 128 takes a program `alone_ns`, and a processor `busy_ns` for each of its programs.
    """

    rows: int
    columns: int
    stages: int
    programs: int
    alone_ns: float
    busy_ns: float
    turned: bool = False
    warps: int = 4

    def blocks(self, rows: int, columns: int) -> int:
        """Of a result."""
        return math.ceil(rows / self.rows) * math.ceil(columns / self.columns)


@dataclass(frozen=True)
class Plan:
    """A slice, and the number of parts that the steps of each block are divided into."""

    slice: Slice
    parts: int

    def nanoseconds(self, rows: int, columns: int, length: int, processors: int) -> float:
        """About what it takes, but for what every launch takes."""
        one, steps = self.slice, math.ceil(math.ceil(length / TILE) / self.parts)
        turns, rest = divmod(one.blocks(rows, columns) * self.parts, one.programs * processors)
        time = ADD_NS + 4 * self.parts * rows * columns * ADD_NS_BYTE if self.parts > 1 else 0.0
        for programs, times in ((one.programs, turns), (math.ceil(rest / processors), int(rest > 0))):
            time += times * (FILL_NS + steps * max(one.alone_ns, programs * one.busy_ns))
        return time


SLICES = {
    16: (Slice(16, 128, 4, 3, 440, 300, turned=True),),
    32: (Slice(32, 64, 4, 4, 360, 170, turned=True),),
    64: (Slice(64, 64, 4, 3, 400, 230), Slice(64, 128, 4, 2, 360, 320)),
    128: (Slice(128, 64, 4, 2, 400, 280), Slice(64, 128, 3, 3, 550, 220)),
}  # by the rows up to which they are made; the last for more, too


def plans(rows: int, columns: int, length: int, processors: int) -> Iterator[Plan]:
    """Every slice made for so many rows, whole and in as many parts as are resident at once."""
    made_for = next((most for most in SLICES if rows <= most), max(SLICES))
    for one in SLICES[made_for]:
        resident = one.programs * processors // one.blocks(rows, columns)
        for parts in range(1, max(1, min(resident, MOST_PARTS, math.ceil(length / TILE))) + 1):
            yield Plan(one, parts)


@lru_cache(maxsize=1024)
def plan_for(rows: int, columns: int, length: int, processors: int) -> Plan | None:
    """The fastest by the model; None where there is no more than one step to sum, or blocks are plenty."""
    blocks = math.ceil(rows / TILE) * math.ceil(columns / TILE)
    if not blocks or length <= TILE or blocks > (FEW if length <= LONG else 1) * processors:
        return None
    sizes = rows, columns, length, processors
    return min(plans(*sizes), key=lambda plan: plan.nanoseconds(*sizes))


def launch(a: Quantized, b: Quantized, out: Tensor, plan: Plan) -> None:
    """Write a b^T to `out`: tiles of a, blocks of b, whose rows begin at multiples of 16 bytes."""
    (rows, columns), length, one = out.shape, a.payload.shape[1], plan.slice
    summed = out if plan.parts == 1 else empty(plan.parts, rows, columns, dtype=float32, device=out.device)
    early = plan.parts > 1 and out.device.type != "cpu"
    kernels.split[(one.blocks(rows, columns) * plan.parts,)](
        TensorDescriptor.from_tensor(a.payload, [one.rows, TILE]),
        TensorDescriptor.from_tensor(b.payload, [one.columns, TILE]),
        summed,
        a.scale,
        b.scale,
        rows,
        columns,
        length,
        plan.parts,
        M=one.rows,
        N=one.columns,
        STAGES=one.stages,
        TURNED=one.turned,
        EARLY=early,
        num_warps=one.warps,
    )
    if plan.parts > 1:
        options: dict[str, Any] = {"launch_pdl": True} if early else {}
        kernels.add_parts[(math.ceil(out.numel() / ELEMENTS),)](
            summed,
            out,
            out.numel(),
            plan.parts,
            P=1 << (plan.parts - 1).bit_length(),
            E=ELEMENTS,
            EARLY=early,
            num_warps=4,
            **options,
        )
