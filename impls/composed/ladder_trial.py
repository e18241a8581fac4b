"""What each idea does to a training, alone and with all others: models from one seed on the same bytes, step by step.

A case is a few of the sixteen combinations: nothing of DeepSeek's, each idea alone, all four. What an idea does over
all settings of the others takes all sixteen: `make ladder`. A step is a whole one, AdamW included; losses are those of
the next byte, whatever else is predicted, so all begin alike but for the draw of other layers. At the end models with a
module draft for themselves. Wins: the direction, in seconds, where every study's layers meet. Loses: the size of the
effects, which small models do not show, and what one seed cannot tell apart.
Shape suffixes: B windows, T bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness import Metric, Operation, Trial, implementation, operation

from ..linear.loss_trial import KINDS
from ..model.choosing import Greedy
from ..model.corpus import Text
from ..model.course import TrainingCourse, draw_text, ends
from ..model.decoder import Decoder
from ..model.loop import points
from ..model.shape import parameters
from ..model.training import Training
from ..objective.cost import kv_bytes
from ..objective.loss_trial import acceptance
from .combination import Combination, combinations
from .operations import baseline
from .shape import LadderShape

NAME = "model.ladder"
METRICS = (
    Metric("validation_bits", "bits/byte", "lower", "Bits a byte of the next byte on validation windows, at the end."),
    Metric("train_loss", "bits/byte", "lower", "Loss of the next byte in training, mean since the validation before."),
    Metric("acceptance", "share", "higher", "Steps of greedy generation whose first draft stood."),
    Metric("kv_bytes", "bytes", "lower", "What one token leaves in the caches of all blocks, a drafting one too."),
    Metric("model_parameters", "count", "neither", "Entries of the matrices that are trained."),
    Metric("model_active_parameters", "count", "neither", "Entries one token uses without a drafting module."),
)


class Rung(TrainingCourse):
    """One combination in training."""

    def figures(self) -> Mapping[str, float]:
        """The ends of the curves, sizes, and how drafts fare."""
        self.finish()
        model = self.training.model
        found = {**ends(self.training, METRICS), **sizes(self.training)}
        if model.ahead:
            found["acceptance"] = acceptance(model, self._windows_BT, Greedy())
        return found


def sizes(training: Training) -> dict[str, float]:
    """Metrics that follow from the model alone."""
    shape = training.model.shape
    found = {"kv_bytes": kv_bytes(shape), "model_parameters": parameters(shape)}
    return {**found, "model_active_parameters": parameters(shape, active=True)}


def climbing(one: Combination, product: str) -> Callable[[Text, LadderShape], Rung]:
    """model.ladder of a combination; `product` as in `Decoder`."""

    def setup(text: Text, shape: LadderShape) -> Rung:
        model = Decoder(shape.of(one.name), shape.recipe.seed, product=product)
        training = Training(model, text.train_N, shape.recipe, device=str(text.windows_BT.device))
        return Rung(training, text.windows_BT, points(shape.recipe.steps, shape.stops))

    setup.__doc__ = f"Trained with {one.told}."
    return setup


def _unasked(one: Combination, product: str) -> Callable[[LadderShape], str | None]:
    def reason(shape: LadderShape) -> str | None:
        if one.linear == "fp8" and product not in shape.products:
            return f"here FP8 is multiplied by {' and '.join(shape.products)}"
        refused = shape.refusal(one.name)
        return refused and f"{refused}; see make ladder"

    return reason


operation(
    Operation(
        NAME,
        weights=draw_text,
        tokens=lambda shape: shape.recipe.batch * shape.recipe.length,
        baseline=baseline("reference"),
        metrics=METRICS,
        trial=Trial(
            steps=lambda shape: shape.recipe.steps,
            alike=1e-3,  # a GPU's kernels add up in any order, and a rounding turns values of FP8
            data=lambda text: text.told,
        ),
    )
)
for _one in combinations():
    for _product, (_kind, _needs) in KINDS.items():
        if _one.linear == "fp8" or _product == "reference":
            implementation(
                NAME, technique=_one.name, kind=_kind, name=_product, needs=_needs, supports=_unasked(_one, _product)
            )(climbing(_one, _product))
