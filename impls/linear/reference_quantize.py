"""Quantizing, alone and after what comes before it in the layer (arXiv 2412.19437 §3.2.1, §3.3.2, §3.5.2).

    tiles        1 x 128, payload [M, C]                for fprop and dgrad
    transposed   128 x 1, payload [C, M]                for wgrad
    blocks       128 x 128, payload [M, C]              weights
    silu         tiles of silu(gate) * up               what the down projection gets
    rmsnorm      tiles of x / rms(x) * weight           what the projections after a norm get

Technique "bf16" does what comes before and does not quantize: what fusing must be compared with. Fusing wins by a
matrix that is not written and read in 16 bits. Quantizing alone is pure cost; it loses wherever the product that
follows is small.
Shape suffixes: M rows, C columns, U columns of the input.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness import implementation

from .before import before, grain_of
from .inputs import QuantizeInputs
from .quantize import Quantized, quantize
from .shape import QuantizeShape


def only_fused(shape: QuantizeShape) -> str | None:
    """Why BF16 has nothing to do, or None."""
    return None if shape.fused else f"form {shape.form} only quantizes, and BF16 does not"


def only_tiles(shape: QuantizeShape) -> str | None:
    """Why a coarser grain takes no part, or None."""
    return None if shape.form == "tiles" else "per-row and per-tensor scales are compared on form tiles"


@implementation("linear.quantize", technique="bf16", kind="reference", supports=only_fused)
def unquantized(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Tensor]:
    """What comes before quantizing, alone."""
    return lambda inputs: before(inputs.x_MU, weight_C, shape.form)


@implementation("linear.quantize", technique="fp8", kind="reference")
def tiles(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Quantized]:
    """What comes before as PyTorch computes it, then the definition."""
    return _quantizer(weight_C, shape, "fp8")


@implementation("linear.quantize", technique="fp8-row", kind="reference", supports=only_tiles)
def rows(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Quantized]:
    """One scale a row."""
    return _quantizer(weight_C, shape, "fp8-row")


@implementation("linear.quantize", technique="fp8-tensor", kind="reference", supports=only_tiles)
def whole(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Quantized]:
    """One scale for all."""
    return _quantizer(weight_C, shape, "fp8-tensor")


def _quantizer(weight_C: Tensor | None, shape: QuantizeShape, technique: str) -> Callable[[QuantizeInputs], Quantized]:
    grain = grain_of(technique, shape.form)
    return lambda inputs: quantize(before(inputs.x_MU, weight_C, shape.form), grain, shape.power_of_two)
