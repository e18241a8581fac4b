"""Quantizing by Triton kernels: one launch, memory read and written once, equal to the definition to the bit.

Wins over PyTorch's parts by not writing FP32 copies, magnitudes and spread scales; the transposed form by turning a
square in shared memory instead of copying the matrix first; both forms of a gradient or a weight come from one reading.
Loses time to compile, once for each number of columns in multiples of 128, and speed where a row of an RMSNorm is
longer than 32768, which no longer fits into the registers of sixteen warps. Up to 2^23 rows, any number of columns.
Rows that begin off multiples of 16 bytes are read in narrower pieces, and such turned payloads are copied once more.
Per-row and per-tensor scales are the reference's business.
Shape suffixes: M rows, C columns, U columns of the input; R rows, L summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import implementation

from ..triton_jit import processors
from . import triton_quantize_kernels as kernels
from .before import EPS
from .inputs import QuantizeInputs
from .quantize import E4M3, Quantized
from .shape import TILE, QuantizeShape

NEEDS = ("cuda", "sm_90", "triton")
ALIGNED = 16  # bytes
MOST_WARPS = 16
PROGRAMS = 3  # of an RMSNorm of long rows, a processor


@dataclass(frozen=True)
class Program:
    """Rows and tiles of a program of `tiles`, and warps. `normed` takes whole rows, at least one, of as many tiles,
    and more warps for longer ones."""

    rows: int
    tiles: int
    warps: int


@dataclass(frozen=True)
class Square:
    """Columns of a program of `squares`, its warps, neighbours that a thread reads in a row (0: 16 bytes of them), and
    the registers that a thread may take, by which more programs fit into a processor."""

    columns: int
    warps: int
    run: int = 0
    registers: int | None = None


FLAT, NORMED = Program(16, 2, 4), Program(64, 1, 4)
BLOCKS, BOTH_BLOCKS = Square(128, 4), Square(128, 8)
BOTH_TILES, BOTH_TILES_WIDE = Square(128, 4, 8, 160), Square(128, 8)
TURNED, KEPT = Square(64, 4, 4, 80), Square(64, 4, 4)


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
    strides = x_MU.stride(0), made.payload.stride(0)
    kernels.tiles[grid](
        x_MU,
        made.payload,
        made.scale,
        rows,
        columns,
        *strides,
        SILU=silu,
        POWER_OF_TWO=power_of_two,
        M=program.rows,
        T=program.tiles,
        num_warps=program.warps,
    )
    return made


def normed(x_MC: Tensor, weight_C: Tensor, power_of_two: bool, program: Program = NORMED) -> Quantized:
    """1 x 128 tiles of the RMSNorm of x [M, C]."""
    rows, columns = x_MC.shape
    made = empty(rows, columns, "tile", x_MC)
    room = 1 << max(count(columns) - 1, 0).bit_length()
    held = program.rows * program.tiles
    some, warps = max(1, held // room), min(MOST_WARPS, program.warps * max(1, room // held))
    programs = math.ceil(rows / some)
    if some == 1:
        programs = min(programs, PROGRAMS * processors(x_MC.device))
    kernels.normed[(programs,)](
        x_MC,
        weight_C,
        made.payload,
        made.scale,
        rows,
        columns,
        EPS,
        POWER_OF_TWO=power_of_two,
        M=some,
        T=room,
        WIDTH=0 if columns % TILE else columns,
        MORE=some == 1,
        num_warps=warps,
    )
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
    across = empty(columns, rows, grain, x_MC, aligned=True) if turned else None
    some = along or across
    assert some is not None, "neither straight nor turned is asked for"
    first, second = along or some, across or some
    square = Square(*launch) if launch else _square(x_MC, block, straight, turned)
    kernels.squares[(math.ceil(columns / square.columns), count(rows))](
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
        C=square.columns,
        WIDTH=columns if rows % TILE == 0 and columns % TILE == 0 and x_MC.is_contiguous() else 0,
        RUN=square.run,
        num_warps=square.warps,
        maxnreg=square.registers,
    )
    if across is not None and not aligned:
        across = replace(across, payload=across.payload.contiguous())  # a copy where rows are not aligned by themselves
    return along, across


def _square(x_MC: Tensor, block: bool, straight: bool, turned: bool) -> Square:
    """What was fastest on an H200, and what FP32 inputs leave registers for."""
    if block:
        return BOTH_BLOCKS if turned else BLOCKS
    if straight:
        return BOTH_TILES if x_MC.itemsize < 4 else BOTH_TILES_WIDE
    return KEPT if x_MC.dtype == E4M3 else TURNED


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
