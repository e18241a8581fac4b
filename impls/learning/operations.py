"""The learning operations: sampling responses, judging them, one update on them, and log-probabilities alone.

Rollout, reward and log-probability are the same for PPO and GRPO and listed under GRPO; an update is not. What a whole
step takes and leads to is `learning.step` (`trial.py`). A rollout is verified to the last symbol, so its model computes
in FP32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import Metric, Operation, operation

from ..model.shape import parameters
from . import cost, inputs
from .shape import RolloutShape, UpdateShape

PARAMETERS = Metric("model_parameters", "count", "neither", "Entries of the matrices of policy and critic.", exact=0)
KV_BYTES = Metric(
    "kv_bytes", "bytes", "lower", "Keys and values of a step's end, each prompt's held for every response.", exact=0
)


def _nothing(shape: Any, technique: str, generator: Any) -> None:
    """A rule has no weights."""


def _update_facts(shape: UpdateShape, technique: str) -> Mapping[str, float]:
    critic = parameters(shape.model) - cost.head(shape.model) + shape.model.hidden if technique == "ppo" else 0
    return {PARAMETERS.name: parameters(shape.model) + critic}


def _rollout_facts(shape: RolloutShape, technique: str) -> Mapping[str, float]:
    return {KV_BYTES.name: cost.kv_bytes(shape.model) * shape.responses * shape.length}


operation(
    Operation(
        "learning.rollout",
        weights=inputs.draw_policy,
        inputs=inputs.draw_questions,
        cost=cost.rollout,
        tokens=lambda shape: shape.responses * shape.count,
        baseline=("grpo/graph", "grpo/shared", "grpo/reference"),
        metrics=(KV_BYTES,),
        facts=_rollout_facts,
    )
)
operation(
    Operation(
        "learning.reward",
        weights=_nothing,
        inputs=inputs.draw_answers,
        cost=cost.reward,
        tokens=lambda shape: shape.responses * shape.count,
        baseline=("grpo/table", "grpo/reference"),
    )
)
operation(
    Operation(
        "learning.update",
        weights=inputs.draw_policy,
        inputs=inputs.draw_batch,
        cost=cost.update,
        tokens=lambda shape: shape.responses * shape.count,
        baseline=("ppo/chunked", "ppo/reference"),
        metrics=(PARAMETERS,),
        facts=_update_facts,
    )
)
operation(
    Operation(
        "learning.logprob",
        weights=inputs.draw_head,
        inputs=inputs.draw_rows,
        cost=cost.logprob,
        tokens=lambda shape: shape.rows,
        baseline=("grpo/reference",),
    )
)
