"""Forward and backward of a layer or of a kernel as one call, by autograd.

Everything the forward keeps for the backward counts as the call's peak. Works under no_grad, not under inference_mode.
Shape suffixes: B batch, T tokens, D hidden, H heads, G key-value heads, E query and key size, V value size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..autograd import differentiated
from .inputs import TrainInputs, TrainKernelInputs, TrainKernelResult, TrainResult


def trained_layer(
    forward: Callable[[Any, Tensor], Tensor], weights: Any, restore: Callable[[Any], Any] = lambda gradients: gradients
) -> Callable[[TrainInputs], TrainResult]:
    """The call that runs `forward(weights, x_BTD)` and its backward.

    `restore` turns gradients into the contract's form, as in `differentiated`.
    """
    train = differentiated(forward, weights, restore)
    return lambda inputs: TrainResult(*train(inputs.x_BTD, inputs.dy_BTD))


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
