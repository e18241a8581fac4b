"""A model in training as the course of a trial: a step at a time, validated at stops, its curves at the end.

What balancing, FP8 and objectives do to a training differs in the model and in what is asked at the end; how it is
taken through its steps does not. Wins: any of them is a model and its figures. Loses: one model, one text, one recipe.
Shape suffixes: B windows, T bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from harness import Course, Metric

from .corpus import Text, read_text
from .shape import parameters
from .training import Recipe, Training


class Read(Protocol):
    """What the shape of such a trial says of its text."""

    @property
    def recipe(self) -> Recipe:
        """Its `length` is that of a window, in bytes."""

    @property
    def windows(self) -> int:
        """How many windows a validation takes."""


class TrainingCourse(Course):
    """A model in training; `note` validates on windows [B, T] where one of `stops`, counted in steps, is reached."""

    def __init__(self, training: Training, windows_BT: Tensor, stops: Sequence[int]) -> None:
        self.training, self._windows_BT, self._stops = training, windows_BT, stops

    def advance(self) -> float:
        """One step; the loss of the next byte in bits. Raises ValueError for scores and losses that are not finite."""
        return self.training.advance().bits

    def note(self) -> None:
        """Validate at a stop."""
        if self.training.done in self._stops:
            self.validate()

    def validate(self) -> None:
        """Add a point to the curves."""
        self.training.note(self.training.evaluate(self._windows_BT))

    def finish(self) -> None:
        """Validate once more where the last step was no stop."""
        if self.training.stretch:
            self.validate()

    def series(self) -> Mapping[str, Sequence[float]]:
        """Curves over the stops."""
        return self.training.curves


def ends(training: Training, metrics: Sequence[Metric]) -> dict[str, float]:
    """Where the curves of a validated training stand, as far as they are metrics, and the size of its model."""
    known = {metric.name for metric in metrics}
    found = {name: values[-1] for name, values in training.curves.items() if name in known}
    return {**found, "model_parameters": parameters(training.model.shape)}


def draw_text(shape: Read, technique: str, generator: torch.Generator) -> Text:
    """The standard library's text, the trial's "weights"; the model is drawn from the recipe's seed."""
    return read_text(shape.windows, shape.recipe.length, generator.device)
