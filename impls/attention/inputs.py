"""What the attention operations take and return, and how random inputs are drawn.

The hidden state is drawn first, so one seed gives every technique and every cache format the same. Cache slots at and
past a sequence's length hold large noise: whoever attends to them is far off.
Shape suffixes: B batch, T tokens of the call, S cache slots, D hidden, H heads, G key-value heads, E query and key
size, V value size, C latent, R rope.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cache import Fp8LatentCache, KvCache, LatentCache, no_fp8, no_fp8_row, quantize
from .shape import DecodeShape, SequenceShape
from .weights import MhaWeights, MlaWeights, kv_heads

GARBAGE = 4.0
PIECE_TOKENS = 16384

Cache = KvCache | LatentCache | Fp8LatentCache


@dataclass(frozen=True)
class DecodeInputs:
    """New tokens' hidden states; `lengths` (int32) tokens are in the cache, the new ones' slots follow them."""

    x_BTD: Tensor
    lengths_B: Tensor
    cache: Cache


@dataclass(frozen=True)
class SequenceInputs:
    """Hidden states of whole sequences."""

    x_BTD: Tensor


@dataclass(frozen=True)
class TrainInputs:
    """Hidden states, and the gradient that reaches the layer's output."""

    x_BTD: Tensor
    dy_BTD: Tensor


@dataclass(frozen=True)
class TrainResult:
    """Output, and gradients of the hidden states and of every weight."""

    y_BTD: Tensor
    dx_BTD: Tensor
    dw: MhaWeights | MlaWeights


@dataclass(frozen=True)
class DecodeKernelInputs:
    """Rotated queries over a cache whose `lengths` (int32) include the new tokens.

    MLA's queries are absorbed: E = latent + rope, W^UK applied, and the heads' outputs are latents [B, T, H, C].
    """

    q_BTHE: Tensor
    lengths_B: Tensor
    cache: Cache


@dataclass(frozen=True)
class SequenceKernelInputs:
    """Rotated queries, keys and values; MLA's are expanded to H heads of nope + rope, and of V for values."""

    q_BTHE: Tensor
    k_BTGE: Tensor
    v_BTGV: Tensor


@dataclass(frozen=True)
class TrainKernelInputs:
    """The same, and the gradient that reaches the heads' outputs."""

    q_BTHE: Tensor
    k_BTGE: Tensor
    v_BTGV: Tensor
    do_BTHV: Tensor


@dataclass(frozen=True)
class TrainKernelResult:
    """The heads' outputs, and gradients of queries, keys and values."""

    o_BTHV: Tensor
    dq_BTHE: Tensor
    dk_BTGE: Tensor
    dv_BTGV: Tensor


def _noise(sizes: tuple[int, ...], shape: DecodeShape | SequenceShape, generator: torch.Generator) -> Tensor:
    return torch.randn(sizes, generator=generator, device=generator.device, dtype=shape.model.torch_dtype)


def draw_cache(shape: DecodeShape, technique: str, filled: int, generator: torch.Generator) -> Cache:
    """A cache with `lengths + filled` tokens a sequence, and garbage behind. Raises ValueError for a format that the
    technique does not have."""
    model = shape.model
    reason = no_fp8_row(shape) if technique == "mla" else no_fp8(shape)
    if reason:
        raise ValueError(f"{technique}: {reason}")
    sizes: tuple[tuple[int, ...], ...]
    if technique == "mla":
        sizes = ((model.latent,), (model.rope_dim,))
    else:
        sizes = ((kv_heads(model, technique), model.head_dim),) * 2
    tensors = [_noise((shape.batch, *size[:-1], shape.slots, size[-1]), shape, generator) for size in sizes]
    if technique != "mla":  # a head's keys are one stretch of memory, which fused kernels read without a copy
        tensors = [tensor.transpose(1, 2) for tensor in tensors]
    for row, length in enumerate(shape.lengths):
        for tensor in tensors:
            tensor[row, length + filled :] *= GARBAGE
    if technique != "mla":
        return KvCache(*tensors)
    return LatentCache(*tensors) if shape.cache == "native" else Fp8LatentCache(quantize(*tensors))


def draw_decode(shape: DecodeShape, technique: str, generator: torch.Generator) -> DecodeInputs:
    """Inputs of attention.decode."""
    x_BTD = _noise((shape.batch, shape.new_tokens, shape.model.hidden), shape, generator)
    lengths_B = torch.tensor(shape.lengths, dtype=torch.int32, device=generator.device)
    return DecodeInputs(x_BTD, lengths_B, draw_cache(shape, technique, 0, generator))


def draw_decode_kernel(shape: DecodeShape, technique: str, generator: torch.Generator) -> DecodeKernelInputs:
    """Inputs of attention.decode_kernel; absorbed queries are as large as W^UK makes them."""
    model = shape.model
    size = model.latent + model.rope_dim if technique == "mla" else model.head_dim
    q_BTHE = _noise((shape.batch, shape.new_tokens, model.heads, size), shape, generator)
    if technique == "mla":
        q_BTHE[..., : model.latent] *= (model.nope_dim / model.latent) ** 0.5
    lengths_B = torch.tensor(shape.lengths, dtype=torch.int32, device=generator.device) + shape.new_tokens
    return DecodeKernelInputs(q_BTHE, lengths_B, draw_cache(shape, technique, shape.new_tokens, generator))


def draw_sequence(shape: SequenceShape, technique: str, generator: torch.Generator) -> SequenceInputs:
    """Inputs of attention.prefill."""
    return SequenceInputs(_noise((shape.batch, shape.length, shape.model.hidden), shape, generator))


def draw_train(shape: SequenceShape, technique: str, generator: torch.Generator) -> TrainInputs:
    """Inputs of attention.train."""
    sizes = (shape.batch, shape.length, shape.model.hidden)
    return TrainInputs(_noise(sizes, shape, generator), _noise(sizes, shape, generator))


def head_sizes(shape: DecodeShape | SequenceShape, technique: str) -> tuple[int, int, int]:
    """(key-value heads, query and key size, value size) of the expanded heads."""
    model = shape.model
    if technique == "mla":
        return model.heads, model.nope_dim + model.rope_dim, model.value_dim
    return kv_heads(model, technique), model.head_dim, model.head_dim


def draw_sequence_kernel(shape: SequenceShape, technique: str, generator: torch.Generator) -> SequenceKernelInputs:
    """Inputs of attention.prefill_kernel."""
    groups, size, value = head_sizes(shape, technique)
    heads = ((shape.model.heads, size), (groups, size), (groups, value))
    return SequenceKernelInputs(*(_noise((shape.batch, shape.length, *one), shape, generator) for one in heads))


def draw_train_kernel(shape: SequenceShape, technique: str, generator: torch.Generator) -> TrainKernelInputs:
    """Inputs of attention.train_kernel."""
    given = draw_sequence_kernel(shape, technique, generator)
    sizes = (shape.batch, shape.length, shape.model.heads, head_sizes(shape, technique)[2])
    return TrainKernelInputs(given.q_BTHE, given.k_BTGE, given.v_BTGV, _noise(sizes, shape, generator))


def rows(tree: Any, start: int, stop: int) -> Any:
    """Sequences `start` to `stop` of inputs: views, so that what is written to them is written to the whole."""
    if isinstance(tree, Tensor):
        return tree[start:stop]
    return dataclasses.replace(
        tree, **{f.name: rows(getattr(tree, f.name), start, stop) for f in dataclasses.fields(tree)}
    )


def decode_pieces(inputs: DecodeInputs | DecodeKernelInputs) -> Iterator[DecodeInputs | DecodeKernelInputs]:
    """Groups of sequences of 16,384 slots together, at least one sequence each."""
    first = getattr(inputs.cache, dataclasses.fields(inputs.cache)[0].name)
    count = max(1, PIECE_TOKENS // first.shape[1])
    for start in range(0, first.shape[0], count):
        yield rows(inputs, start, start + count)


def sequence_pieces(inputs: Any) -> Iterator[Any]:
    """One sequence at a time."""
    for start in range(len(getattr(inputs, dataclasses.fields(inputs)[0].name))):
        yield rows(inputs, start, start + 1)
