"""FP8 products by persistent Triton kernels, promoted to FP32 every 128 elements: forward, dgrad, wgrad, and grouped.

Any M, N and K: an operand whose rows do not begin at multiples of 16 bytes is copied to longer rows first. Products by
blocks of the weight whose result has few blocks are left to `triton_split.py`, which divides the summed axis; elsewhere
blocks become narrower until there is one for each processor. Loses to kernels that share an operand among clusters of
processors, which Triton cannot (DeepGEMM), and where warps wait for each other three times a step. Launches follow from
sizes alone; of groups only their number is known to the host.
Shape suffixes: M rows, N outs, K ins; R rows of a, S rows of b, L summed; P rows sorted by group, E groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from ..triton_jit import TensorDescriptor, processors
from . import triton_gemm_kernels as kernels
from . import triton_split
from .inputs import DgradInputs, FpropInputs, GroupedInputs, GroupedWgradInputs, WgradInputs
from .quantize import Quantized
from .shape import TILE, GroupedShape, LinearShape
from .triton_quantize import ALIGNED, NEEDS, aligned_empty

GROUP = 8
FILLED = 0.75  # of the processors must get a block before blocks are made wider


@dataclass(frozen=True)
class Block:
    """What a program computes at a time: rows, columns; stages of operands in flight, warps, programs a processor."""

    rows: int
    columns: int
    stages: int
    warps: int
    programs: int = 1

    def constants(self) -> dict[str, int]:
        """As the kernels take them."""
        return {
            "M": self.rows,
            "N": self.columns,
            "STAGES": self.stages,
            "GROUP": GROUP,
            "num_warps": self.warps,
        }


SQUARE = Block(128, 128, 4, 8)
FEW = (Block(64, 128, 3, 4, 2), Block(64, 64, 6, 4, 2), Block(64, 32, 8, 4, 2))
BLOCKS = (SQUARE, *FEW)  # the widest first


def block_for(rows: int, columns: int, processors: int, tiles: bool = False) -> Block:
    """The widest block of which there are enough for the processors, and none twice as high as the rows.

    With `tiles` of both operands there is more to add in a step, which two lower blocks do in turn.
    """
    able = FEW if rows <= 64 or tiles else BLOCKS
    return next((one for one in able if number(rows, columns, one) >= FILLED * processors), able[-1])


def number(rows: int, columns: int, block: Block) -> int:
    """Blocks of a result."""
    return math.ceil(rows / block.rows) * math.ceil(columns / block.columns)


def aligned(matrix: Tensor) -> bool:
    """Whether rows begin at multiples of 16 bytes, as asynchronous copies want."""
    return matrix.stride(0) * matrix.itemsize % ALIGNED == 0 and matrix.data_ptr() % ALIGNED == 0


def aligned_operand(matrix: Tensor) -> Tensor:
    """A matrix, or a copy with longer rows where they do not begin at multiples of 16 bytes."""
    return matrix if aligned(matrix) else aligned_empty(*matrix.shape, matrix.dtype, matrix.device).copy_(matrix)


def descriptor(matrix: Tensor, rows: int, columns: int) -> Any:
    """A matrix as asynchronous copies of [rows, columns]."""
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


def launch(kernel: Any, a: Quantized, b: Quantized, out: Tensor, ends_E: Tensor | None, block: Block) -> None:
    """Write a b^T to `out`. For grouped products `b` (by blocks) or `out` (by tiles) has a leading E."""
    rows, length = a.payload.shape
    columns = b.payload.shape[-2]
    groups = 1 if ends_E is None else len(ends_E)
    if not out.numel():
        return
    if not length:
        out.zero_()
        return
    by_tiles, flat = kernel is kernels.by_tiles, out.view(-1, columns)
    # A block that reaches into the next group's result is stored row by row.
    tma = aligned(flat) and (len(flat) == rows or rows % block.rows == 0)
    blocks = number(rows, columns, block) * (groups if by_tiles else 1)
    kernel[(min(blocks, block.programs * processors(out.device)),)](
        descriptor(aligned_operand(a.payload), block.rows, TILE),
        descriptor(aligned_operand(b.payload.flatten(0, -2)), block.columns, TILE),
        descriptor(flat, block.rows, block.columns) if tma else flat,
        a.scale,
        b.scale,
        a.scale if ends_E is None else ends_E,
        rows,
        columns,
        length,
        groups,
        TMA=tma,
        GROUPED=ends_E is not None,
        MOST=1 << (groups - 1).bit_length(),
        **block.constants(),
    )


def multiply(a: Quantized, b: Quantized, out: torch.dtype, block: Block | None = None) -> Tensor:
    """a b^T [R, S] with tiles of a, and blocks or tiles of b. Unless a `block` is given, few of them are divided."""
    (rows, length), columns = a.payload.shape, len(b.payload)
    result = torch.empty(rows, columns, dtype=out, device=a.payload.device)
    plan = None
    if block is None and b.grain == "block":
        plan = triton_split.plan_for(rows, columns, length, processors(result.device))
    if plan is not None:
        a, b = (replace(one, payload=aligned_operand(one.payload)) for one in (a, b))
        triton_split.launch(a, b, result, plan)
        return result
    block = block or block_for(rows, columns, processors(result.device), b.grain == "tile")
    launch(kernels.by_blocks if b.grain == "block" else kernels.by_tiles, a, b, result, None, block)
    return result


def multiply_grouped(
    x: Quantized, w: Quantized, ends_E: Tensor, out: torch.dtype, block: Block | None = None
) -> Tensor:
    """Each group's rows of x [P, L] times its own w [E, S, L] transposed, [P, S]; zeros after the last group."""
    rows, columns = len(x.payload), w.payload.shape[1]
    result = torch.empty(rows, columns, dtype=out, device=x.payload.device)
    launch(kernels.by_blocks, x, w, result, ends_E, block or block_for(rows, columns, processors(result.device)))
    return result


def multiply_between(a: Quantized, b: Quantized, ends_E: Tensor, block: Block | None = None) -> Tensor:
    """a b^T over each group's part of the summed axis, [E, R, S] in FP32; zeros for a group that has none."""
    rows, columns, groups = len(a.payload), len(b.payload), len(ends_E)
    result = torch.empty(groups, rows, columns, dtype=torch.float32, device=a.payload.device)
    block = block or block_for(rows, groups * columns, processors(result.device), tiles=True)
    launch(kernels.by_tiles, a, b, result, ends_E, block)
    return result


_same: dict[str, Any] = {"technique": "fp8", "kind": "optimized", "name": "triton", "needs": NEEDS}


@implementation("linear.fprop", **_same)
def fprop(w: Quantized, shape: LinearShape) -> Callable[[FpropInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.x, w, shape.torch_dtype)


@implementation("linear.dgrad", **_same)
def dgrad(w: Quantized, shape: LinearShape) -> Callable[[DgradInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.dy, w, shape.torch_dtype)


@implementation("linear.wgrad", **_same)
def wgrad(w: None, shape: LinearShape) -> Callable[[WgradInputs], Tensor]:
    """Tiles by tiles, in FP32."""
    return lambda inputs: multiply(inputs.dy, inputs.x, torch.float32)


def _grouped(w: Quantized, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one launch."""
    return lambda inputs: multiply_grouped(inputs.x, w, inputs.ends_E, shape.torch_dtype)


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(_operation, **_same)(_grouped)


@implementation("linear.grouped_wgrad", **_same)
def grouped_wgrad(w: None, shape: GroupedShape) -> Callable[[GroupedWgradInputs], Tensor]:
    """All groups in one launch."""
    return lambda inputs: multiply_between(inputs.dy, inputs.x, inputs.ends_E)
