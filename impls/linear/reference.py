"""The three products of a linear layer as DeepSeek-V3 writes them (arXiv 2412.19437 §3.3.1 and §3.3.2, fig. 6 and 7).

    fprop   y_MN  = x_MK w_NK^T          x by tiles along K, w by blocks
    dgrad   dx_MK = dy_MN w_NK           dy by tiles along N, the same blocks of w transposed
    wgrad   dw_NK = dy_MN^T x_MK         both by tiles along M; result in FP32

Partial sums of 128 elements are multiplied by both scales and added up in FP32: what the tensor core adds by itself
loses bits (`tensor_core.py`). Here all is done in FP32, on whatever device. FP8 wins by half the bytes and twice the
rate of the tensor core. It loses bits, time spent quantizing, and on machines without FP8, where it is emulated:
everything is widened first, so only bytes are saved.
Shape suffixes: M rows, N outs, K ins; R and S rows of two operands, L summed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from .inputs import DgradInputs, FpropInputs, WgradInputs
from .quantize import Quantized
from .shape import TILE, LinearShape

FP8 = ("fp8", "fp8-row", "fp8-tensor")
EMULATED = "FP8 payloads, widened to FP32 for each product"


def scale_at(operand: Quantized, tile: int) -> Tensor:
    """The scale of each row's elements in one tile of 128 along the summed axis: [R, 1], or [1, 1]."""
    if operand.grain == "tile":
        return operand.scale[tile].unsqueeze(1)
    if operand.grain == "block":
        return operand.scale[:, tile].repeat_interleave(TILE)[: len(operand.payload)].unsqueeze(1)
    return operand.scale


def product(a: Quantized, b: Quantized) -> Tensor:
    """a b^T [R, S] of operands that both are contiguous along the summed axis, in the dtype of their scales."""
    wide = torch.promote_types(a.scale.dtype, b.scale.dtype)
    total_RS = torch.zeros(len(a.payload), len(b.payload), dtype=wide, device=a.payload.device)
    for tile in range(-(-a.payload.shape[1] // TILE)):
        part = slice(tile * TILE, (tile + 1) * TILE)
        sums_RS = a.payload[:, part].to(wide) @ b.payload[:, part].to(wide).T
        total_RS += sums_RS * scale_at(a, tile) * scale_at(b, tile).T
    return total_RS


def narrowed(result: Tensor, shape: Any) -> Tensor:
    """A product in the workload's dtype, or as it is where scales came in higher precision: then it is the truth."""
    return result.to(shape.torch_dtype) if result.dtype == torch.float32 else result


def widened(x: Tensor) -> Tensor:
    """FP32, or what is wider already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def widened_wgrad(dy_MN: Tensor, x_MK: Tensor) -> Tensor:
    """dy^T x in FP32 or wider."""
    return widened(dy_MN).T @ widened(x_MK)


def emulated(call: Callable[[Any], Any]) -> Prepared:
    """A call that computes FP8 products in FP32; its records say so."""
    return Prepared(call, layout=EMULATED)


@implementation("linear.fprop", technique="bf16", kind="reference")
def fprop(w_NK: Tensor, shape: LinearShape) -> Callable[[FpropInputs], Tensor]:
    """x w^T by the vendor's library."""
    return lambda inputs: F.linear(inputs.x, w_NK)


@implementation("linear.dgrad", technique="bf16", kind="reference")
def dgrad(w_NK: Tensor, shape: LinearShape) -> Callable[[DgradInputs], Tensor]:
    """dy w by the vendor's library."""
    return lambda inputs: inputs.dy @ w_NK


@implementation("linear.wgrad", technique="bf16", kind="reference")
def wgrad(w: None, shape: LinearShape) -> Callable[[WgradInputs], Tensor]:
    """dy^T x, both widened first: the result is FP32."""
    return lambda inputs: widened_wgrad(inputs.dy, inputs.x)


@implementation("linear.fprop", technique=FP8, kind="reference")
def fprop_fp8(w: Quantized, shape: LinearShape) -> Prepared:
    """Sums of 128 elements, scaled, added up in FP32."""
    return emulated(lambda inputs: narrowed(product(inputs.x, w), shape))


@implementation("linear.dgrad", technique=FP8, kind="reference")
def dgrad_fp8(w: Quantized, shape: LinearShape) -> Prepared:
    """The same product; the sum is over the outs."""
    return emulated(lambda inputs: narrowed(product(inputs.dy, w), shape))


@implementation("linear.wgrad", technique=FP8, kind="reference")
def wgrad_fp8(w: None, shape: LinearShape) -> Prepared:
    """The same product over the rows, in FP32."""
    return emulated(lambda inputs: product(inputs.dy, inputs.x))
