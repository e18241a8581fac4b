"""Least work of the objective operations: matrix FLOPs, and every needed byte once.

A multiply and an add are two FLOPs. Training: forward, and gradients of every weight. Generation: prompts once, then
every step reads the weights and the cache; plain decoding takes a step a symbol, speculative decoding at best one for
K + 1 symbols, and each of its steps computes K + 1 symbols and what drafts them. Of a mixture as many experts are read
as one symbol chooses: which ones many choose is not known before. In FP8 all products count at FP8's rate, and where no
master is needed the blocks' matrices as one byte an entry, whatever stays out of FP8: a bound from below.
"""

from __future__ import annotations

from harness import Cost

from ..attention import cost as attention_cost
from ..attention.shape import SequenceShape
from ..ffn import cost as ffn_cost
from ..linear.cost import FP8
from ..model.shape import ModelShape, parameters
from .shape import GenerateShape, StepShape

FP32 = 4
INDEX_BYTES = 8


def kv_bytes(model: ModelShape) -> int:
    """Bytes that one symbol leaves in the caches of all blocks, those that predict further symbols included."""
    return (model.layers + model.ahead) * attention_cost.kv_bytes(model.attention, model.technique)


def rate(model: ModelShape) -> str:
    """The dtype at whose rate products count."""
    return FP8 if model.in_fp8 else model.attention.dtype


def unchosen(model: ModelShape) -> int:
    """Entries of the experts that one symbol does not choose, in all blocks."""
    feeds = [model.feed_of(layer) for layer in range(model.layers + model.ahead)]
    return sum(
        ffn_cost.parameters(model.ffn, feed) - ffn_cost.parameters(model.ffn, feed, active=True) for feed in feeds
    )


def applied(model: ModelShape) -> int:
    """Entries of the matrices that one symbol is multiplied with; the head once for each prediction."""
    return parameters(model) - unchosen(model) - model.symbols * model.hidden * (1 - model.ahead)


def served_bytes(model: ModelShape) -> int:
    """Bytes of the matrices that one symbol needs where nothing is trained, the embedding left out."""
    size = model.attention.torch_dtype.itemsize
    entries = parameters(model) - unchosen(model) - model.symbols * model.hidden
    outside = model.symbols * model.hidden + (2 * model.hidden**2 * model.ahead if model.objective == "mtp" else 0)
    return (entries - outside) * (1 if model.in_fp8 else size) + outside * size


def attention_flops(model: ModelShape, batch: int, length: int) -> tuple[float, float]:
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
    flops = 6.0 * symbols * applied(model) + attention_flops(model, shape.batch, shape.length)[1]
    read = weights - unchosen(model) * FP32 + (symbols + shape.batch) * INDEX_BYTES
    return Cost(flops, read, weights, rate(model))


def generate(shape: GenerateShape, technique: str) -> Cost:
    """Cost of objective.generate, prompts as long as they may be."""
    model = shape.of(technique)
    steps = -(-(shape.count - 1) // (1 + model.ahead))
    computed = shape.batch * (shape.prompt + steps * (1 + model.ahead))
    seen = shape.prompt + shape.count / 2
    attention = 2 * attention_flops(model, 1, 1)[0] * seen * shape.batch * steps * (1 + model.ahead)
    flops = 2.0 * computed * applied(model) + attention + attention_flops(model, shape.batch, shape.prompt)[0]
    cached = shape.batch * kv_bytes(model)
    read = (1 + steps) * served_bytes(model) + steps * cached * seen
    return Cost(flops, read, cached * (shape.prompt + shape.count), rate(model))
