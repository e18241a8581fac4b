"""The ffn operations: the layer in prefill, decode and training, and what it is made of: route, permute, experts; and
select, the part of route that begins with the logits, as routing kernels are usually measured.

A layer takes hidden states of independent tokens and returns hidden states. The dense layers are of equal active
("dense") and of equal total ("dense-total") parameters; "moe-coarse" is the mixture DeepSeekMoE improved on. Equal
between all: hidden size, tokens, dtype, the hidden states themselves except for moe-coarse, whose router is another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness import Metric, Operation, operation

from . import cost, inputs
from .balance import coefficient_of_variation, max_over_mean, max_violation
from .routing import Routing
from .shape import TokenShape
from .weights import draw_choice, draw_experts, draw_router, draw_weights

BASELINE = ("dense/reference",)
INNER_BASELINE = ("moe/grouped-mm", "moe/topk", "moe/reference")
RANKS = 8
ROUNDED = 1e-9  # ratios of whole numbers: what another order of summation may make of them

TOTAL = Metric("parameters", "count", "neither", "Entries of the layer's matrices.", exact=0)
ACTIVE = Metric(
    "active_parameters", "count", "neither", "Entries of the matrices one token uses, router included.", exact=0
)
VIOLATION = Metric(
    "max_violation",
    "ratio",
    "lower",
    "MaxVio: the busiest expert's tokens over the mean, less one (arXiv 2408.15664); in training that of a batch, mean "
    "over mixtures and the last stretch of steps.",
    exact=ROUNDED,
)
VARIATION = Metric(
    "load_variation",
    "ratio",
    "lower",
    "Standard deviation of the experts' tokens over their mean; in training those of validation, mean over mixtures.",
    exact=ROUNDED,
)
RANK_BALANCE = Metric(
    "simulated_rank_max_over_mean",
    "ratio",
    "lower",
    f"Tokens of the busiest of {RANKS} ranks over the mean, experts placed in order (simulated from the loads).",
    exact=ROUNDED,
)
METRICS = (TOTAL, ACTIVE, VIOLATION, VARIATION, RANK_BALANCE)


def _balance(shape: TokenShape, technique: str) -> Mapping[str, float]:
    if technique.startswith("dense"):
        return {}
    loads_E = inputs.loads(shape, technique).double()
    found = {VIOLATION.name: max_violation(loads_E), VARIATION.name: coefficient_of_variation(loads_E)}
    if len(loads_E) % RANKS == 0:
        found[RANK_BALANCE.name] = max_over_mean(loads_E.view(RANKS, -1).sum(1))
    return found


def _facts(shape: TokenShape, technique: str) -> Mapping[str, float]:
    sizes = {
        TOTAL.name: cost.parameters(shape.model, technique),
        ACTIVE.name: cost.parameters(shape.model, technique, active=True),
    }
    return {**sizes, **_balance(shape, technique)}


def _loads(shape: TokenShape, technique: str) -> Mapping[str, Sequence[float]]:
    """Tokens of each expert."""
    return {} if technique.startswith("dense") else {"expert_load": inputs.loads(shape, technique).tolist()}


def _tokens(shape: TokenShape) -> int:
    return shape.tokens


def _none(shape: TokenShape, technique: str, generator: torch.Generator) -> None:
    """Permuting has no weights."""


def ascending(result: Routing) -> Routing:
    """The same routing with each token's experts in ascending order."""
    experts_MK, place_MK = result.experts_MK.sort(-1)
    return Routing(result.gates_MK.gather(1, place_MK), experts_MK)


def _layer(name: str, draw: Any, work: Any, **more: Any) -> Operation:
    return operation(
        Operation(
            name,
            weights=draw_weights,
            inputs=draw,
            cost=work,
            tokens=_tokens,
            baseline=BASELINE,
            metrics=METRICS,
            facts=_facts,
            series=_loads,
            **more,
        )
    )


def _inner(name: str, weights: Any, draw: Any, work: Any, **more: Any) -> Operation:
    return operation(
        Operation(
            name,
            weights=weights,
            inputs=draw,
            cost=work,
            tokens=_tokens,
            baseline=INNER_BASELINE,
            metrics=METRICS,
            facts=_balance,
            series=_loads,
            **more,
        )
    )


_layer("ffn.prefill", inputs.draw_tokens, cost.layer, pieces=inputs.token_pieces)
_layer("ffn.decode", inputs.draw_tokens, cost.layer)
_layer("ffn.train", inputs.draw_train, cost.train)
_inner("ffn.route", draw_router, inputs.draw_tokens, cost.route, normal=ascending)
_inner("ffn.select", draw_choice, inputs.draw_select, cost.select, normal=ascending)
_inner("ffn.permute", _none, inputs.draw_permute, cost.permute)
_inner("ffn.experts", draw_experts, inputs.draw_experts, cost.experts)
