"""What FP8 does to a loss: one small model trained with plain and with FP8 projections, from the same seed and data.

A case is one seed: both begin with the same parameters and see the same bytes in the same order. DeepSeek-V3 reports a
relative error of the loss below 0.25 %, smoothed with a factor of 0.9, for models of 16 and 230 billion parameters over
0.9 to 1.3 trillion tokens (arXiv 2412.19437 §3.3, appendix B.1); how far apart seeds are says what such a difference
means here. Layers as `model/linear.py` has them, the feed-forward ones dense: a router that turns to another expert
over a rounding would make two runs part for reasons that are not FP8's. "bf16" is the model's own dtype, FP32 on a CPU.
Wins: the direction, in seconds. Loses: what long training adds up is not seen, and on a CPU FP8's speed is emulation's.
Shape suffixes: N bytes, B windows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import Metric, Operation, Trial, implementation, operation

from ..model.corpus import Text, batch
from ..model.course import TrainingCourse, draw_text, ends
from ..model.decoder import Decoder
from ..model.loop import points
from ..model.shape import ModelShape
from ..model.training import Recipe, Training, language_loss
from . import deep_gemm, dequantized, scaled_mm, triton_quantize
from .shape import require

SMOOTHING = 0.9
PLAIN = "bf16"
KINDS = {
    "reference": ("reference", ()),
    dequantized.NAME: ("optimized", ()),
    scaled_mm.PROMOTED: ("library", ("cuda", "sm_90")),
    deep_gemm.NAME: ("library", deep_gemm.NEEDS),
    "triton": ("optimized", triton_quantize.NEEDS),
}
METRICS = (
    Metric("validation_bits", "bits/byte", "lower", "Bits a byte on validation windows after the last step."),
    Metric("train_loss", "bits/byte", "lower", "Language loss in training, mean since the validation before."),
    Metric(
        "smoothed_loss", "bits/byte", "lower", f"Training loss of all steps, smoothed with a factor of {SMOOTHING}."
    ),
    Metric(
        "saved_bytes",
        "bytes",
        "lower",
        "What one step keeps from forward to backward: activations and copies of weights, parameters left out.",
    ),
    Metric("model_parameters", "count", "neither", "Entries of the model's matrices."),
)


@dataclass(frozen=True)
class LossShape:
    """What is trained: a model by a recipe, whose seed draws it, validated at up to `stops` points on `windows`.

    products  who multiplies in FP8 here, some of `model.linear.PRODUCTS`
    Raises ValueError for unknown products, for a model that is in FP8 already, and for sizes that measure nothing.
    """

    shape: ModelShape
    recipe: Recipe
    windows: int
    stops: int
    products: tuple[str, ...]

    def __post_init__(self) -> None:
        for product in self.products:
            require({"products": (product, tuple(KINDS))})
        if self.shape.in_fp8:
            raise ValueError(f"the model is in {self.shape.linear}; a trial switches it from bf16 to fp8 itself")
        require({}, windows=self.windows, stops=self.stops, steps=self.recipe.steps)


class LossCourse(TrainingCourse):
    """With a loss that is smoothed over all steps."""

    def __init__(self, training: Training, windows_BT: Tensor, stops: Sequence[int]) -> None:
        super().__init__(training, windows_BT, stops)
        self._sum, self._weight = 0.0, 0.0

    @property
    def smoothed(self) -> float:
        """The exponential average of all losses so far; early ones do not weigh more than later ones."""
        return self._sum / self._weight

    def advance(self) -> float:
        """One step; its language loss in bits a byte. Raises ValueError for a loss that is not finite."""
        bits = super().advance()
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * bits
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return bits

    def validate(self) -> None:
        """Add a point to the curves, the smoothed loss among them."""
        super().validate()
        self.training.curves.setdefault("smoothed_loss", []).append(self.smoothed)

    def figures(self) -> Mapping[str, float]:
        """The ends of the curves, and what a step keeps."""
        self.finish()
        return {**ends(self.training, METRICS), "saved_bytes": saved_bytes(self.training)}


def saved_bytes(training: Training) -> int:
    """Bytes that the forward of one step keeps for its backward, each stretch of memory once, parameters left out."""
    model, recipe = training.model, training.recipe
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    given_BT = batch(training.data_N, recipe.batch, recipe.length, recipe.seed, 0).to(training.device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = language_loss(model(given_BT[:, :-1]), given_BT)
    total = sum(kept.values())
    del loss  # until here everything was kept, so no memory was counted twice
    return total


def _unasked(product: str) -> Callable[[LossShape], str | None]:
    def reason(shape: LossShape) -> str | None:
        return None if product in shape.products else f"here FP8 is multiplied by {' and '.join(shape.products)}"

    return reason


def _begun(text: Text, shape: LossShape, linear: str, product: str) -> LossCourse:
    """A model at its first step."""
    model = Decoder(replace(shape.shape, linear=linear), shape.recipe.seed, product=product)
    training = Training(model, text.train_N, shape.recipe, device=str(text.windows_BT.device))
    return LossCourse(training, text.windows_BT, points(shape.recipe.steps, shape.stops))


operation(
    Operation(
        "linear.loss",
        weights=draw_text,
        tokens=lambda shape: shape.recipe.batch * shape.recipe.length,
        baseline=(f"{PLAIN}/reference",),
        metrics=METRICS,
        trial=Trial(
            steps=lambda shape: shape.recipe.steps,
            alike=1e-3,  # products round in any order, and a value at a tie may turn to another one of FP8
            data=lambda text: text.told,
        ),
    )
)


@implementation("linear.loss", technique=PLAIN, kind="reference")
def plain(text: Text, shape: LossShape) -> LossCourse:
    """Projections in the model's own dtype by the vendor's library."""
    return _begun(text, shape, PLAIN, "reference")


for _product, (_kind, _needs) in KINDS.items():

    @implementation(
        "linear.loss", technique="fp8", kind=_kind, name=_product, needs=_needs, supports=_unasked(_product)
    )
    def in_fp8(text: Text, shape: LossShape, product: str = _product) -> LossCourse:
        """Projections in FP8, 1 x 128 tiles and 128 x 128 blocks, in all three products."""
        return _begun(text, shape, "fp8", product)
