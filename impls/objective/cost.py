"""Least work of the objective operations: matrix FLOPs, and every needed byte once.

A multiply and an add are two FLOPs. Training: forward, and gradients of every weight. Generation: prompts once, then
every step reads the weights and the cache; plain decoding takes a step a symbol, speculative decoding at best one for
K + 1 symbols, and each of its steps computes K + 1 symbols and what drafts them. Counted for dense feed-forward layers.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Cost

from ..attention import cost as attention_cost
from ..attention.shape import SequenceShape
from ..model.shape import ModelShape, parameters
from .shape import GenerateShape, StepShape

FP32 = 4
INDEX_BYTES = 8


def kv_bytes(model: ModelShape) -> int:
    """Bytes that one symbol leaves in the caches of all blocks, those that predict further symbols included."""
    return (model.layers + model.ahead) * attention_cost.kv_bytes(model.attention, model.technique)


def _applied(model: ModelShape) -> int:
    """Entries of the matrices that one symbol is multiplied with; the head once for each prediction."""
    return parameters(model) - model.symbols * model.hidden * (1 - model.ahead)


def _attention_flops(model: ModelShape, batch: int, length: int) -> tuple[float, float]:
    """Scores and sums alone of all blocks over whole sequences: forward, and forward with backward."""
    shape = SequenceShape(model.attention, batch, length)
    layers = model.layers + model.ahead
    products = 2.0 * batch * length * attention_cost.parameters(model.attention, model.technique)
    forward = attention_cost.prefill(shape, model.technique).flops - products
    both = attention_cost.train(shape, model.technique).flops - 3 * products
    return layers * forward, layers * both


def train_step(shape: StepShape, technique: str) -> Cost:
    """Cost of objective.train_step; weights and gradients are FP32."""
    model = shape.of(technique)
    symbols, weights = shape.batch * shape.length, parameters(model) * FP32
    flops = 6.0 * symbols * _applied(model) + _attention_flops(model, shape.batch, shape.length)[1]
    return Cost(flops, weights + (symbols + shape.batch) * INDEX_BYTES, weights, model.attention.dtype)


def generate(shape: GenerateShape, technique: str) -> Cost:
    """Cost of objective.generate, prompts as long as they may be."""
    model = shape.of(technique)
    size = model.attention.torch_dtype.itemsize
    plain = replace(model, objective="ntp")
    steps = -(-(shape.count - 1) // (1 + model.ahead))
    computed = shape.batch * (shape.prompt + steps * (1 + model.ahead))
    seen = shape.prompt + shape.count / 2
    attention = 2 * _attention_flops(model, 1, 1)[0] * seen * shape.batch * steps * (1 + model.ahead)
    flops = 2.0 * computed * (_applied(model) if model.ahead else _applied(plain))
    flops += attention + _attention_flops(model, shape.batch, shape.prompt)[0]
    weights = (parameters(model) - model.symbols * model.hidden) * size
    cached = shape.batch * kv_bytes(model)
    read = (1 + steps) * weights + steps * cached * seen
    return Cost(flops, read, cached * (shape.prompt + shape.count), model.attention.dtype)
