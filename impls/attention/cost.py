"""Least work of the attention operations, by technique: matrix FLOPs, and every needed byte once.

A multiply and an add are two FLOPs. Causal sequences count half the square. MLA decodes in absorbed form, which is its
cheapest, and prefills expanded. A backward pass counts two products for each projection and, for attention, the five
products that recomputing the scores takes: 3 d_qk + 2 d_v for each d_qk + d_v forward, 2.5 times where they are equal.
Bytes are those of the inputs, weights and cached tokens read, and of outputs, gradients and new cache slots written.
"""

from __future__ import annotations

from harness import Cost

from .cache import FP8_ROW
from .inputs import head_sizes
from .shape import AttentionShape, DecodeShape, SequenceShape
from .weights import kv_heads


def parameters(model: AttentionShape, technique: str) -> int:
    """Entries of one layer's matrices; the norms' vectors are left out, as in published formulas."""
    if technique != "mla":
        return 2 * model.hidden * model.head_dim * (model.heads + kv_heads(model, technique))
    size = model.nope_dim + model.rope_dim
    if model.query_latent:
        queries = model.query_latent * (model.hidden + model.heads * size)
    else:
        queries = model.hidden * model.heads * size
    keys_values = model.hidden * (model.latent + model.rope_dim)
    keys_values += model.latent * model.heads * (model.nope_dim + model.value_dim)
    return queries + keys_values + model.heads * model.value_dim * model.hidden


def kv_bytes(model: AttentionShape, technique: str, cache: str = "native") -> int:
    """Bytes that one token leaves in one layer's cache."""
    if technique == "mla":
        return FP8_ROW if cache == "fp8" else (model.latent + model.rope_dim) * model.torch_dtype.itemsize
    return 2 * kv_heads(model, technique) * model.head_dim * model.torch_dtype.itemsize


def _weight_bytes(model: AttentionShape, technique: str) -> int:
    norms = model.latent + (model.query_latent or 0) if technique == "mla" else 0
    return (parameters(model, technique) + norms) * model.torch_dtype.itemsize


def _cached_sizes(model: AttentionShape, technique: str) -> tuple[int, int]:
    """Query and output size of a head in decode: MLA works on the latent itself."""
    return (model.latent + model.rope_dim, model.latent) if technique == "mla" else (model.head_dim, model.head_dim)


def _decode_flops(shape: DecodeShape, technique: str) -> float:
    """Attention alone: the new token t of a sequence sees its cache, the new tokens before it, and itself."""
    new = shape.new_tokens
    seen = sum(new * length + new * (new + 1) // 2 for length in shape.lengths)
    return 2.0 * shape.model.heads * sum(_cached_sizes(shape.model, technique)) * seen


def decode(shape: DecodeShape, technique: str) -> Cost:
    """Cost of attention.decode."""
    model, tokens = shape.model, shape.batch * shape.new_tokens
    hidden = tokens * model.hidden * model.torch_dtype.itemsize
    slot = kv_bytes(model, technique, shape.cache)
    return Cost(
        flops=2.0 * tokens * parameters(model, technique) + _decode_flops(shape, technique),
        read_bytes=_weight_bytes(model, technique) + hidden + slot * sum(shape.lengths),
        write_bytes=hidden + slot * tokens,
        dtype=model.dtype,
    )


def decode_kernel(shape: DecodeShape, technique: str) -> Cost:
    """Cost of attention.decode_kernel, whose cache has the new tokens already."""
    model, tokens = shape.model, shape.batch * shape.new_tokens
    query, output = (
        tokens * model.heads * size * model.torch_dtype.itemsize for size in _cached_sizes(model, technique)
    )
    cached = kv_bytes(model, technique, shape.cache) * (sum(shape.lengths) + tokens)
    return Cost(_decode_flops(shape, technique), query + cached, output, model.dtype)


def _sequence_flops(shape: SequenceShape, technique: str) -> tuple[float, float]:
    """Attention alone, forward and backward."""
    _, size, value = head_sizes(shape, technique)
    pairs = shape.batch * shape.model.heads * shape.length**2 / 2
    return 2.0 * pairs * (size + value), 2.0 * pairs * (3 * size + 2 * value)


def prefill(shape: SequenceShape, technique: str) -> Cost:
    """Cost of attention.prefill."""
    model, tokens = shape.model, shape.batch * shape.length
    hidden = tokens * model.hidden * model.torch_dtype.itemsize
    flops = 2.0 * tokens * parameters(model, technique) + _sequence_flops(shape, technique)[0]
    return Cost(flops, _weight_bytes(model, technique) + hidden, hidden, model.dtype)


def train(shape: SequenceShape, technique: str) -> Cost:
    """Cost of attention.train: forward, and gradients of the hidden states and all weights."""
    model, tokens = shape.model, shape.batch * shape.length
    hidden, weights = tokens * model.hidden * model.torch_dtype.itemsize, _weight_bytes(model, technique)
    flops = 6.0 * tokens * parameters(model, technique) + sum(_sequence_flops(shape, technique))
    return Cost(flops, weights + 2 * hidden, weights + 2 * hidden, model.dtype)


def _head_bytes(shape: SequenceShape, technique: str) -> tuple[int, int]:
    """Bytes of queries, keys and values together, and of the outputs."""
    model = shape.model
    groups, size, value = head_sizes(shape, technique)
    entry = shape.batch * shape.length * model.torch_dtype.itemsize
    return entry * (model.heads * size + groups * (size + value)), entry * model.heads * value


def prefill_kernel(shape: SequenceShape, technique: str) -> Cost:
    """Cost of attention.prefill_kernel."""
    given, output = _head_bytes(shape, technique)
    return Cost(_sequence_flops(shape, technique)[0], given, output, shape.model.dtype)


def train_kernel(shape: SequenceShape, technique: str) -> Cost:
    """Cost of attention.train_kernel."""
    given, output = _head_bytes(shape, technique)
    return Cost(sum(_sequence_flops(shape, technique)), given + output, output + given, shape.model.dtype)
