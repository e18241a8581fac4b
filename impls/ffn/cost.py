"""Least work of the ffn operations: matrix FLOPs, and every needed byte once.

A multiply and an add are two FLOPs. A mixture reads the experts that its tokens hit, and no others; which, follows from
the workload's sizes. A backward pass counts two products for each of the forward. Elementwise work is not counted.
"""

from __future__ import annotations

from harness import Cost

from .inputs import loads
from .shape import FfnShape, TokenShape

INDEX_BYTES = 8
END_BYTES = 4


def parameters(model: FfnShape, technique: str, active: bool = False) -> int:
    """Entries of the layer's matrices; `active`: of those that one token uses, the router's included."""
    if technique.startswith("dense"):
        return 3 * model.hidden * model.dense_width(technique)
    mixture = model.of(technique)
    experts = mixture.router.top_k if active else mixture.router.experts
    return 3 * mixture.hidden * mixture.width * (experts + mixture.shared) + mixture.router.experts * mixture.hidden


def touched(shape: TokenShape, technique: str) -> int:
    """Entries of the matrices that the workload's tokens use together."""
    if technique.startswith("dense"):
        return parameters(shape.model, technique)
    mixture = shape.model.of(technique)
    hit = int((loads(shape, technique) > 0).sum())
    return parameters(mixture, technique) - 3 * mixture.hidden * mixture.width * (mixture.router.experts - hit)


def layer(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.prefill and ffn.decode."""
    size = shape.model.torch_dtype.itemsize
    hidden = shape.tokens * shape.model.hidden * size
    flops = 2.0 * shape.tokens * parameters(shape.model, technique, active=True)
    return Cost(flops, touched(shape, technique) * size + hidden, hidden, shape.model.dtype)


def train(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.train: forward, and gradients of the hidden states and all weights, those of experts that no token
    chose included, which are zero and written."""
    once, size = layer(shape, technique), shape.model.torch_dtype.itemsize
    hidden = shape.tokens * shape.model.hidden * size
    written = 2 * hidden + parameters(shape.model, technique) * size
    return Cost(3 * once.flops, once.read_bytes + hidden, written, shape.model.dtype)


def route(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.route."""
    mixture, size = shape.model.of(technique), shape.model.torch_dtype.itemsize
    router = mixture.router
    read = (shape.tokens + router.experts) * mixture.hidden * size + 4 * router.experts * router.biased
    written = shape.tokens * router.top_k * (4 + INDEX_BYTES)
    return Cost(2.0 * shape.tokens * router.experts * mixture.hidden, read, written, mixture.dtype)


def select(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.select: logits and bias in, gates and experts out, all in FP32 but the indices."""
    router = shape.model.of(technique).router
    read = 4.0 * router.experts * (shape.tokens + router.biased)
    return Cost(0.0, read, shape.tokens * router.top_k * (4 + INDEX_BYTES), "float32")


def permute(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.permute: each hidden state read once, written once for each of its experts."""
    mixture = shape.model.of(technique)
    row, top_k = mixture.hidden * mixture.torch_dtype.itemsize, mixture.router.top_k
    read = shape.tokens * (row + top_k * INDEX_BYTES)
    return Cost(0.0, read, shape.tokens * top_k * row + mixture.router.experts * END_BYTES, mixture.dtype)


def experts(shape: TokenShape, technique: str) -> Cost:
    """Cost of ffn.experts: three products for each pair, the hit experts' weights once."""
    mixture, size = shape.model.of(technique), shape.model.torch_dtype.itemsize
    hit = int((loads(shape, technique) > 0).sum())
    rows = shape.tokens * mixture.router.top_k * mixture.hidden * size
    entries = 3 * mixture.hidden * mixture.width
    flops = 2.0 * shape.tokens * mixture.router.top_k * entries
    return Cost(flops, rows + hit * entries * size + mixture.router.experts * END_BYTES, rows, mixture.dtype)
