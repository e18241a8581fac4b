"""FP8 products by a Gluon kernel for Hopper: forward, dgrad, wgrad, grouped, and a layer in training.

Wins over the Triton kernels, and over cuBLAS's block-scaled product by a tenth, where rows and columns fill turns of
blocks of 128 x 256: copies, products and additions are done by warps of their own, which meet at the barriers of a
stage and nowhere else. Additions cost 9 % there (H200, M 4096). Loses below 128 rows, where half of a block or more is
empty; where blocks leave processors idle, as 96 or 288 do 132 of them; and, with results in FP32, to kernels that share
an operand among clusters (cuBLAS, DeepGEMM): Gluon 3.6 has neither multicast nor clusters on Hopper, and blocks are
128 x 128 there.
Made for Triton 3.6, whose Gluon is experimental; elsewhere it is not listed as able.
Shape suffixes: M rows, N outs, K ins; R rows of a, S rows of b, L summed; P rows sorted by group, E groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from ..gluon_jit import NEEDS
from ..triton_jit import processors
from . import gluon_gemm_kernels as kernels
from .inputs import DgradInputs, FpropInputs, GroupedInputs, GroupedWgradInputs, TrainInputs, TrainResult, WgradInputs
from .quantize import Quantized
from .reference_train import training
from .shape import TILE, GroupedShape, LinearShape
from .triton_gemm import GROUP, aligned_operand
from .triton_quantize import ALIGNED
from .triton_train import TritonLinear

SUPPORTED = "3.6."
REGISTERS = 168  # a thread of three warp groups; those that multiply take 240, the copying one 24
STAGES = {(1, 2): 5, (1, 4): 4, (2, 2): 4}  # by halves and bytes of a result's element: what shared memory holds
WIDER = 0.86  # time of two products of one stage, over that of two stages
ROWS = 64  # of a block of the result that leaves at once


def unfit(shape: LinearShape | GroupedShape) -> str | None:
    """Why a shape is not taken, or None."""
    try:
        import triton
    except ModuleNotFoundError:
        return None  # `needs` says so
    if not triton.__version__.startswith(SUPPORTED):
        return f"Gluon is experimental: made for Triton {SUPPORTED}x, this is {triton.__version__}"
    for name in ("outs", "ins"):
        if getattr(shape, name) * min(shape.torch_dtype.itemsize, 2) % ALIGNED:
            return f"results are copied by rows of whole {ALIGNED} bytes, not of {getattr(shape, name)} {name}"
    return None


def unfit_apart(shape: GroupedShape) -> str | None:
    """The same where each group has a result of its own."""
    if shape.outs % ROWS:
        return f"the results of groups are copied {ROWS} rows at once, and {shape.outs} outs are no multiple"
    return unfit(shape)


def halves_for(rows: int, columns: int, processors: int) -> int:
    """Halves of a block's columns, by how often each processor gets a block."""
    turns = [math.ceil(rows / TILE) * math.ceil(columns / (TILE * halves)) / processors for halves in (1, 2)]
    return 2 if 2 * WIDER * math.ceil(turns[1]) <= math.ceil(turns[0]) else 1


def descriptor(matrix: Tensor, rows: int) -> Any:
    """A matrix as asynchronous copies of [rows, 128]."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    names = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16, torch.float32: gl.float32}
    block = [rows, TILE]
    layout = gl.NVMMASharedLayout.get_default_for(block, names.get(matrix.dtype, gl.float8e4nv))
    return TensorDescriptor.from_tensor(matrix, block, layout)


def launch(a: Quantized, b: Quantized, out: Tensor, ends_E: Tensor | None, halves: int | None = None) -> None:
    """Write a b^T to `out`. For grouped products `b` (by blocks) or `out` (by tiles) has a leading E."""
    rows, length = a.payload.shape
    columns = b.payload.shape[-2]
    groups, tiles = 1 if ends_E is None else len(ends_E), b.grain == "tile"
    if not out.numel():
        return
    if not length:
        out.zero_()
        return
    most = processors(out.device)
    if tiles or out.itemsize > 2:
        halves = 1
    halves = halves or halves_for(rows, columns, most)
    blocks = math.ceil(rows / TILE) * math.ceil(columns / (TILE * halves)) * (groups if tiles else 1)
    kernels.block_scaled[(min(blocks, most),)](
        descriptor(aligned_operand(a.payload), TILE),
        descriptor(aligned_operand(b.payload.flatten(0, -2)), TILE),
        descriptor(out.view(-1, columns), ROWS),
        descriptor(aligned_operand(a.scale), 1),
        descriptor(aligned_operand(b.scale), 1) if tiles else b.scale,
        a.scale if ends_E is None else ends_E,
        rows,
        columns,
        length,
        groups,
        HALVES=halves,
        TILES=tiles,
        HALVINGS=0 if ends_E is None else groups.bit_length(),
        STAGES=STAGES[halves, min(out.itemsize, 4)],
        GROUP=GROUP,
        num_warps=4,
        maxnreg=REGISTERS,
    )


def multiply(a: Quantized, b: Quantized, out: torch.dtype, halves: int | None = None) -> Tensor:
    """a b^T [R, S] with tiles of a, and blocks or tiles of b."""
    result = torch.empty(len(a.payload), len(b.payload), dtype=out, device=a.payload.device)
    launch(a, b, result, None, halves)
    return result


def multiply_grouped(x: Quantized, w: Quantized, ends_E: Tensor, out: torch.dtype, halves: int | None = None) -> Tensor:
    """Each group's rows of x [P, L] times its own w [E, S, L] transposed, [P, S]; zeros after the last group."""
    result = torch.empty(len(x.payload), w.payload.shape[1], dtype=out, device=x.payload.device)
    launch(x, w, result, ends_E, halves)
    return result


def multiply_between(a: Quantized, b: Quantized, ends_E: Tensor) -> Tensor:
    """a b^T over each group's part of the summed axis, [E, R, S] in FP32; zeros for a group that has none."""
    sizes = len(ends_E), len(a.payload), len(b.payload)
    result = torch.empty(sizes, dtype=torch.float32, device=a.payload.device)
    launch(a, b, result, ends_E)
    return result


_same: dict[str, Any] = {"technique": "fp8", "kind": "optimized", "name": "gluon", "needs": NEEDS}


@implementation("linear.fprop", supports=unfit, **_same)
def fprop(w: Quantized, shape: LinearShape) -> Callable[[FpropInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.x, w, shape.torch_dtype)


@implementation("linear.dgrad", supports=unfit, **_same)
def dgrad(w: Quantized, shape: LinearShape) -> Callable[[DgradInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.dy, w, shape.torch_dtype)


@implementation("linear.wgrad", supports=unfit, **_same)
def wgrad(w: None, shape: LinearShape) -> Callable[[WgradInputs], Tensor]:
    """Tiles by tiles, in FP32."""
    return lambda inputs: multiply(inputs.dy, inputs.x, torch.float32)


@implementation("linear.layer_train", supports=unfit, **_same)
def train(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """The layer of the Triton kernels with these products."""
    return training(lambda w, x: TritonLinear.apply(x, w, shape.power_of_two, multiply), w_NK)


def _grouped(w: Quantized, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one launch."""
    return lambda inputs: multiply_grouped(inputs.x, w, inputs.ends_E, shape.torch_dtype)


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(_operation, supports=unfit, **_same)(_grouped)


@implementation("linear.grouped_wgrad", supports=unfit_apart, **_same)
def grouped_wgrad(w: None, shape: GroupedShape) -> Callable[[GroupedWgradInputs], Tensor]:
    """All groups in one launch."""
    return lambda inputs: multiply_between(inputs.dy, inputs.x, inputs.ends_E)
