"""Quantizing by Triton kernels: one launch, memory read and written once, equal to the definition to the bit.

Wins over PyTorch's parts by not writing FP32 copies, magnitudes and spread scales; the transposed form by turning a
square in shared memory instead of copying the matrix first; both forms of a gradient or a weight come from one reading.
Loses nothing known but time to compile. Any number of rows and columns; rows that begin off multiples of 16 bytes are
read in narrower pieces. Per-row and per-tensor scales are the reference's business.
Shape suffixes: M rows, C columns, U columns of the input; R rows, L summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness import implementation

from . import triton_quantize_kernels as kernels
from .before import EPS
from .inputs import QuantizeInputs
from .quantize import E4M3, Quantized
from .shape import TILE, QuantizeShape

NEEDS = ("cuda", "sm_90", "triton")
ALIGNED = 16  # bytes


@dataclass(frozen=True)
class Program:
    """Rows and tiles of a program of `tiles` and `normed`, or columns of one of `squares`; warps."""

    rows: int
    tiles: int
    warps: int

    def constants(self) -> dict[str, int]:
        """As the kernels of tiles take them."""
        return {"M": self.rows, "T": self.tiles, "num_warps": self.warps}


FLAT, NORMED = Program(16, 2, 4), Program(4, 4, 4)
TURNED, SQUARE = (64, 8), (128, 16)  # columns, warps


def count(length: int) -> int:
    """Tiles of 128 that cover a length."""
    return math.ceil(length / TILE)


def aligned_empty(rows: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Room for [rows, length] whose rows begin at multiples of 16 bytes."""
    entries = ALIGNED // dtype.itemsize
    return torch.empty(rows, math.ceil(length / entries) * entries, dtype=dtype, device=device)[:, :length]


def empty(rows: int, length: int, grain: str, like: Tensor, aligned: bool = False) -> Quantized:
    """Room for a quantized [rows, length] on the device of `like`; contiguous, or `aligned` for products."""
    scales = (count(length), rows) if grain == "tile" else (count(rows), count(length))
    room = aligned_empty if aligned else _contiguous
    scale = torch.empty(scales, dtype=torch.float32, device=like.device)
    return Quantized(room(rows, length, E4M3, like.device), scale, grain)


def _contiguous(rows: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(rows, length, dtype=dtype, device=device)


def tiles(
    x_MU: Tensor, power_of_two: bool, silu: bool = False, aligned: bool = False, program: Program = FLAT
) -> Quantized:
    """1 x 128 tiles of x [M, C], or of silu(gate) * up with x [M, 2 C]."""
    rows, columns = x_MU.shape[0], x_MU.shape[1] // (2 if silu else 1)
    made = empty(rows, columns, "tile", x_MU, aligned)
    grid = (math.ceil(rows / program.rows), math.ceil(count(columns) / program.tiles))
    words = {"SILU": silu, "POWER_OF_TWO": power_of_two, **program.constants()}
    strides = x_MU.stride(0), made.payload.stride(0)
    kernels.tiles[grid](x_MU, made.payload, made.scale, rows, columns, *strides, **words)
    return made


def normed(x_MC: Tensor, weight_C: Tensor, power_of_two: bool, program: Program = NORMED) -> Quantized:
    """1 x 128 tiles of the RMSNorm of x [M, C]."""
    rows, columns = x_MC.shape
    made = empty(rows, columns, "tile", x_MC)
    words = {"POWER_OF_TWO": power_of_two, **program.constants()}
    grid = (math.ceil(rows / program.rows),)
    kernels.normed[grid](x_MC, weight_C, made.payload, made.scale, rows, columns, EPS, **words)
    return made


def squares(
    x_MC: Tensor,
    power_of_two: bool,
    kept_scale: Tensor | None = None,
    block: bool = False,
    straight: bool = False,
    turned: bool = False,
    aligned: bool = False,
    launch: tuple[int, int] | None = None,
) -> tuple[Quantized | None, Quantized | None]:
    """x [M, C], or what FP8 tiles x with `kept_scale` stand for, quantized straight [M, C] and turned [C, M], as asked.

    `launch`: columns of a program, 128 but for turned tiles alone, and warps.
    """
    rows, columns = x_MC.shape
    grain = "block" if block else "tile"
    along = empty(rows, columns, grain, x_MC, aligned) if straight or block else None
    across = empty(columns, rows, grain, x_MC, aligned) if turned else None
    width, warps = launch or (SQUARE if block or straight else TURNED)
    some = along or across
    assert some is not None, "neither straight nor turned is asked for"
    first, second = along or some, across or some
    kernels.squares[(count(rows) * math.ceil(columns / width),)](
        x_MC,
        first.scale if kept_scale is None else kept_scale,
        first.payload,
        first.scale,
        second.payload,
        second.scale,
        rows,
        columns,
        x_MC.stride(0),
        first.payload.stride(0),
        second.payload.stride(0),
        KEPT=kept_scale is not None,
        BLOCK=block,
        STRAIGHT=straight,
        TURNED=turned,
        POWER_OF_TWO=power_of_two,
        C=width,
        num_warps=warps,
    )
    return along, across


def blocks(x_RL: Tensor, power_of_two: bool) -> Quantized:
    """128 x 128 blocks."""
    made, _ = squares(x_RL, power_of_two, block=True)
    assert made is not None
    return made


def transposed(x_MC: Tensor, power_of_two: bool, kept_scale: Tensor | None = None, aligned: bool = False) -> Quantized:
    """128 x 1 tiles of x, or of what FP8 tiles stand for, written as [C, M]."""
    _, made = squares(x_MC, power_of_two, kept_scale, turned=True, aligned=aligned)
    assert made is not None
    return made


@implementation("linear.quantize", technique="fp8", kind="optimized", name="triton", needs=NEEDS)
def quantizing(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Quantized]:
    """One kernel for what comes before and the quantizing."""
    power_of_two = shape.power_of_two
    if shape.form == "rmsnorm":
        assert weight_C is not None
        return lambda inputs: normed(inputs.x_MU, weight_C, power_of_two)
    if shape.form in ("tiles", "silu"):
        return lambda inputs: tiles(inputs.x_MU, power_of_two, shape.form == "silu")
    made = blocks if shape.form == "blocks" else transposed
    return lambda inputs: made(inputs.x_MU, power_of_two)
