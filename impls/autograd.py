"""Forward and backward of a layer as one call, by autograd.

Everything the forward keeps for the backward counts as the call's peak. Works under no_grad, not under inference_mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def differentiated(
    forward: Callable[[Any, Tensor], Tensor], weights: Any, restore: Callable[[Any], Any] = lambda gradients: gradients
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Any]]:
    """The call (x, gradient of y) -> (y, gradient of x, gradients of the weights) of `forward(weights, x)`.

    Gradients have the form of `weights`, a dataclass of tensors and dataclasses, with None for what does not decide the
    result; `restore` turns them into the contract's form, where the two differ.
    """
    tracked = _mapped(lambda tensor: tensor.detach().requires_grad_(), weights)
    leaves = list(_tensors(tracked))

    def call(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Any]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = forward(tracked, x)
            dx, *dw = torch.autograd.grad(y, (x, *leaves), dy, allow_unused=True)
        gradients = iter(dw)
        return y.detach(), dx, restore(_mapped(lambda tensor: next(gradients), tracked))

    return call


def _mapped(fn: Callable[[Tensor], Any], tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return fn(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return dataclasses.replace(
            tree, **{f.name: _mapped(fn, getattr(tree, f.name)) for f in dataclasses.fields(tree)}
        )
    return tree


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif dataclasses.is_dataclass(tree):
        for field in dataclasses.fields(tree):
            yield from _tensors(getattr(tree, field.name))
