"""Forward and backward of a layer or of a kernel as one call, by autograd.

Everything the forward keeps for the backward counts as the call's peak. Works under no_grad, not under inference_mode.
Shape suffixes: B batch, T tokens, D hidden, H heads, G key-value heads, E query and key size, V value size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .inputs import TrainInputs, TrainKernelInputs, TrainKernelResult, TrainResult


def trained_layer(
    forward: Callable[[Any, Tensor], Tensor], weights: Any, restore: Callable[[Any], Any] = lambda gradients: gradients
) -> Callable[[TrainInputs], TrainResult]:
    """The call that runs `forward(weights, x_BTD)` and its backward.

    `restore` turns gradients that have the form of `weights` into the contract's, where the two differ.
    """
    tensors = {f.name: getattr(weights, f.name) for f in dataclasses.fields(weights)}
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items() if tensor is not None}
    tracked = dataclasses.replace(weights, **leaves)

    def call(inputs: TrainInputs) -> TrainResult:
        with torch.enable_grad():
            x_BTD = inputs.x_BTD.detach().requires_grad_()
            y_BTD = forward(tracked, x_BTD)
            dx_BTD, *dw = torch.autograd.grad(y_BTD, (x_BTD, *leaves.values()), inputs.dy_BTD)
        gradients = dataclasses.replace(weights, **dict(zip(leaves, dw, strict=True)))
        return TrainResult(y_BTD.detach(), dx_BTD, restore(gradients))

    return call


def trained_kernel(
    forward: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Callable[[TrainKernelInputs], TrainKernelResult]:
    """The call that runs `forward(q_BTHE, k_BTGE, v_BTGV)` and its backward."""

    def call(inputs: TrainKernelInputs) -> TrainKernelResult:
        with torch.enable_grad():
            given = [t.detach().requires_grad_() for t in (inputs.q_BTHE, inputs.k_BTGE, inputs.v_BTGV)]
            o_BTHV = forward(*given)
            return TrainKernelResult(o_BTHV.detach(), *torch.autograd.grad(o_BTHV, given, inputs.do_BTHV))

    return call
