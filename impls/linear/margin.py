"""Inputs for quantizers that no rounding decides: nothing lies so near a tie that x / s and x * (1 / s) differ.

The definition (`quantize.py`) is exact, but libraries multiply by a reciprocal, which is off by an epsilon or two, and
among BF16 values exact ties are common: 448 p / q has few bits. Such an element would be one step of E4M3 off without
being a mistake. So what is drawn is moved a little where it is near a tie; ties themselves are the tests' business.
Fused forms in 16 bits are left as they are: what comes before quantizing is rounded to 16 bits by some implementations
and not by others, and the reference's own error says how much that may cost.
Shape suffixes: M rows, U columns of the input; R rows, L summed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .before import before, grain_of, norm_weight
from .quantize import E4M3, largest_of, scale_of, spread
from .shape import QuantizeShape

NEAR = 2.0**-16
SHRINK = 1 - 2.0**-6  # several steps of BF16, a fraction of a step of E4M3
TRIES = 32


def near_tie(x_RL: Tensor, grain: str, power_of_two: bool) -> Tensor:
    """Which elements, divided by their scale, are within 2^-16 of the middle between two E4M3 values."""
    scale = scale_of(largest_of(x_RL, grain), power_of_two).double()
    value_RL = x_RL.double() / spread(scale, grain, *x_RL.shape)
    return (value_RL * (1 - NEAR)).to(E4M3).float() != (value_RL * (1 + NEAR)).to(E4M3).float()


def clear_of_ties(x_MU: Tensor, technique: str, shape: QuantizeShape) -> Tensor:
    """`x` with the elements that are near a tie made smaller, until none is. Raises ValueError if some stay."""
    if x_MU.is_meta or (shape.fused and x_MU.dtype.itemsize < 4):
        return x_MU
    weight_C = norm_weight(shape).to(x_MU.device).double() if shape.form == "rmsnorm" else None
    grain = grain_of(technique, shape.form)
    for _ in range(TRIES):
        near = near_tie(before(x_MU.double(), weight_C, shape.form), grain, shape.power_of_two)
        if not near.any():
            return x_MU
        x_MU = torch.where(_place(near, shape.form), x_MU * SHRINK, x_MU)
    raise ValueError(f"{int(near.sum())} elements stayed near a tie of E4M3 after {TRIES} tries")


def _place(near: Tensor, form: str) -> Tensor:
    """Where in the input the elements stand that are near: for SwiGLU the factor that is not under the silu."""
    if form == "transposed":
        return near.T.contiguous()
    return torch.cat([torch.zeros_like(near), near], 1) if form == "silu" else near
