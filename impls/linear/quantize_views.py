"""Quantizing whole tiles and blocks without spreading scales: the matrix viewed as tiles, scaled in one buffer.

Wins over the reference by two matrices of scales that are not built, and by dividing in place. Equal to the bit. Takes
whole tiles only. On a GPU it is a handful of launches, each over all of the memory; a kernel of one pass beats it.
Shape suffixes: M rows, C columns; R rows, L summed; B tiles.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from .before import before
from .inputs import QuantizeInputs
from .quantize import E4M3, Quantized, scale_of
from .shape import TILE, QuantizeShape


def whole_tiles(shape: QuantizeShape) -> str | None:
    """Why a shape cannot be viewed as tiles, or None."""
    summed = shape.rows if shape.form == "transposed" else shape.columns
    if summed % TILE or (shape.form == "blocks" and shape.rows % TILE):
        return f"takes whole tiles of {TILE}"
    return None


def by_tiles(x_RL: Tensor, power_of_two: bool) -> Quantized:
    """1 x 128 tiles."""
    x_RBT = x_RL.float().view(len(x_RL), -1, TILE)
    scale_RB = scale_of(x_RBT.abs().amax(2), power_of_two)
    payload = _divided(x_RBT, scale_RB.unsqueeze(2), x_RL)
    return Quantized(payload.view(x_RL.shape), scale_RB.T.contiguous(), "tile")


def by_blocks(x_RL: Tensor, power_of_two: bool) -> Quantized:
    """128 x 128 blocks."""
    x_CTBT = x_RL.float().view(-1, TILE, x_RL.shape[1] // TILE, TILE)
    scale_CB = scale_of(x_CTBT.abs().amax((1, 3)), power_of_two)
    return Quantized(_divided(x_CTBT, scale_CB[:, None, :, None], x_RL).view(x_RL.shape), scale_CB, "block")


def _divided(x: Tensor, scale: Tensor, given: Tensor) -> Tensor:
    """x / scale in E4M3; in place where `x` is a copy of what was given."""
    copied = x.data_ptr() != given.data_ptr()
    return (x.div_(scale) if copied else x / scale).to(E4M3)


@implementation("linear.quantize", technique="fp8", kind="optimized", name="views", supports=whole_tiles)
def views(weight_C: Tensor | None, shape: QuantizeShape) -> Callable[[QuantizeInputs], Quantized]:
    """What comes before by PyTorch, tiles and blocks as views."""
    quantize = by_blocks if shape.form == "blocks" else by_tiles

    def call(inputs: QuantizeInputs) -> Quantized:
        with torch.no_grad():
            return quantize(before(inputs.x_MU, weight_C, shape.form), shape.power_of_two)

    return call
