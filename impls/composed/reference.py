"""Whole models by definition: mixtures an expert after the other, FP8 products 128 at a time, whole logits, no caches.

Each is the decoder with the references of the four studies; what a step, a text and a continuation are is the objective
study's. Wins by saying what must come out. Loses in time and memory everywhere.
Shape suffixes: B sequences, T symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from ..model.whole import whole
from ..objective import reference as objective
from ..objective.inputs import Prompts, Stepped, Windows
from ..objective.weights import Weights, model_of
from .combination import Combination, combinations
from .inputs import Prefilled, Texts
from .shape import GenerateShape, TextShape, refusing

FORM = "reference"


def stepping(one: Combination) -> Callable[[Weights, TextShape], Callable[[Windows], Stepped]]:
    """model.train_step of a combination."""
    return lambda weights, shape: objective.stepping(one.objective, FORM)(weights, shape.windows(one.name))


def prefilling(one: Combination) -> Callable[[Weights, TextShape], Callable[[Texts], Prefilled]]:
    """model.prefill of a combination."""

    def setup(weights: Weights, shape: TextShape) -> Callable[[Texts], Prefilled]:
        model = model_of(weights, shape.of(one.name), FORM)

        @torch.no_grad()
        def call(texts: Texts) -> Prefilled:
            streams, _ = model.streams(texts.symbols_BT)
            pairs = list(zip(streams, model.norms, strict=True))
            logits = tuple(model.head(x_BTD, norm)[:, -1] for x_BTD, norm in pairs)
            return Prefilled(tuple(norm(x_BTD) for x_BTD, norm in pairs), logits)

        return call

    return setup


def generating(one: Combination) -> Callable[[Weights, GenerateShape], Callable[[Prompts], Tensor]]:
    """model.generate of a combination."""

    def setup(weights: Weights, shape: GenerateShape) -> Callable[[Prompts], Tensor]:
        model = whole(model_of(weights, shape.generation(one.name).of(one.objective), FORM))
        form = objective.plainly if one.objective == "ntp" else objective.speculatively
        return form(model, shape.count)

    return setup


_FORMS: tuple[tuple[str, Callable[[Combination], Any]], ...] = (
    ("train_step", stepping),
    ("prefill", prefilling),
    ("generate", generating),
)
for _name, _form in _FORMS:
    for _one in combinations():
        _setup = _form(_one)
        _setup.__doc__ = f"By definition: {_one.told}."
        implementation(f"model.{_name}", technique=_one.name, kind="reference", supports=refusing(_one.name))(_setup)
