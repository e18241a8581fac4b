"""Products of FP8 operands where there is no FP8: both dequantized once, then one product in FP32.

The weight is dequantized at setup and stays: four bytes an element instead of one. Wins over the reference on a CPU by
one large product instead of one for each 128 elements. Loses where memory is short, and on anything with FP8 tensor
cores, where it gives back both halves of what FP8 saves.
Shape suffixes: M rows, N outs, K ins; R rows, L summed; P rows sorted by group, E groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness import Prepared, implementation

from .inputs import DgradInputs, FpropInputs, GroupedInputs, WgradInputs
from .quantize import TECHNIQUES, Quantized, quantize, spread
from .quantize_views import by_blocks, by_tiles
from .reference import FP8, emulated
from .reference_grouped import GROUPED_FP8, expert_of, spans
from .reference_train import fp8_training
from .shape import TILE, LinearShape

NAME = "dequantized"


def on_cpus(shape: Any) -> str | None:
    """Why a shape is not for this, or None."""
    return None if shape.dtype == "float32" else "made for machines without FP8, whose cases are FP32"


def numbers(operand: Quantized) -> Tensor:
    """What an operand stands for, [R, L] in FP32, in one buffer: scales are multiplied in place, tile by tile."""
    numbers_RL = operand.payload.float()
    rows, length = numbers_RL.shape
    if operand.grain == "tile" and length % TILE == 0:
        numbers_RL.view(rows, -1, TILE).mul_(operand.scale.T.unsqueeze(2))
        return numbers_RL
    return numbers_RL.mul_(spread(operand.scale, operand.grain, rows, length))


def multiply(a: Quantized, b: Quantized, out: torch.dtype = torch.float32) -> Tensor:
    """a b^T of two quantized operands."""
    return (numbers(a) @ numbers(b).T).to(out)


def quantized(x_RL: Tensor, grain: str, power_of_two: bool) -> Quantized:
    """Tiles and blocks as views where they are whole."""
    whole = x_RL.shape[1] % TILE == 0 and (grain == "tile" or len(x_RL) % TILE == 0)
    if grain not in ("tile", "block") or not whole:
        return quantize(x_RL, grain, power_of_two)
    return (by_tiles if grain == "tile" else by_blocks)(x_RL, power_of_two)


_same = {"technique": FP8, "kind": "optimized", "name": NAME, "supports": on_cpus}


@implementation("linear.fprop", **_same)
def fprop(w: Quantized, shape: LinearShape) -> Prepared:
    """x w^T with the weight dequantized at setup."""
    w_NK = numbers(w)
    return emulated(lambda inputs: _forward(inputs, w_NK))


def _forward(inputs: FpropInputs, w_NK: Tensor) -> Tensor:
    return numbers(inputs.x) @ w_NK.T


@implementation("linear.dgrad", **_same)
def dgrad(w: Quantized, shape: LinearShape) -> Prepared:
    """dy w with the weight dequantized at setup."""
    w_KN = numbers(w)

    def call(inputs: DgradInputs) -> Tensor:
        return numbers(inputs.dy) @ w_KN.T

    return emulated(call)


@implementation("linear.wgrad", **_same)
def wgrad(w: None, shape: LinearShape) -> Prepared:
    """dy^T x, both dequantized in the call."""

    def call(inputs: WgradInputs) -> Tensor:
        return multiply(inputs.dy, inputs.x)

    return emulated(call)


for _technique in FP8:

    @implementation("linear.layer_train", technique=_technique, kind="optimized", name=NAME, supports=on_cpus)
    def train(w_NK: Tensor, shape: LinearShape, technique: str = _technique) -> Prepared:
        """Quantized by views, three whole products."""
        return emulated(fp8_training(w_NK, shape, technique, multiply, quantized))

    @implementation("linear.numerics", technique=_technique, kind="optimized", name=NAME, supports=on_cpus)
    def online(w_NK: Tensor, shape: LinearShape, technique: str = _technique) -> Prepared:
        """Activations quantized in the call, one whole product."""
        grain, weight_grain = TECHNIQUES[technique]
        exact_NK = numbers(quantize(w_NK, weight_grain, shape.power_of_two))
        return emulated(lambda inputs: numbers(quantized(inputs.x, grain, shape.power_of_two)) @ exact_NK.T)


def _grouped(w: Quantized, shape: Any) -> Prepared:
    """One product a group, written where it belongs."""
    experts = [numbers(expert_of(w, group)).T for group in range(len(w.payload))]

    def call(inputs: GroupedInputs) -> Tensor:
        x = numbers(inputs.x)
        result = x.new_empty(len(x), experts[0].shape[1])
        for group, start, end in spans(inputs.ends_E):
            torch.mm(x[start:end], experts[group], out=result[start:end])
        return result

    return emulated(call)


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(_operation, technique=GROUPED_FP8, kind="optimized", name=NAME, supports=on_cpus)(_grouped)


@implementation("linear.grouped_wgrad", technique="fp8", kind="optimized", name=NAME, supports=on_cpus)
def grouped_wgrad(w: None, shape: Any) -> Prepared:
    """Both operands dequantized whole, one product a group."""

    def call(inputs: Any) -> Tensor:
        dy, x = numbers(inputs.dy), numbers(inputs.x)
        result = dy.new_empty(shape.groups, len(dy), len(x))
        for group, start, end in spans(inputs.ends_E):
            torch.mm(dy[:, start:end], x[:, start:end].T, out=result[group])
        return result

    return emulated(call)
