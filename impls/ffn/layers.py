"""From a layer's forward, (weights, x [M, D]) -> y [M, D], to the setups of the three layer operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..autograd import differentiated
from .inputs import TokenInputs, TrainInputs, TrainResult
from .shape import TokenShape

Forward = Callable[[Any, Tensor], Tensor]


def tokens_with(forward: Forward) -> Callable[[Any, TokenShape], Callable[[TokenInputs], Tensor]]:
    """ffn.prefill and ffn.decode by one forward."""

    def setup(w: Any, shape: TokenShape) -> Callable[[TokenInputs], Tensor]:
        return lambda inputs: forward(w, inputs.x_MD)

    return setup


def train_with(forward: Forward) -> Callable[[Any, TokenShape], Callable[[TrainInputs], TrainResult]]:
    """ffn.train by one forward and autograd; the choice of experts has no gradient."""

    def setup(w: Any, shape: TokenShape) -> Callable[[TrainInputs], TrainResult]:
        step = differentiated(forward, w)
        return lambda inputs: TrainResult(*step(inputs.x_MD, inputs.dy_MD))

    return setup
