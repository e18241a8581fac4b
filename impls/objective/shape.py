"""Sizes of the objective operations: the model, what it is trained on or generates from, and how it was trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..model.shape import ModelShape
from ..model.training import Recipe


@dataclass(frozen=True)
class StepShape:
    """One step of training on `batch` windows of `length` symbols; `model` but for its objective."""

    model: ModelShape
    batch: int
    length: int

    def of(self, technique: str) -> ModelShape:
        """The model a technique trains."""
        return replace(self.model, objective=technique)


@dataclass(frozen=True)
class GenerateShape:
    """`count` new symbols after prompts of half to all of `prompt` symbols, by a model trained by `recipe`.

    The model predicts further symbols; plain decoding takes the same one without what predicts them.
    """

    model: ModelShape
    recipe: Recipe
    batch: int
    prompt: int
    count: int

    def of(self, technique: str) -> ModelShape:
        """The model a technique needs."""
        return self.model if technique == "mtp" else replace(self.model, objective="ntp")


def in_double(shape: ModelShape) -> ModelShape:
    """The same computed in FP64."""
    attention, ffn = (replace(part, dtype="float64") for part in (shape.attention, shape.ffn))
    return replace(shape, attention=attention, ffn=ffn)
