"""A linear layer in training: FP32 master weight, everything else BF16 or FP8 (arXiv 2412.19437 §3.3, fig. 6; §3.5.2).

Forward quantizes activations by tiles and the weight by blocks, and keeps only the FP8 activations. Backward quantizes
the incoming gradient by tiles along N for dgrad and along M for wgrad, and turns the kept activations into tiles along
M: dequantized, transposed, quantized again, which rounds them a second time. The weight's blocks serve both products.
"fp8-row" and "fp8-tensor" do the same with their own grains, for contrast. Wins over BF16 by three products at twice
the rate and activations kept in half the bytes; loses by five passes of quantizing, which small layers do not repay.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from ..autograd import differentiated
from .inputs import TrainInputs, TrainResult
from .quantize import TECHNIQUES, Quantized, dequantize, quantize
from .reference import FP8, emulated, product, widened_wgrad
from .shape import LinearShape

Product = Callable[[Quantized, Quantized, torch.dtype], Tensor]
Quantizer = Callable[[Tensor, str, bool], Quantized]


def by_definition(a: Quantized, b: Quantized, out: torch.dtype) -> Tensor:
    """The reference's product in a dtype."""
    return product(a, b).to(out)


@dataclass(frozen=True)
class Recipe:
    """Grains of activations and weights, the form of scales, who multiplies, (a, b, dtype) -> a b^T, who quantizes."""

    grains: tuple[str, str]
    power_of_two: bool
    multiply: Product = by_definition
    quantizer: Quantizer = quantize

    def activation(self, x_RL: Tensor) -> Quantized:
        """Activations or their gradients, summed over the last axis."""
        return self.quantizer(x_RL.contiguous(), self.grains[0], self.power_of_two)

    def weight(self, w_RL: Tensor) -> Quantized:
        """A weight, summed over the last axis."""
        return self.quantizer(w_RL.contiguous(), self.grains[1], self.power_of_two)


class Fp8Linear(torch.autograd.Function):
    """y = x w^T with FP8 products: x [M, K], master weight [N, K]; y and dx in x's dtype, dw as the weight's."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor, recipe: Recipe) -> Tensor:
        """Quantize both, multiply, keep FP8."""
        x, w = recipe.activation(x_MK), recipe.weight(w_NK)
        ctx.save_for_backward(x.payload, x.scale, w_NK)
        ctx.recipe, ctx.out = recipe, x_MK.dtype
        ctx.wide = torch.promote_types(x_MK.dtype, torch.float32)
        return recipe.multiply(x.wide(ctx.wide), w.wide(ctx.wide), ctx.out)

    @staticmethod
    def backward(ctx: Any, dy_MN: Tensor) -> tuple[Tensor, Tensor, None]:
        """dgrad and wgrad."""
        payload_MK, scale, w_NK = ctx.saved_tensors
        recipe, wide = ctx.recipe, ctx.wide
        dy, w = recipe.activation(dy_MN), recipe.weight(w_NK.T.contiguous())
        dx_MK = recipe.multiply(dy.wide(wide), w.wide(wide), ctx.out)
        kept_MK = dequantize(Quantized(payload_MK, scale, recipe.grains[0]))
        dy, x = (recipe.activation(t.T.contiguous()) for t in (dy_MN, kept_MK))
        return dx_MK, recipe.multiply(dy.wide(wide), x.wide(wide), wide), None


class Bf16Linear(torch.autograd.Function):
    """y = x w^T with the weight rounded to the workload's dtype; dw in FP32 by a product (dy, x) of one's own."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor, dtype: torch.dtype, wgrad: Callable[..., Tensor]) -> Tensor:
        """Round the master weight and multiply."""
        rounded_NK = w_NK.to(dtype).to(x_MK.dtype)
        ctx.save_for_backward(x_MK, rounded_NK)
        ctx.wgrad = wgrad
        return F.linear(x_MK, rounded_NK)

    @staticmethod
    def backward(ctx: Any, dy_MN: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """dgrad, and wgrad in FP32."""
        x_MK, rounded_NK = ctx.saved_tensors
        return dy_MN @ rounded_NK, ctx.wgrad(dy_MN, x_MK), None, None


def training(forward: Callable[[Tensor, Tensor], Tensor], w_NK: Tensor) -> Callable[[TrainInputs], TrainResult]:
    """The call of linear.layer_train by a forward (w, x) that autograd can differentiate."""
    step = differentiated(forward, w_NK)
    return lambda inputs: TrainResult(*step(inputs.x_MK, inputs.dy_MN))


def fp8_training(
    w_NK: Tensor,
    shape: LinearShape,
    technique: str,
    multiply: Product = by_definition,
    quantizer: Quantizer = quantize,
) -> Callable[[TrainInputs], TrainResult]:
    """The call of linear.layer_train for an FP8 technique, with products and quantizers of one's own."""
    recipe = Recipe(TECHNIQUES[technique], shape.power_of_two, multiply, quantizer)
    return training(lambda w, x: Fp8Linear.apply(x, w, recipe), w_NK)


@implementation("linear.layer_train", technique="bf16", kind="reference")
def bf16(w_NK: Tensor, shape: LinearShape) -> Callable[[TrainInputs], TrainResult]:
    """Three products by the vendor's library; the master weight is rounded in every call."""
    return training(lambda w, x: Bf16Linear.apply(x, w, shape.torch_dtype, widened_wgrad), w_NK)


for _technique in FP8:

    @implementation("linear.layer_train", technique=_technique, kind="reference")
    def fp8(w_NK: Tensor, shape: LinearShape, technique: str = _technique) -> Prepared:
        """Five quantizations and three products, all by definition."""
        return emulated(fp8_training(w_NK, shape, technique))

    @implementation("linear.numerics", technique=_technique, kind="reference")
    def online(w_NK: Tensor, shape: LinearShape, technique: str = _technique) -> Prepared:
        """Inference: the weight is quantized at setup, activations in the call."""
        grain, weight_grain = TECHNIQUES[technique]
        w = quantize(w_NK, weight_grain, shape.power_of_two)

        def call(inputs: Any) -> Tensor:
            wide = torch.promote_types(inputs.x.dtype, torch.float32)
            return product(quantize(inputs.x, grain, shape.power_of_two).wide(wide), w.wide(wide)).to(inputs.x.dtype)

        return emulated(call)


@implementation("linear.numerics", technique="bf16", kind="reference")
def rounded(w_NK: Tensor, shape: LinearShape) -> Callable[[Any], Tensor]:
    """The same layer with the weight rounded to the workload's dtype at setup."""
    rounded_NK = w_NK.to(shape.torch_dtype)
    return lambda inputs: F.linear(inputs.x, rounded_NK.to(inputs.x.dtype))
