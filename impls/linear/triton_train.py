"""A linear layer in training by our Triton kernels: five quantizations in four passes, three products.

The forward quantizes the weight by blocks once, straight for itself and turned for dgrad, and keeps the turned payload;
the backward reads the incoming gradient once for both of its forms, and turns the kept FP8 activations without an FP32
copy of them. Wins over the reference's order by those readings and by no transposed copies. Loses a byte an entry of
the weight between forward and backward. Rounds exactly as the reference does.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from .inputs import TrainInputs, TrainResult
from .quantize import Quantized
from .reference_train import Product, training
from .shape import LinearShape
from .triton_gemm import multiply
from .triton_quantize import NEEDS, squares, tiles, transposed


class TritonLinear(torch.autograd.Function):
    """y = x w^T with FP8 products: x [M, K], master weight [N, K]; y and dx in x's dtype, dw in FP32.

    `multiply`: (a, b, dtype) -> a b^T of quantized operands, by blocks and by tiles of b.
    """

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor, power_of_two: bool, multiply: Product) -> Tensor:
        """Quantize both, multiply, keep FP8."""
        x = tiles(x_MK.contiguous(), power_of_two, aligned=True)
        w, turned = squares(w_NK.contiguous(), power_of_two, block=True, turned=True, aligned=True)
        ctx.save_for_backward(x.payload, x.scale, turned.payload, turned.scale)
        ctx.power_of_two, ctx.multiply = power_of_two, multiply
        return multiply(x, w, x_MK.dtype)

    @staticmethod
    def backward(ctx: Any, dy_MN: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """dgrad and wgrad, those that are asked for."""
        payload_MK, scale, w_payload_KN, w_scale = ctx.saved_tensors
        of_x, of_w, *_ = ctx.needs_input_grad
        dx_MK = dw_NK = None
        dy, turned = squares(dy_MN.contiguous(), ctx.power_of_two, straight=of_x, turned=of_w, aligned=True)
        if of_x:
            dx_MK = ctx.multiply(dy, Quantized(w_payload_KN, w_scale, "block"), dy_MN.dtype)
        if of_w:
            x = transposed(payload_MK, ctx.power_of_two, scale, aligned=True)
            dw_NK = ctx.multiply(turned, x, torch.float32)
        return dx_MK, dw_NK, None, None


@implementation("linear.layer_train", technique="fp8", kind="optimized", name="triton", needs=NEEDS)
def train(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """Forward and backward by these kernels."""
    return training(lambda w, x: TritonLinear.apply(x, w, shape.power_of_two, multiply), w_NK)
