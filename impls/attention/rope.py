"""Rotary position embedding on interleaved pairs, with YaRN, and the softmax scale that goes with it.

Pairs (2j, 2j+1) turn by position x θ_j, θ_j = base^(-2j/R) (RoPE, arXiv 2104.09864); DeepSeek-V2 and V3 rotate a
64-wide part of queries and keys only, the baselines rotate the whole head. Beyond the original context YaRN
(arXiv 2309.00071) interpolates the slow pairs and multiplies the softmax scale by m², m = 0.1 mscale ln(factor) + 1.

Shape suffixes: B batch, T tokens of the call, H heads, R rotated width, P = R/2 pairs, S positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .shape import AttentionShape, DecodeShape, SequenceShape, Yarn


def precise(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which softmax, RMSNorm and RoPE are computed: float32, or float64 where the data is float64."""
    return torch.promote_types(dtype, torch.float32)


def context(shape: DecodeShape | SequenceShape) -> int:
    """Tokens of the longest sequence, new ones included."""
    return shape.length + (shape.new_tokens if isinstance(shape, DecodeShape) else 0)


def active_yarn(shape: DecodeShape | SequenceShape) -> Yarn | None:
    """The model's YaRN where the context outgrows the original one, else None."""
    yarn = shape.model.yarn
    return yarn if yarn is not None and context(shape) > yarn.original_length else None


def softmax_scale(shape: DecodeShape | SequenceShape, head_size: int) -> float:
    """1/sqrt(head_size), times m² under YaRN (DeepSeek-V3 report §4.3: m = 0.1 ln 40 + 1 = 1.369)."""
    yarn = active_yarn(shape)
    m = 1.0 if yarn is None else 0.1 * yarn.mscale * math.log(yarn.factor) + 1.0
    return m * m / math.sqrt(head_size)


def frequencies(model: AttentionShape, width: int, yarn: Yarn | None) -> Tensor:
    """Radians a token of each pair, [width / 2] in float64; under YaRN the slow pairs are `factor` times slower."""
    pairs_P = torch.arange(width // 2, dtype=torch.float64)
    theta_P = model.rope_base ** (-2.0 * pairs_P / width)
    if yarn is None:
        return theta_P

    def pair_turning(turns: float) -> float:
        """The pair that turns this often within the original context."""
        wavelength = yarn.original_length / (turns * 2 * math.pi)
        return width * math.log(wavelength) / (2 * math.log(model.rope_base))

    low = max(math.floor(pair_turning(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_turning(yarn.beta_slow)), width - 1)
    interpolated_P = ((pairs_P - low) / max(high - low, 1e-3)).clamp(0, 1)
    return theta_P * (1 - interpolated_P) + theta_P / yarn.factor * interpolated_P


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines of every position of a shape, [S, P], float32 or float64."""

    cos_SP: Tensor
    sin_SP: Tensor

    @classmethod
    def of(cls, shape: DecodeShape | SequenceShape, width: int, like: Tensor) -> Rotary:
        """The table for heads rotated over `width`, on the device of `like`, as precise as its dtype asks."""
        theta_P = frequencies(shape.model, width, active_yarn(shape))
        angles_SP = torch.outer(torch.arange(context(shape), dtype=torch.float64), theta_P)
        tables = (table.to(like.device, precise(like.dtype)) for table in (angles_SP.cos(), angles_SP.sin()))
        return cls(*tables)

    def rotate(self, x_BTHR: Tensor, positions_BT: Tensor) -> Tensor:
        """`x` rotated by its tokens' positions ([B, T] or [T]), in the dtype of `x`."""
        cos_BT1P, sin_BT1P = self.cos_SP[positions_BT].unsqueeze(-2), self.sin_SP[positions_BT].unsqueeze(-2)
        even_BTHP, odd_BTHP = x_BTHR.to(self.cos_SP.dtype).unflatten(-1, (-1, 2)).unbind(-1)
        turned = (even_BTHP * cos_BT1P - odd_BTHP * sin_BT1P, even_BTHP * sin_BT1P + odd_BTHP * cos_BT1P)
        return torch.stack(turned, -1).flatten(-2).to(x_BTHR.dtype)

    def rotate_complex(self, x_BTHR: Tensor, positions_BT: Tensor) -> Tensor:
        """The same as one complex product: three kernels in eager PyTorch, but torch.compile does not fuse them."""
        turn_BT1P = torch.complex(self.cos_SP, self.sin_SP)[positions_BT].unsqueeze(-2)
        pairs_BTHP = torch.view_as_complex(x_BTHR.to(self.cos_SP.dtype).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs_BTHP * turn_BT1P).flatten(-2).to(x_BTHR.dtype)
