"""BF16 with FP32 gradients of weights by cuBLAS: 16-bit operands, FP32 result, no copy of either.

The baseline on a GPU; the reference widens both operands first. Elsewhere there is no such product.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from .inputs import TrainInputs, TrainResult, WgradInputs
from .reference_train import Bf16Linear, training
from .shape import LinearShape


def wgrad(dy_MN: Tensor, x_MK: Tensor) -> Tensor:
    """dy^T x in FP32."""
    if dy_MN.dtype == torch.float32:
        return dy_MN.T @ x_MK
    return torch.mm(dy_MN.T, x_MK, out_dtype=torch.float32)


@implementation("linear.wgrad", technique="bf16", kind="library", needs="cuda")
def mm(w: None, shape: LinearShape) -> Callable[[WgradInputs], Tensor]:
    """dy^T x from 16-bit operands with an FP32 result."""
    return lambda inputs: wgrad(inputs.dy, inputs.x)


@implementation("linear.layer_train", technique="bf16", kind="library", name="mm", needs="cuda")
def train(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """The reference with that product."""
    return training(lambda w, x: Bf16Linear.apply(x, w, shape.torch_dtype, wgrad), w_NK)
