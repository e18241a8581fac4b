"""FP8 products by torchao's blockwise prototype, where the package torchao is installed: Triton, scales as ours.

A public Triton baseline. Wins nothing over cuBLAS or DeepGEMM on large products; needs nothing compiled beforehand.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from .inputs import DgradInputs, FpropInputs, TrainInputs, TrainResult, WgradInputs
from .quantize import Quantized
from .reference_train import fp8_training
from .shape import TILE, LinearShape

NAME = "torchao"
_same: dict[str, Any] = {"technique": "fp8", "kind": "library", "name": NAME, "needs": ("cuda", "torchao")}


def multiply(a: Quantized, b: Quantized, out: torch.dtype) -> Tensor:
    """a b^T with tiles of a, and blocks or tiles of b."""
    from torchao.prototype.blockwise_fp8_training import kernels

    matrices = a.payload, b.payload.T, a.scale.T
    if b.grain == "block":
        return kernels.triton_fp8_gemm_1x128_128x128(*matrices, b.scale.T, TILE, out)
    return kernels.triton_fp8_gemm_1x128_128x1(*matrices, b.scale, TILE, out)


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


@implementation("linear.layer_train", **_same)
def train(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """Its three products, with quantizers of PyTorch's parts."""
    return fp8_training(w_NK, shape, "fp8", multiply)
