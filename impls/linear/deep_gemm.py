"""FP8 products by DeepGEMM, DeepSeek's own kernels, where the package deep_gemm is installed.

The strongest known on Hopper for these shapes (arXiv 2412.19437's recipe, compiled for each shape at first use). Scales
go in as they are: rows run fastest, as its TMA loads want them. Its wgrad adds to the result, which is cleared first.
Shape suffixes: M rows, N outs, K ins, P rows sorted by group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from .inputs import DgradInputs, FpropInputs, GroupedInputs, TrainInputs, TrainResult, WgradInputs
from .quantize import Quantized
from .reference_train import fp8_training
from .shape import GroupedShape, LinearShape

NEEDS = ("cuda", "sm_90", "deep_gemm")
NAME = "deep-gemm"
SCALE_ROWS = 4
_same: dict[str, Any] = {"technique": "fp8", "kind": "library", "name": NAME, "needs": NEEDS}


def unaligned(shape: LinearShape | GroupedShape) -> str | None:
    """Why a shape would be copied before the kernel, or None."""
    return (
        None if shape.rows % SCALE_ROWS == 0 else f"scales are used as they are for rows in multiples of {SCALE_ROWS}"
    )


def by_tiles(operand: Quantized) -> tuple[Tensor, Tensor]:
    """Payload and scales [rows, tiles] of activations, rows running fastest."""
    return operand.payload, operand.scale.T


def multiply(a: Quantized, w: Quantized, out: torch.dtype) -> Tensor:
    """a w^T with tiles of a and blocks of w."""
    import deep_gemm

    result = torch.empty(len(a.payload), len(w.payload), dtype=out, device=a.payload.device)
    deep_gemm.fp8_gemm_nt(by_tiles(a), (w.payload, w.scale), result, disable_ue8m0_cast=True)
    return result


def added(a: Quantized, b: Quantized) -> Tensor:
    """a b^T with tiles of both, added to zeros in FP32."""
    import deep_gemm

    result = torch.zeros(len(a.payload), len(b.payload), device=a.payload.device)
    both = by_tiles(a), by_tiles(b)
    deep_gemm.fp8_gemm_nt(*both, result, c=result, recipe=(1, 1, 128), disable_ue8m0_cast=True)
    return result


def either(a: Quantized, b: Quantized, out: torch.dtype) -> Tensor:
    """The kernel that suits the second operand."""
    return multiply(a, b, out) if b.grain == "block" else added(a, b)


@implementation("linear.fprop", supports=unaligned, **_same)
def fprop(w: Quantized, shape: LinearShape) -> Callable[[FpropInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.x, w, shape.torch_dtype)


@implementation("linear.dgrad", supports=unaligned, **_same)
def dgrad(w: Quantized, shape: LinearShape) -> Callable[[DgradInputs], Tensor]:
    """Tiles by blocks."""
    return lambda inputs: multiply(inputs.dy, w, shape.torch_dtype)


@implementation("linear.wgrad", supports=unaligned, **_same)
def wgrad(w: None, shape: LinearShape) -> Callable[[WgradInputs], Tensor]:
    """Tiles by tiles, added to zeros in FP32."""

    return lambda inputs: added(inputs.dy, inputs.x)


@implementation("linear.layer_train", supports=unaligned, **_same)
def train(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """Its three products, with quantizers of PyTorch's parts."""
    return fp8_training(w_NK, shape, "fp8", either)


def _grouped(w: Quantized, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one call; the group of each row is made in the call, for it follows from the inputs."""

    def call(inputs: GroupedInputs) -> Tensor:
        import deep_gemm

        payload = inputs.x.payload
        rows_P = torch.arange(len(payload), device=payload.device, dtype=torch.int32)
        group_P = torch.bucketize(rows_P, inputs.ends_E, right=True, out_int32=True)
        result = torch.empty(len(payload), w.payload.shape[1], dtype=shape.torch_dtype, device=payload.device)
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            by_tiles(inputs.x), (w.payload, w.scale), result, group_P, disable_ue8m0_cast=True
        )
        return result

    return call


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(_operation, supports=unaligned, **_same)(_grouped)
