"""The objective operations: a step of training, and greedy generation, verified to the last token.

A step is forward and backward of whole models, losses and gradients verified; the optimizer's update is elementwise,
the same for all, and not in it. `objective.loss` (`loss_trial.py`) has whole steps and what they lead to. Generation of
both techniques must give the tokens of the model's own greedy decoding; the weights are trained, for drafts of random
ones never stand. Feed-forward layers are dense: a router that turns to another expert over a rounding would make two
right results differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness import Metric, Operation, operation

from ..model.shape import parameters
from . import cost, inputs, weights
from .cached import speculation
from .shape import GenerateShape, StepShape

PARAMETERS = Metric("model_parameters", "count", "neither", "Entries of the matrices that are trained.", exact=0)
KV_BYTES = Metric(
    "kv_bytes", "bytes", "lower", "What one symbol leaves in the caches of all blocks, drafting ones included.", exact=0
)
ACCEPTANCE = Metric(
    "acceptance", "share", "higher", "Steps of all sequences in which the first draft stood, on the prompts timed."
)
SYMBOLS = Metric("symbols_a_step", "count", "higher", "New symbols of a sequence a step, on the same prompts.")
STEPS = Metric(
    "generation_steps", "count", "lower", "Steps after the prompts until the slowest sequence had all its symbols."
)


def _step_facts(shape: StepShape, technique: str) -> Mapping[str, float]:
    return {PARAMETERS.name: parameters(shape.of(technique))}


def generate_facts(shape: GenerateShape, technique: str) -> Mapping[str, float]:
    """Bytes of the cache, and how drafts fare on the prompts that are timed."""
    found = {KV_BYTES.name: float(cost.kv_bytes(shape.of(technique)))}
    if technique == "ntp":
        return found | {STEPS.name: shape.count - 1}
    outcome = speculation(shape)
    drafted = {ACCEPTANCE.name: outcome.acceptance[0], SYMBOLS.name: outcome.symbols_a_step}
    return found | drafted | {STEPS.name: outcome.steps}


def generate_series(shape: GenerateShape, technique: str) -> Mapping[str, Sequence[float]]:
    """How often drafts stand, by depth."""
    if technique == "ntp":
        return {}
    found = speculation(shape).acceptance
    return {"depth": list(range(1, len(found) + 1)), "acceptance_by_depth": list(found)}


operation(
    Operation(
        "objective.train_step",
        weights=weights.draw_step,
        inputs=inputs.draw_windows,
        cost=cost.train_step,
        tokens=lambda shape: shape.batch * shape.length,
        baseline=("ntp/chunked", "ntp/reference"),
        metrics=(PARAMETERS,),
        facts=_step_facts,
    )
)
operation(
    Operation(
        "objective.generate",
        weights=weights.draw_trained,
        inputs=inputs.draw_prompts,
        cost=cost.generate,
        tokens=lambda shape: shape.batch * shape.count,
        baseline=("ntp/graph", "ntp/cached", "ntp/reference"),
        metrics=(KV_BYTES, ACCEPTANCE, SYMBOLS, STEPS),
        facts=generate_facts,
        series=generate_series,
    )
)
