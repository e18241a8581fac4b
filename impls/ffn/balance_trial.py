"""Balance over training as a trial: a small model of bytes trained step by step under one way of balancing its experts.

Every arm begins with the same model and sees the same bytes in the same order, so that only the balancing differs and
the first step of all returns the same loss; a step returns the language loss in bits a byte, before its update. All
route as DeepSeek-V3 does (sigmoid, 2 of 4 groups, gates normalised). The bias moves by 0.01 a step, ten times the
papers' 0.001: those runs have tens of thousands of steps, these hundreds, and at 0.001 a bias that must move by 0.3
would arrive when training ends. Alphas: DeepSeekMoE 2B's 0.01 for experts, DeepSeek-V2's 0.05 and 0.02 for devices and
communication, DeepSeek-V3's 0.0001 for sequences. DeepSeek-V2's token dropping goes with its device losses (capacity 1,
a tenth of the sequences exempt). Wins: the direction of each way, in seconds. Loses: the size of the effect; bits a
byte here say nothing about a model of billions.
Shape suffixes: N bytes, B windows, T tokens, L mixtures, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from harness import Metric, Operation, Trial, implementation, operation

from ..model.balancing import Balancing
from ..model.corpus import Text
from ..model.course import TrainingCourse, draw_text, ends
from ..model.decoder import Decoder
from ..model.loop import points
from ..model.shape import ModelShape, parameters
from ..model.training import Recipe, Training
from .operations import VARIATION, VIOLATION

ARMS = {
    "none": (Balancing(), "No balancing."),
    "expert-loss": (Balancing(expert=0.01), "DeepSeek-V2's expert-level loss, alpha 0.01."),
    "device-loss": (
        Balancing(device=0.05, communication=0.02, capacity=1.0),
        "DeepSeek-V2's device-level and communication losses, alpha 0.05 and 0.02, and its token dropping, capacity 1.",
    ),
    "bias": (Balancing(bias_speed=0.01), "DeepSeek-V3's bias without a loss, u 0.01."),
    "bias-sequence": (
        Balancing(bias_speed=0.01, sequence=1e-4),
        "DeepSeek-V3's bias, u 0.01, and its sequence-wise loss, alpha 0.0001.",
    ),
}
METRICS = (
    Metric("validation_bits", "bits/byte", "lower", "Bits a byte on validation windows after the last step."),
    Metric("train_loss", "bits/byte", "lower", "Language loss in training, mean since the validation before."),
    VIOLATION,
    Metric(
        "max_violation_first", "ratio", "lower", "MaxVio of the first batch, before any update, mean over mixtures."
    ),
    Metric("max_violation_global", "ratio", "lower", "MaxVio over all validation windows, mean over mixtures."),
    VARIATION,
    Metric(
        "dropped_share",
        "share",
        "lower",
        "Pairs of token and chosen expert that training did not compute, over all: mean over mixtures and the last "
        "stretch of steps; validation drops nothing.",
    ),
    Metric("device_violation", "ratio", "lower", "MaxVio of groups of experts (devices) in validation."),
    Metric("model_parameters", "count", "neither", "Entries of the model's matrices."),
    Metric("model_active_parameters", "count", "neither", "Entries of the matrices one byte uses."),
)


@dataclass(frozen=True)
class BalanceShape:
    """What is trained: a model by a recipe, validated at up to `stops` points on so many `windows`.

    form  the mixture's implementation, one of `model.layers.MIXTURES`
    arms  those that take part, by name
    """

    shape: ModelShape
    recipe: Recipe
    windows: int
    stops: int
    form: str
    arms: tuple[str, ...]


class Arm(TrainingCourse):
    """One way of balancing."""

    def figures(self) -> Mapping[str, float]:
        """The ends of the curves."""
        self.finish()
        return figures(self.training)

    def series(self) -> Mapping[str, Sequence[float]]:
        """Curves over the stops, and the last validation's loads."""
        return {**self.training.curves, **final_loads(self.training)}


def figures(training: Training) -> dict[str, float]:
    """Where a training stands, by metric; it has been validated."""
    return {
        **ends(training, METRICS),
        "max_violation_first": training.curves["max_violation"][0],
        "model_active_parameters": parameters(training.model.shape, active=True),
    }


def final_loads(training: Training) -> dict[str, list[float]]:
    """Tokens of each expert in the last validation, by block."""
    layers = training.model.shape.mixtures
    return {f"load_layer_{layer}": loads_E.tolist() for layer, loads_E in zip(layers, training.loads_LE, strict=False)}


def begun(arm: str, shape: ModelShape, recipe: Recipe, form: str, data_N: Tensor, device: str) -> Training:
    """An arm at its first step."""
    return Training(Decoder(shape, recipe.seed, form), data_N, recipe, ARMS[arm][0], device)


def _unasked(arm: str) -> Callable[[BalanceShape], str | None]:
    def reason(shape: BalanceShape) -> str | None:
        return (
            None if arm in shape.arms else f"this is a shortened form of {' and '.join(shape.arms)}; see make balance"
        )

    return reason


def _declare(arm: str, doc: str) -> None:
    def setup(text: Text, shape: BalanceShape) -> Arm:
        device = str(text.windows_BT.device)
        training = begun(arm, shape.shape, shape.recipe, shape.form, text.train_N, device)
        return Arm(training, text.windows_BT, points(shape.recipe.steps, shape.stops))

    setup.__doc__ = doc
    implementation("ffn.balance", technique="moe", kind="reference", name=arm, supports=_unasked(arm))(setup)


operation(
    Operation(
        "ffn.balance",
        weights=draw_text,
        tokens=lambda shape: shape.recipe.batch * shape.recipe.length,
        baseline=("moe/none",),
        metrics=METRICS,
        trial=Trial(
            steps=lambda shape: shape.recipe.steps,
            alike=1e-3,  # a GPU's kernels add up in any order
            data=lambda text: text.told,
        ),
    )
)
for _arm, (_, _doc) in ARMS.items():
    _declare(_arm, _doc)
