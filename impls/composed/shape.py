"""Sizes of the operations on whole models: a model but for its four choices, who takes part, and how much text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..model import margins
from ..model.shape import ModelShape
from ..model.training import Recipe
from ..objective import shape as objective
from .combination import Combination

MOST_CHOICES = {False: 20_000, True: 64}  # of experts by one sequence, clear of roundings; by `in_fp8`


@dataclass(frozen=True)
class Composed:
    """What all have: `model` in everything but its choices, and the combinations that take part, by name.

    Raises ValueError for a name that is none.
    """

    model: ModelShape
    combinations: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in self.combinations:
            Combination.named(name)

    def of(self, technique: str) -> ModelShape:
        """The model of a combination."""
        return Combination.named(technique).of(self.model)

    @property
    def any_in_fp8(self) -> bool:
        """Whether a combination that takes part is in FP8."""
        return any(Combination.named(name).linear == "fp8" for name in self.combinations)

    def refusal(self, technique: str) -> str | None:
        """Why a combination cannot run here, or None."""
        if technique in self.combinations:
            return None
        return f"here {len(self.combinations)} of 16 combinations take part: {', '.join(self.combinations)}"


@dataclass(frozen=True)
class TextShape(Composed):
    """Whole sequences: `batch` of `length` symbols, to train on or to prefill."""

    batch: int
    length: int

    def windows(self, technique: str) -> objective.StepShape:
        """In the words of the objective study."""
        return objective.StepShape(self.of(technique), self.batch, self.length)

    def refusal(self, technique: str) -> str | None:
        """Why a combination cannot run here, or None."""
        return super().refusal(technique) or _turning(self.of(technique), self.length)


@dataclass(frozen=True)
class GenerateShape(Composed):
    """`count` new symbols after each of `batch` prompts of half to all of `prompt` symbols.

    Each combination generates with the model trained by `recipe` for its own choices and for MTP; for "ntp" it is used
    without the modules that predict further symbols.
    """

    recipe: Recipe
    batch: int
    prompt: int
    count: int

    def generation(self, technique: str) -> objective.GenerateShape:
        """In the words of the objective study."""
        model = replace(self.of(technique), objective="mtp")
        return objective.GenerateShape(model, self.recipe, self.batch, self.prompt, self.count)

    def refusal(self, technique: str) -> str | None:
        """Why a combination cannot run here, or None."""
        model = replace(self.of(technique), objective="ntp")
        return super().refusal(technique) or _turning(model, self.prompt + self.count)


@dataclass(frozen=True)
class LadderShape(Composed):
    """Trained by a recipe whose seed draws all models, validated at up to `stops` points on so many `windows`.

    products  who multiplies in FP8 here, some of `model.linear.PRODUCTS`
    """

    recipe: Recipe
    windows: int
    stops: int
    products: tuple[str, ...]


def _turning(model: ModelShape, length: int) -> str | None:
    """Why no sequences can be had whose routers choose clear of roundings, or None."""
    layers = [layer for layer in range(model.layers + model.ahead) if model.feed_of(layer).startswith("moe")]
    choices, most = len(layers) * length, MOST_CHOICES[model.in_fp8]
    if not margins.watches(model) or choices <= most:
        return None
    return (
        f"its routers make {choices} choices a sequence; of more than {most} some hang on a rounding, "
        f"and results that must agree{' in FP8' if model.in_fp8 else ''} do not"
    )


def refusing(technique: str) -> Callable[[Composed], str | None]:
    """`supports` of an implementation of a combination."""
    return lambda shape: shape.refusal(technique)
