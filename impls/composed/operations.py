"""The operations on whole models: a training step, prefill and generation, a technique for each combination.

`model.train_step`: forward and backward; loss and the gradient of every weight are verified. `model.prefill`: whole
texts, their states before the head and the logits after the last symbol, with the modules run over them too where the
model has some, for drafting needs that; no cache is kept. `model.generate`: greedy, verified to the last token; in FP8
that says little, for most tokens are those of the model without it. How other limits come about:

    FP32, no FP8   the harness' own, 2e-6 or twice the reference's own error; of a mixture too, for its inputs are clear
                   of ties
    FP32 with FP8  `TURNED`: a rounding of FP32 turns single values of FP8 by 6 to 12 %, and these turn others in later
                   layers. Of 384 right steps the worst tensor was off by up to 4.5 % (an element by 0.67 of the rms),
                   of as many that left FP8 out by 9.5 % and more; of prefills by 1.0 % (0.22), and by 3.3 % and more
    16 bits        twice what the reference in 16 bits is off by, which for FP8 may be as much as leaving FP8 out, and
                   for a mixture what experts that turn do; that these layers are right is for their studies to verify

The floor is one for all techniques of a case, so where limits are to be tight FP8 has a case of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch

from harness import Metric, Operation, operation

from ..model.shape import parameters
from ..objective import operations as objective
from ..objective.operations import ACCEPTANCE, KV_BYTES, PARAMETERS, STEPS, SYMBOLS
from . import cost, inputs
from .combination import FEW, PLAINEST, Combination
from .shape import Composed, GenerateShape, TextShape

TURNED = {"train_step": (0.06, 1.0), "prefill": (0.02, 0.5)}
ACTIVE = Metric(
    "model_active_parameters", "count", "neither", "Entries one symbol uses without a drafting module.", exact=0
)


def allowed(shape: Composed, device: str, turned: tuple[float, float]) -> tuple[float, float] | None:
    """The floor of the limits: see above."""
    dtype = shape.model.attention.torch_dtype
    if dtype.itemsize < 4:
        eps = torch.finfo(dtype).eps
        return eps / 2, 4 * eps
    return turned if shape.any_in_fp8 else None


def baseline(*names: str) -> tuple[str, ...]:
    """The plainest combination's contenders of these names; where it does not take part, the plainest in FP8."""
    combinations = (PLAINEST.name, "mha-dense-fp8-ntp", *FEW)
    return tuple(f"{one}/{name}" for one in combinations for name in names)


def _facts(shape: TextShape, technique: str) -> Mapping[str, float]:
    model = shape.of(technique)
    return {PARAMETERS.name: parameters(model), ACTIVE.name: parameters(model, active=True)}


def _generate_facts(shape: GenerateShape, technique: str) -> Mapping[str, float]:
    return objective.generate_facts(shape.generation(technique), Combination.named(technique).objective)


def _generate_series(shape: GenerateShape, technique: str) -> Mapping[str, Sequence[float]]:
    return objective.generate_series(shape.generation(technique), Combination.named(technique).objective)


for _name, _draw, _cost, _contenders in (
    ("train_step", inputs.draw_windows, cost.train_step, ("chunked", "reference")),
    ("prefill", inputs.draw_texts, cost.prefill, ("last", "reference")),
):
    operation(
        Operation(
            f"model.{_name}",
            weights=inputs.draw_weights,
            inputs=_draw,
            cost=_cost,
            tokens=lambda shape: shape.batch * shape.length,
            baseline=baseline(*_contenders),
            metrics=(PARAMETERS, ACTIVE),
            facts=_facts,
            allowed=partial(allowed, turned=TURNED[_name]),
        )
    )
operation(
    Operation(
        "model.generate",
        weights=inputs.draw_trained_weights,
        inputs=inputs.draw_prompts,
        cost=cost.generate,
        tokens=lambda shape: shape.batch * shape.count,
        baseline=baseline("graph", "cached", "reference"),
        metrics=(KV_BYTES, ACCEPTANCE, SYMBOLS, STEPS),
        facts=_generate_facts,
        series=_generate_series,
    )
)
