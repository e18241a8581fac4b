"""The products of linear layers that share a batch, one group of rows each, as the experts of a mixture do: in a loop.

    grouped         y_PN  = x_P:g w_g^T        for the rows of group g
    grouped_dgrad   dx_PK = dy_P:g w_g
    grouped_wgrad   dw_g  = dy_P:g^T x_P:g     [E, N, K] in FP32, zero for a group without rows

Groups begin at multiples of 128 rows, so that no tile along the rows belongs to two of them. A grouped kernel wins over
this loop by one launch, no word to the host, and full use of the machine when groups are small.
Shape suffixes: P rows sorted by group, E groups, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness import Prepared, implementation

from .inputs import GroupedInputs, GroupedWgradInputs
from .quantize import Quantized
from .reference import emulated, narrowed, product, widened
from .shape import TILE, GroupedShape

GROUPED_FP8 = ("fp8", "fp8-row")


def spans(ends_E: Tensor) -> Iterator[tuple[int, int, int]]:
    """Group, first row, row after the last."""
    start = 0
    for group, end in enumerate(ends_E.tolist()):
        yield group, start, end
        start = end


def rows_of(operand: Quantized, start: int, end: int) -> Quantized:
    """Some rows of an operand that is quantized along its rows."""
    scale = operand.scale[:, start:end] if operand.grain == "tile" else operand.scale[start:end]
    return replace(operand, payload=operand.payload[start:end], scale=scale)


def columns_of(operand: Quantized, start: int, end: int) -> Quantized:
    """Some of the summed axis, whole tiles, of an operand quantized by tiles."""
    return replace(operand, payload=operand.payload[:, start:end], scale=operand.scale[start // TILE : -(-end // TILE)])


def expert_of(w: Quantized, group: int) -> Quantized:
    """One group's weight."""
    return replace(w, payload=w.payload[group], scale=w.scale[group])


def by_group(x: Tensor, ends_E: Tensor, multiply: Callable[[Tensor, int], Tensor]) -> Tensor:
    """`multiply(rows, group)` of every group, below each other."""
    return torch.cat([multiply(x[start:end], group) for group, start, end in spans(ends_E)])


@implementation("linear.grouped", technique="bf16", kind="reference")
def grouped(w_ENK: Tensor, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """A product a group."""
    return lambda inputs: by_group(inputs.x, inputs.ends_E, lambda x, group: x @ w_ENK[group].T)


@implementation("linear.grouped_dgrad", technique="bf16", kind="reference")
def grouped_dgrad(w_ENK: Tensor, shape: GroupedShape) -> Callable[[GroupedInputs], Tensor]:
    """A product a group."""
    return lambda inputs: by_group(inputs.x, inputs.ends_E, lambda x, group: x @ w_ENK[group])


@implementation("linear.grouped_wgrad", technique="bf16", kind="reference")
def grouped_wgrad(w: None, shape: GroupedShape) -> Callable[[GroupedWgradInputs], Tensor]:
    """A product a group, of widened operands."""

    def call(inputs: GroupedWgradInputs) -> Tensor:
        dy, x = widened(inputs.dy), widened(inputs.x)
        return torch.stack([dy[start:end].T @ x[start:end] for _, start, end in spans(inputs.ends_E)])

    return call


def _grouped_fp8(w: Quantized, shape: GroupedShape) -> Prepared:
    """The tiles and blocks of one group after the other."""

    def call(inputs: GroupedInputs) -> Tensor:
        parts = (
            product(rows_of(inputs.x, start, end), expert_of(w, group)) for group, start, end in spans(inputs.ends_E)
        )
        return narrowed(torch.cat(list(parts)), shape)

    return emulated(call)


for _operation in ("linear.grouped", "linear.grouped_dgrad"):
    implementation(_operation, technique=GROUPED_FP8, kind="reference")(_grouped_fp8)


@implementation("linear.grouped_wgrad", technique="fp8", kind="reference")
def grouped_wgrad_fp8(w: None, shape: GroupedShape) -> Prepared:
    """The tiles along the rows of one group after the other."""

    def call(inputs: Any) -> Tensor:
        parts = (
            product(columns_of(inputs.dy, start, end), columns_of(inputs.x, start, end))
            for _, start, end in spans(inputs.ends_E)
        )
        return torch.stack(list(parts))

    return emulated(call)
