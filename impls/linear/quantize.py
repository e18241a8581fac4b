"""FP8 with scales, as DeepSeek-V3 defines it (arXiv 2412.19437 §3.3.2): payload, scale, and exactly how they are found.

    s = max(amax, 1e-4) / 448         of a tile, or the next power of two from there up
    q = E4M3(x / s)                   nearest, ties to even

both in FP32 with IEEE division, so that a result is right or wrong to the bit. `amax` is taken online over a grain:

    tensor   everything             scale [1, 1]
    row      1 x L                  scale [R, 1]
    tile     1 x 128                scale [ceil(L / 128), R]: rows run fastest, as TMA and cuBLAS want it
    block    128 x 128              scale [ceil(R / 128), ceil(L / 128)]

L is the axis that the product sums over and is contiguous in every payload. The last tile or block may be short.
Zeros have payload zero and the scale of the floor. A grain that holds a NaN or an infinity has a scale that is not
finite and is NaN throughout when dequantized: nothing bad is hidden. Values up to 2^-10 of s vanish; none saturates,
for the scale is found from the values themselves.
Shape suffixes: R rows, L summed, B tiles along L, C blocks along R.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .shape import TILE

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
FLOOR = 1e-4
GRAINS = ("tensor", "row", "tile", "block")
TECHNIQUES = {"fp8": ("tile", "block"), "fp8-row": ("row", "row"), "fp8-tensor": ("tensor", "tensor")}
"""The grains of activations and of weights."""


@dataclass(frozen=True)
class Quantized:
    """`payload` [R, L] in E4M3, `scale` in FP32, and the grain that says how they belong together."""

    payload: Tensor
    scale: Tensor
    grain: str

    def wide(self, dtype: torch.dtype) -> Quantized:
        """The same numbers with scales in `dtype`, in which products are then computed."""
        return replace(self, scale=self.scale.to(dtype))


def scale_of(largest: Tensor, power_of_two: bool) -> Tensor:
    """The scale (FP32) of grains whose largest magnitudes are `largest`."""
    size = largest.float().clamp_min(FLOOR)
    scale = size / size.new_full((), LARGEST)  # by a Python number a GPU would multiply by the rounded 1 / 448
    if not power_of_two:
        return scale
    # A mantissa other than zero carries into the exponent: exact, where 2^ceil(log2 s) depends on the logarithm.
    up = ((scale.contiguous().view(torch.int32) + 0x7FFFFF) & -0x800000).view(torch.float32)
    return torch.where(scale.isfinite(), up, scale)


def largest_of(x_RL: Tensor, grain: str) -> Tensor:
    """The largest magnitude of each grain, in the form of its scale. Raises ValueError for an unknown grain."""
    rows, length = x_RL.shape
    size = x_RL.abs()
    if grain == "tensor":
        return size.amax().reshape(1, 1)
    if grain == "row":
        return size.amax(1, keepdim=True)
    if grain == "tile":
        return F.pad(size, (0, -length % TILE)).view(rows, -1, TILE).amax(2).T.contiguous()
    if grain == "block":
        padded = F.pad(size, (0, -length % TILE, 0, -rows % TILE))
        return padded.view(-(-rows // TILE), TILE, -1, TILE).amax((1, 3))
    raise ValueError(f"grain is {grain!r}, expected one of {', '.join(GRAINS)}")


def spread(scale: Tensor, grain: str, rows: int, length: int) -> Tensor:
    """The scale of every element, broadcastable to [R, L]."""
    if grain == "tile":
        return scale.repeat_interleave(TILE, 0)[:length].T
    if grain == "block":
        return scale.repeat_interleave(TILE, 0)[:rows].repeat_interleave(TILE, 1)[:, :length]
    return scale


def quantize(x_RL: Tensor, grain: str, power_of_two: bool = False) -> Quantized:
    """`x` in FP8 by that grain. Always in FP32, whatever dtype a higher precision has brought `x` to.

    Raises ValueError for an unknown grain.
    """
    x_RL = x_RL.float()
    scale = scale_of(largest_of(x_RL, grain), power_of_two)
    return Quantized((x_RL / spread(scale, grain, *x_RL.shape)).to(E4M3), scale, grain)


def dequantize(quantized: Quantized) -> Tensor:
    """The numbers [R, L] that stand for, in the dtype of the scales."""
    payload, scale = quantized.payload, quantized.scale
    return payload.to(scale.dtype) * spread(scale, quantized.grain, *payload.shape)
