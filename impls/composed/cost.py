"""Least work of the operations on whole models, counted as the objective study does (`objective/cost.py`)."""

from __future__ import annotations

from harness import Cost

from ..objective import cost as objective
from ..objective.cost import FP32, INDEX_BYTES
from .combination import Combination
from .shape import GenerateShape, TextShape


def train_step(shape: TextShape, technique: str) -> Cost:
    """Cost of model.train_step."""
    return objective.train_step(shape.windows(technique), Combination.named(technique).objective)


def prefill(shape: TextShape, technique: str) -> Cost:
    """Cost of model.prefill: all blocks over all symbols, the head after the last of each."""
    model = shape.of(technique)
    symbols, predictions = shape.batch * shape.length, shape.batch * (1 + model.ahead)
    head = model.symbols * model.hidden
    flops = 2.0 * symbols * (objective.applied(model) - head * (1 + model.ahead)) + 2.0 * predictions * head
    flops += objective.attention_flops(model, shape.batch, shape.length)[0]
    written = predictions * model.symbols * FP32
    return Cost(flops, objective.served_bytes(model) + symbols * INDEX_BYTES, written, objective.rate(model))


def generate(shape: GenerateShape, technique: str) -> Cost:
    """Cost of model.generate."""
    return objective.generate(shape.generation(technique), Combination.named(technique).objective)
