"""What comes before quantizing in the layers: SwiGLU's product before a down projection, RMSNorm before the others.

Shape suffixes: M rows, C columns, U columns of the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .quantize import TECHNIQUES
from .shape import QuantizeShape

EPS = 1e-6


def silu_mul(x_MU: Tensor) -> Tensor:
    """silu(gate) * up, [M, C], rounded to the input's dtype after each step."""
    gate_MC, up_MC = x_MU.chunk(2, -1)
    return F.silu(gate_MC) * up_MC


def rmsnorm(x_MC: Tensor, weight_C: Tensor) -> Tensor:
    """RMSNorm [M, C]: normalised in FP32 or wider, rounded, then weighted."""
    wide_MC = x_MC.to(torch.promote_types(x_MC.dtype, torch.float32))
    return (wide_MC * (wide_MC.square().mean(-1, keepdim=True) + EPS).rsqrt()).to(x_MC.dtype) * weight_C


def before(x_MU: Tensor, weight_C: Tensor | None, form: str) -> Tensor:
    """What is quantized, [M, C], or [C, M] for form "transposed"."""
    if form == "silu":
        return silu_mul(x_MU)
    if form == "rmsnorm":
        assert weight_C is not None
        return rmsnorm(x_MU, weight_C)
    return x_MU.T.contiguous() if form == "transposed" else x_MU


def grain_of(technique: str, form: str) -> str:
    """The grain by which a technique quantizes in a form."""
    return "block" if form == "blocks" else TECHNIQUES[technique][0]


def norm_weight(shape: QuantizeShape) -> Tensor:
    """The RMSNorm's weight [C] in the workload's dtype, from the sizes alone: inputs are drawn to suit it."""
    generator = torch.Generator().manual_seed(shape.columns)
    return (0.5 + torch.rand(shape.columns, generator=generator)).to(shape.torch_dtype)
