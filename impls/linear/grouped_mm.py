"""Grouped products by PyTorch: `grouped_mm` in 16 bits and `_scaled_grouped_mm` in FP8 with per-row scales.

One launch for all groups, no word to the host. The FP8 form is Hopper's alone and knows no tiles; both give 16 bits, so
the gradients of weights are rounded to that and widened again.
Shape suffixes: P rows sorted by group, E groups, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import GroupedInputs, GroupedWgradInputs
from .quantize import Quantized
from .shape import GroupedShape

NAME = "grouped-mm"


def unaligned(shape: GroupedShape) -> str | None:
    """Why `grouped_mm` cannot take a shape, or None: rows must be of whole 16 bytes."""
    for size in (shape.outs, shape.ins):
        if size * shape.torch_dtype.itemsize % 16:
            return f"grouped_mm takes rows of whole 16 bytes, not of {size} {shape.dtype}"
    return None


def narrow(shape: GroupedShape) -> str | None:
    """The same for FP8, which gives BF16 whatever is asked for."""
    return "_scaled_grouped_mm gives BF16, not FP32" if shape.dtype == "float32" else None


_same = {"technique": "bf16", "kind": "library", "name": NAME, "supports": unaligned}


@implementation("linear.grouped", **_same)
def grouped(w_ENK: Tensor, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one call."""
    return lambda inputs: F.grouped_mm(inputs.x, w_ENK.mT, offs=inputs.ends_E)


@implementation("linear.grouped_dgrad", **_same)
def grouped_dgrad(w_ENK: Tensor, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one call."""
    return lambda inputs: F.grouped_mm(inputs.x, w_ENK, offs=inputs.ends_E)


@implementation("linear.grouped_wgrad", **_same)
def grouped_wgrad(w: None, shape: GroupedShape) -> Callable[[GroupedWgradInputs], Tensor]:
    """All groups in one call, in the operands' dtype, then widened."""
    return lambda inputs: F.grouped_mm(inputs.dy.T, inputs.x, offs=inputs.ends_E).float()


def _scaled(w: Quantized, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """All groups in one call, one scale a row of activations and of each weight."""
    scale_EN = w.scale.squeeze(2).contiguous()

    def call(inputs: GroupedInputs) -> Tensor:
        scale_P = inputs.x.scale.squeeze(1)
        made = torch._scaled_grouped_mm(
            inputs.x.payload, w.payload.mT, scale_P, scale_EN, offs=inputs.ends_E, out_dtype=torch.bfloat16
        )
        return made.to(shape.torch_dtype)

    return call


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(
        _operation,
        technique="fp8-row",
        kind="library",
        name="scaled-grouped-mm",
        needs=("cuda", "sm_90"),
        supports=narrow,
    )(_scaled)
