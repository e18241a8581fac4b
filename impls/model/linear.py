"""The model's linear layers: in the dtype it computes in, or in FP8 as the linear study defines it.

In FP8 are all projections of attention and of the feed-forward layers, experts included, in all three products, their
matrices quantized from the FP32 masters in every call. As in DeepSeek-V3 (arXiv 2412.19437 §3.3.1) embedding, output
head, the experts' gating, norms and the attention operator are not. What V3 does besides is left out: E5M6 for what
follows attention, and activations that are recomputed or sent in FP8. `PRODUCTS` are the layers that do it.
Wins where FP8 tensor cores are; elsewhere FP8 is emulated, several times slower, with the same rounding.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..linear import deep_gemm, dequantized, scaled_mm, triton_gemm
from ..linear.quantize import TECHNIQUES, quantize
from ..linear.reference_train import Fp8Linear, Product, Quantizer, Recipe, by_definition
from ..linear.triton_train import TritonLinear

LINEARS = ("bf16", *TECHNIQUES)
Linear = Callable[[Tensor, Tensor], Tensor]
Made = Callable[[str, bool], Linear]


def of_parts(multiply: Product, quantizer: Quantizer) -> Made:
    """The reference's layer with a product and a quantizer of one's own: (technique, power of two) -> (x, w) -> y."""

    def made(technique: str, power_of_two: bool) -> Linear:
        recipe = Recipe(TECHNIQUES[technique], power_of_two, multiply, quantizer)
        return lambda x_MK, w_NK: Fp8Linear.apply(x_MK, w_NK, recipe)

    return made


def of_triton(technique: str, power_of_two: bool) -> Linear:
    """Our kernels' layer. Raises ValueError for other grains than tiles and blocks."""
    if technique != "fp8":
        raise ValueError(f"product 'triton' has tiles and blocks only, linear is {technique!r}")
    return lambda x_MK, w_NK: TritonLinear.apply(x_MK, w_NK, power_of_two, triton_gemm.multiply)


PRODUCTS: dict[str, Made] = {
    "reference": of_parts(by_definition, quantize),
    dequantized.NAME: of_parts(dequantized.multiply, dequantized.quantized),
    scaled_mm.PROMOTED: of_parts(scaled_mm.blockwise, quantize),
    deep_gemm.NAME: of_parts(deep_gemm.either, quantize),
    "triton": of_triton,
}


def linear_of(technique: str, product: str = "reference", power_of_two: bool = False) -> Linear:
    """x [..., K] and a weight [N, K] to x w^T [..., N], differentiable once; "bf16" is the plain product.

    Raises ValueError for an unknown technique or product.
    """
    for name, value, known in (("linear", technique, LINEARS), ("product", product, tuple(PRODUCTS))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if technique == "bf16":
        return F.linear
    layer = PRODUCTS[product](technique, power_of_two)
    return lambda x, w_NK: layer(x.reshape(-1, x.shape[-1]), w_NK).unflatten(0, x.shape[:-1])
