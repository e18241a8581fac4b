"""Weights of a dense SwiGLU and of a mixture of experts.

Gate and up projections of an expert are stacked, gate rows first, as checkpoints and fused kernels have them. The
router is drawn from the sizes alone, so that hidden states can be drawn that it sends where a workload asks.
Shape suffixes: D hidden, E experts, W width, U = 2 W stacked rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .shape import FfnShape, Router, TokenShape

BIAS = 0.2


@dataclass(frozen=True)
class DenseWeights:
    """y = W_out (silu(W_gate x) * W_up x); w_in holds W_gate, then W_up."""

    w_in_UD: Tensor
    w_out_DW: Tensor


@dataclass(frozen=True)
class RouterWeights:
    """How to choose, a row for each expert, and the bias of the choice in FP32, None without one."""

    rule: Router
    matrix_ED: Tensor
    bias_E: Tensor | None


@dataclass(frozen=True)
class ChoiceWeights:
    """A router without its matrix: how to choose, and the bias of the choice in FP32, None without one."""

    rule: Router
    bias_E: Tensor | None


@dataclass(frozen=True)
class MoeWeights:
    """Router, routed experts, and the shared experts as one dense layer, None without."""

    router: RouterWeights
    w_in_EUD: Tensor
    w_out_EDW: Tensor
    shared: DenseWeights | None


@lru_cache(maxsize=8)
def router_weights(model: FfnShape) -> RouterWeights:
    """The router in the model's dtype, rows of norm about 1; on the CPU."""
    router = model.router
    generator = torch.Generator().manual_seed(1_000_003 * router.experts + model.hidden)
    matrix = torch.randn(router.experts, model.hidden, generator=generator) * model.hidden**-0.5
    bias = (2 * torch.rand(router.experts, generator=generator) - 1) * BIAS if router.biased else None
    return RouterWeights(router, matrix.to(model.torch_dtype), bias)


def draw_router(shape: TokenShape, technique: str, generator: torch.Generator) -> RouterWeights:
    """The router alone, on the generator's device."""
    drawn = router_weights(shape.model.of(technique))
    bias_E = None if drawn.bias_E is None else drawn.bias_E.to(generator.device)
    return replace(drawn, matrix_ED=drawn.matrix_ED.to(generator.device), bias_E=bias_E)


def draw_choice(shape: TokenShape, technique: str, generator: torch.Generator) -> ChoiceWeights:
    """What ffn.select needs of the router."""
    drawn = draw_router(shape, technique, generator)
    return ChoiceWeights(drawn.rule, drawn.bias_E)


def draw_experts(shape: TokenShape, technique: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The routed experts alone, [E, U, D] and [E, D, W]."""
    model = shape.model.of(technique)
    return (
        _matrix(model, generator, model.router.experts, 2 * model.width, model.hidden),
        _matrix(model, generator, model.router.experts, model.hidden, model.width),
    )


def draw_weights(shape: TokenShape, technique: str, generator: torch.Generator) -> DenseWeights | MoeWeights:
    """Random weights of variance 1 / inputs in the model's dtype on the generator's device."""
    if technique.startswith("dense"):
        return _dense(shape.model, shape.model.dense_width(technique), generator)
    model = shape.model.of(technique)
    return MoeWeights(
        draw_router(shape, technique, generator),
        *draw_experts(shape, technique, generator),
        _dense(model, model.shared * model.width, generator) if model.shared else None,
    )


def _dense(model: FfnShape, width: int, generator: torch.Generator) -> DenseWeights:
    return DenseWeights(
        _matrix(model, generator, 2 * width, model.hidden), _matrix(model, generator, model.hidden, width)
    )


def _matrix(model: FfnShape, generator: torch.Generator, *sizes: int) -> Tensor:
    entries = torch.randn(sizes, generator=generator, device=generator.device, dtype=model.torch_dtype)
    return entries.mul_(sizes[-1] ** -0.5)
