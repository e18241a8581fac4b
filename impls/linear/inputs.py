"""What the linear operations take and return, and how it is drawn.

Products of the FP8 techniques get operands that are quantized already: the product alone is timed. Whatever a product
sums over is contiguous in both operands, as FP8 tensor cores want it, so weights for dgrad and both operands of wgrad
come transposed. BF16 gets plain matrices.
Shape suffixes: M rows, N outs, K ins, E groups, P rows sorted by group, C columns, U columns of the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .before import norm_weight
from .margin import clear_of_ties
from .quantize import TECHNIQUES, Quantized, quantize
from .shape import GroupedShape, LinearShape, QuantizeShape
from .values import draw

Operand = Tensor | Quantized


@dataclass(frozen=True)
class FpropInputs:
    """Activations [M, K]: a tensor, or quantized along K."""

    x: Operand


@dataclass(frozen=True)
class DgradInputs:
    """Gradients of the output [M, N]: a tensor, or quantized along N."""

    dy: Operand


@dataclass(frozen=True)
class WgradInputs:
    """Gradients of the output and activations: [M, N] and [M, K], or quantized along M as [N, M] and [K, M]."""

    dy: Operand
    x: Operand


@dataclass(frozen=True)
class QuantizeInputs:
    """What is quantized, or gate and up side by side, [M, U] in the workload's dtype."""

    x_MU: Tensor


@dataclass(frozen=True)
class TrainInputs:
    """Activations, and the gradient that reaches the output."""

    x_MK: Tensor
    dy_MN: Tensor


@dataclass(frozen=True)
class TrainResult:
    """Output and gradient of the activations in the workload's dtype, gradient of the master weight in FP32."""

    y_MN: Tensor
    dx_MK: Tensor
    dw_NK: Tensor


@dataclass(frozen=True)
class GroupedInputs:
    """Rows sorted by group: [P, K] forward, [P, N] backward; the row (int32) after the last of each group."""

    x: Operand
    ends_E: Tensor


@dataclass(frozen=True)
class GroupedWgradInputs:
    """Gradients of the output and activations, [P, N] and [P, K], or quantized along P as [N, P] and [K, P]; the row
    (int32) after the last of each group. No tile belongs to two groups."""

    dy: Operand
    x: Operand
    ends_E: Tensor


def weights_values(shape: LinearShape) -> str:
    """How weights are distributed: positive sums need both factors positive."""
    return "positive" if shape.values == "positive" else "gaussian"


def _operand(matrix: Tensor, technique: str, side: int, shape: LinearShape | GroupedShape, flip: bool) -> Operand:
    """A matrix in the workload's dtype as a technique's products take it; `flip`: summed over its rows."""
    matrix = matrix.to(shape.torch_dtype)
    if technique == "bf16":
        return matrix
    grain = TECHNIQUES[technique][side]
    return quantize(matrix.T.contiguous() if flip else matrix, grain, shape.power_of_two)


def _weight(shape: LinearShape, generator: torch.Generator) -> Tensor:
    return draw(weights_values(shape), shape.outs, shape.ins, generator) * shape.ins**-0.5


def draw_weight(shape: LinearShape, technique: str, generator: torch.Generator) -> Operand:
    """Weights of linear.fprop: [N, K]."""
    return _operand(_weight(shape, generator), technique, 1, shape, flip=False)


def draw_dgrad_weight(shape: LinearShape, technique: str, generator: torch.Generator) -> Operand:
    """Weights of linear.dgrad: [N, K], or quantized along N as [K, N]."""
    return _operand(_weight(shape, generator), technique, 1, shape, flip=True)


def draw_nothing(shape: object, technique: str, generator: torch.Generator) -> None:
    """Operations without weights."""


def draw_fprop(shape: LinearShape, technique: str, generator: torch.Generator) -> FpropInputs:
    """Inputs of linear.fprop."""
    return FpropInputs(_operand(draw(shape.values, shape.rows, shape.ins, generator), technique, 0, shape, flip=False))


def draw_dgrad(shape: LinearShape, technique: str, generator: torch.Generator) -> DgradInputs:
    """Inputs of linear.dgrad."""
    return DgradInputs(_operand(draw(shape.values, shape.rows, shape.outs, generator), technique, 0, shape, flip=False))


def draw_wgrad(shape: LinearShape, technique: str, generator: torch.Generator) -> WgradInputs:
    """Inputs of linear.wgrad."""
    dy, x = (draw(shape.values, shape.rows, size, generator) for size in (shape.outs, shape.ins))
    return WgradInputs(*(_operand(matrix, technique, 0, shape, flip=True) for matrix in (dy, x)))


def draw_master(shape: LinearShape, technique: str, generator: torch.Generator) -> Tensor:
    """Weights of linear.layer_train and linear.numerics: the master copy [N, K] in FP32."""
    return _weight(shape, generator)


def draw_train(shape: LinearShape, technique: str, generator: torch.Generator) -> TrainInputs:
    """Inputs of linear.layer_train."""
    x, dy = (draw(shape.values, shape.rows, size, generator) for size in (shape.ins, shape.outs))
    return TrainInputs(x.to(shape.torch_dtype), dy.to(shape.torch_dtype))


def draw_rows(shape: LinearShape, technique: str, generator: torch.Generator) -> FpropInputs:
    """Inputs of linear.numerics: activations as they are before quantizing."""
    return FpropInputs(draw(shape.values, shape.rows, shape.ins, generator).to(shape.torch_dtype))


def draw_norm(shape: QuantizeShape, technique: str, generator: torch.Generator) -> Tensor | None:
    """Weights of linear.quantize: the RMSNorm's [C] for form "rmsnorm"."""
    if shape.form != "rmsnorm":
        return None
    return norm_weight(shape).to(generator.device)


def draw_quantize(shape: QuantizeShape, technique: str, generator: torch.Generator) -> QuantizeInputs:
    """Inputs of linear.quantize, clear of ties."""
    x_MU = draw(shape.values, shape.rows, shape.width, generator).to(shape.torch_dtype)
    return QuantizeInputs(x_MU if technique == "bf16" else clear_of_ties(x_MU, technique, shape))


def _ends(shape: GroupedShape, device: torch.device) -> Tensor:
    return torch.tensor(shape.sizes, device=device).cumsum(0).to(torch.int32)


def _experts(shape: GroupedShape, technique: str, generator: torch.Generator, flip: bool) -> Operand:
    """[E, N, K], or quantized one by one, with a leading E in payload and scale; `flip`: along N as [E, K, N]."""
    drawn = [
        _operand(draw("gaussian", shape.outs, shape.ins, generator) * shape.ins**-0.5, technique, 1, shape, flip)
        for _ in range(shape.groups)
    ]
    if technique == "bf16":
        return torch.stack(drawn)  # type: ignore[arg-type]
    first = drawn[0]
    assert isinstance(first, Quantized)
    stacked = (torch.stack([getattr(one, name) for one in drawn]) for name in ("payload", "scale"))
    return replace(first, **dict(zip(("payload", "scale"), stacked, strict=True)))


def draw_experts(shape: GroupedShape, technique: str, generator: torch.Generator) -> Operand:
    """Weights of linear.grouped: [E, N, K]."""
    return _experts(shape, technique, generator, flip=False)


def draw_dgrad_experts(shape: GroupedShape, technique: str, generator: torch.Generator) -> Operand:
    """Weights of linear.grouped_dgrad: [E, N, K], or quantized along N as [E, K, N]."""
    return _experts(shape, technique, generator, flip=True)


def draw_grouped(shape: GroupedShape, technique: str, generator: torch.Generator) -> GroupedInputs:
    """Inputs of linear.grouped."""
    x = _operand(draw("gaussian", shape.rows, shape.ins, generator), technique, 0, shape, flip=False)
    return GroupedInputs(x, _ends(shape, generator.device))


def draw_grouped_dgrad(shape: GroupedShape, technique: str, generator: torch.Generator) -> GroupedInputs:
    """Inputs of linear.grouped_dgrad."""
    dy = _operand(draw("gaussian", shape.rows, shape.outs, generator), technique, 0, shape, flip=False)
    return GroupedInputs(dy, _ends(shape, generator.device))


def draw_grouped_wgrad(shape: GroupedShape, technique: str, generator: torch.Generator) -> GroupedWgradInputs:
    """Inputs of linear.grouped_wgrad."""
    drawn = (draw("gaussian", shape.rows, size, generator) for size in (shape.outs, shape.ins))
    dy, x = (_operand(matrix, technique, 0, shape, flip=True) for matrix in drawn)
    return GroupedWgradInputs(dy, x, _ends(shape, generator.device))
