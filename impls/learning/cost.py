"""Least work of the learning operations: matrix FLOPs, and every needed byte once.

A multiply and an add are two FLOPs. A rollout processes each prompt once and reads its keys and values once a step for
its whole group, then reads the weights a step; all responses as long as they may be. An update needs the head at
response symbols only, forward and both gradients everywhere else.
"""

from __future__ import annotations

from harness import Cost

from ..attention import cost as attention_cost
from ..model.shape import ModelShape
from ..objective.cost import FP32, INDEX_BYTES, applied, attention_flops, rate, served_bytes
from .shape import LogShape, RolloutShape, UpdateShape


def head(model: ModelShape) -> int:
    """Entries of the head."""
    return model.symbols * model.hidden


def kv_bytes(model: ModelShape) -> int:
    """Bytes that one symbol leaves in the caches of all blocks."""
    return model.layers * attention_cost.kv_bytes(model.attention, model.technique)


def rollout(shape: RolloutShape, technique: str) -> Cost:
    """Cost of learning.rollout."""
    model, steps = shape.model, shape.count - 1
    prompts, responses = shape.questions * shape.task.prompt, shape.responses * steps
    seen = shape.task.prompt + shape.count / 2
    flops = 2.0 * (prompts + responses) * (applied(model) - head(model))
    flops += 2.0 * (shape.questions + responses) * head(model)
    flops += attention_flops(model, shape.questions, shape.task.prompt)[0]
    flops += 2 * attention_flops(model, 1, 1)[0] * seen * responses
    cached = (prompts + shape.responses * shape.count / 2) * kv_bytes(model)
    written = (prompts + shape.responses * shape.count) * kv_bytes(model)
    return Cost(flops, (1 + steps) * served_bytes(model) + steps * cached, written, rate(model))


def update(shape: UpdateShape, technique: str) -> Cost:
    """Cost of learning.update; weights and gradients are FP32."""
    model, models = shape.model, 2 if technique == "ppo" else 1
    symbols = shape.responses * (shape.length - 1)
    body = applied(model) - head(model)
    flops = models * (6.0 * symbols * body + attention_flops(model, shape.responses, shape.length - 1)[1])
    flops += 6.0 * shape.responses * shape.count * head(model)
    weights = FP32 * (models * (body + head(model)) + head(model))  # embedding and head; a critic has no head
    read = weights + INDEX_BYTES * shape.responses * shape.length
    return Cost(flops, read, weights, rate(model))


def reward(shape: RolloutShape, technique: str) -> Cost:
    """Cost of learning.reward: each symbol of a response and of the right answer looked at once."""
    symbols = shape.responses * shape.count
    return Cost(float(symbols), 2.0 * INDEX_BYTES * symbols, 4.0 * shape.responses, "float32")


def logprob(shape: LogShape, technique: str) -> Cost:
    """Cost of learning.logprob: three products of the head's size; rows, head and both gradients once."""
    size = {"float32": 4, "float64": 8}.get(shape.dtype, 2)
    entries = size * (shape.rows + shape.symbols) * shape.hidden
    return Cost(6.0 * shape.rows * shape.hidden * shape.symbols, entries, entries, shape.dtype)
