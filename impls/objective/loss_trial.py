"""What predicting further symbols does to a loss: one small model trained for each objective, from one seed and data.

A case is one seed: all begin with the same model, see the same bytes in the same order, and return the loss of the next
byte; MTP's modules and parallel heads come on top, so a step costs more and says nothing else. DeepSeek-V3 (arXiv
2412.19437, table 4) finds the next symbol's loss unchanged and evaluations better; Gloeckle et al. (arXiv 2404.19737)
find small models worse. How far apart seeds are says what a difference means here. Steps are whole ones, AdamW
included. At the end each model drafts for itself: how often its drafts stand, greedily and sampled. Wins: the
direction, in seconds. Loses: the size of the effect, and what only large models learn.
Shape suffixes: B windows, T symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import Metric, Operation, Trial, implementation, operation

from ..model.choosing import Greedy, Sampled
from ..model.corpus import Text
from ..model.course import TrainingCourse, draw_text, ends
from ..model.decoder import Decoder
from ..model.generation import Speculative
from ..model.loop import points
from ..model.shape import ModelShape
from ..model.training import Recipe, Training
from .reference import OBJECTIVES

PROMPTS, PROMPT, NEW = 8, 32, 64
METRICS = (
    Metric("validation_bits", "bits/byte", "lower", "Bits a byte of the next byte on validation windows, at the end."),
    Metric("validation_bits_1", "bits/byte", "lower", "The same for the byte after the next one."),
    Metric("train_loss", "bits/byte", "lower", "Loss of the next byte in training, mean since the validation before."),
    Metric("acceptance", "share", "higher", "Greedy steps whose first draft stood, after the last training step."),
    Metric("acceptance_sampled", "share", "higher", "The same for symbols sampled at temperature 1."),
    Metric("model_parameters", "count", "neither", "Entries of the matrices that are trained."),
)


@dataclass(frozen=True)
class LossShape:
    """What is trained: a model but for its objective, by a recipe whose seed draws it, validated at up to `stops`
    points on so many `windows`."""

    model: ModelShape
    recipe: Recipe
    windows: int
    stops: int


class LossCourse(TrainingCourse):
    """Whose model drafts for itself at the end."""

    def figures(self) -> Mapping[str, float]:
        """The ends of the curves, then how drafts fare."""
        self.finish()
        found = ends(self.training, METRICS)
        if self.training.model.ahead:
            generator = torch.Generator(device=self._windows_BT.device).manual_seed(0)
            found["acceptance"] = acceptance(self.training.model, self._windows_BT, Greedy())
            found["acceptance_sampled"] = acceptance(self.training.model, self._windows_BT, Sampled(generator))
        return found


def acceptance(model: Decoder, windows_BT: Tensor, chooser: Greedy | Sampled) -> float:
    """Share of steps whose first draft stood, in generation after the beginnings of a few windows."""
    prompts_BT = windows_BT[:PROMPTS, :PROMPT]
    lengths_B = torch.full((len(prompts_BT),), prompts_BT.shape[1], device=prompts_BT.device)
    return Speculative(model, *prompts_BT.shape, NEW, chooser).run(prompts_BT, lengths_B).acceptance[0]


def training(technique: str) -> Callable[[Text, LossShape], LossCourse]:
    """objective.loss of a technique."""

    def setup(text: Text, shape: LossShape) -> LossCourse:
        model = Decoder(replace(shape.model, objective=technique), shape.recipe.seed)
        made = Training(model, text.train_N, shape.recipe, device=str(text.windows_BT.device))
        return LossCourse(made, text.windows_BT, points(shape.recipe.steps, shape.stops))

    setup.__doc__ = f"Trained for {technique}, weights of the losses as in the papers."
    return setup


operation(
    Operation(
        "objective.loss",
        weights=draw_text,
        tokens=lambda shape: shape.recipe.batch * shape.recipe.length,
        baseline=("ntp/reference",),
        metrics=METRICS,
        trial=Trial(
            steps=lambda shape: shape.recipe.steps,
            alike=1e-3,  # a GPU's kernels add up in any order
            data=lambda text: text.told,
        ),
    )
)
for _technique in OBJECTIVES:
    implementation("objective.loss", technique=_technique, kind="reference")(training(_technique))
