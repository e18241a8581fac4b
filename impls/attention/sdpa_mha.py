"""MHA, GQA and MQA on PyTorch's fused attention: what most serving and training code runs today.

Wins over the reference wherever scores are large, for it keeps them on chip. Loses to MLA's latent cache in decode,
where it reads every key and value of every head. cuDNN streams the cache near the memory's rate on Hopper. "efficient"
shares no keys among heads, so it runs GQA and MQA in decode only, where a group's queries are rows of one product.
Decode keeps the cache heads first, [B, G, S, E], so that a head's keys are one stretch of memory.
Shape suffixes: B batch, T tokens, S slots, D hidden, H heads, G key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from .cache import KvCache, no_fp8, slots
from .inputs import (
    DecodeInputs,
    DecodeKernelInputs,
    SequenceInputs,
    SequenceKernelInputs,
    TrainInputs,
    TrainKernelInputs,
    TrainKernelResult,
    TrainResult,
)
from .plain import Linear, project, unproject
from .rope import Rotary, softmax_scale
from .sdpa import BACKENDS, EFFICIENT, Backend, attend_cached, attend_causal
from .shape import DecodeShape, SequenceShape
from .training import trained_kernel, trained_layer
from .weights import MhaWeights

LAYOUT = "heads first: [batch, key-value heads, slots, head size]"


@dataclass(frozen=True)
class HeadsFirstCache:
    """Keys and values with a head's slots contiguous."""

    k_BGSE: Tensor
    v_BGSE: Tensor


def pack(inputs: DecodeInputs | DecodeKernelInputs) -> DecodeInputs | DecodeKernelInputs:
    """The contract's cache [B, S, G, E] rearranged to heads first."""
    cache = inputs.cache
    packed = HeadsFirstCache(*(t.transpose(1, 2).contiguous() for t in (cache.k_BSGE, cache.v_BSGE)))
    return replace(inputs, cache=packed)


def unpack(packed: DecodeInputs | DecodeKernelInputs) -> DecodeInputs | DecodeKernelInputs:
    """The contract's form back, as views."""
    return replace(packed, cache=KvCache(packed.cache.k_BGSE.transpose(1, 2), packed.cache.v_BGSE.transpose(1, 2)))


def queries_keys_values(
    w: MhaWeights, x_BTD: Tensor, positions: Tensor, rotary: Rotary, linear: Linear = F.linear
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, of the tokens at hand."""
    q_BTHE = rotary.rotate_complex(project(x_BTD, w.wq_HED, linear), positions)
    k_BTGE = rotary.rotate_complex(project(x_BTD, w.wk_GED, linear), positions)
    return q_BTHE, k_BTGE, project(x_BTD, w.wv_GED, linear)


def decode_with(backend: Backend) -> Callable[[MhaWeights, DecodeShape], Prepared]:
    """attention.decode on one backend."""

    def setup(w: MhaWeights, shape: DecodeShape) -> Prepared:
        rotary = Rotary.of(shape, shape.model.head_dim, w.wq_HED)
        scale = softmax_scale(shape, shape.model.head_dim)
        steps_T = torch.arange(shape.new_tokens, device=w.wq_HED.device)

        def call(inputs: DecodeInputs) -> Tensor:
            positions_BT = inputs.lengths_B[:, None] + steps_T
            q_BTHE, k_BTGE, v_BTGE = queries_keys_values(w, inputs.x_BTD, positions_BT, rotary)
            rows_B1, _ = slots(positions_BT)
            inputs.cache.k_BGSE[rows_B1, :, positions_BT] = k_BTGE
            inputs.cache.v_BGSE[rows_B1, :, positions_BT] = v_BTGE
            last_BT = positions_BT if shape.ragged else None
            o_BTHE = attend_cached(backend, q_BTHE, inputs.cache.k_BGSE, inputs.cache.v_BGSE, last_BT, scale)
            return unproject(o_BTHE, w.wo_DHE)

        return Prepared(call, pack, unpack, LAYOUT)

    return setup


def decode_kernel_with(backend: Backend) -> Callable[[None, DecodeShape], Prepared]:
    """attention.decode_kernel on one backend."""

    def setup(w: None, shape: DecodeShape) -> Prepared:
        scale = softmax_scale(shape, shape.model.head_dim)

        def call(inputs: DecodeKernelInputs) -> Tensor:
            last_BT = None
            if shape.ragged:
                last_BT = inputs.lengths_B[:, None] + torch.arange(-shape.new_tokens, 0, device=inputs.lengths_B.device)
            return attend_cached(backend, inputs.q_BTHE, inputs.cache.k_BGSE, inputs.cache.v_BGSE, last_BT, scale)

        return Prepared(call, pack, unpack, LAYOUT)

    return setup


def layer_with(
    backend: Backend, shape: SequenceShape, like: Tensor, linear: Linear = F.linear
) -> Callable[[MhaWeights, Tensor], Tensor]:
    """The layer over whole sequences on one backend, projections by `linear`."""
    rotary = Rotary.of(shape, shape.model.head_dim, like)
    scale = softmax_scale(shape, shape.model.head_dim)
    positions_T = torch.arange(shape.length, device=like.device)

    def forward(w: MhaWeights, x_BTD: Tensor) -> Tensor:
        o_BTHE = attend_causal(backend, *queries_keys_values(w, x_BTD, positions_T, rotary, linear), scale)
        return unproject(o_BTHE, w.wo_DHE, linear)

    return forward


def prefill_with(backend: Backend) -> Callable[[MhaWeights, SequenceShape], Callable[[SequenceInputs], Tensor]]:
    """attention.prefill on one backend."""

    def setup(w: MhaWeights, shape: SequenceShape) -> Callable[[SequenceInputs], Tensor]:
        forward = layer_with(backend, shape, w.wq_HED)
        return lambda inputs: forward(w, inputs.x_BTD)

    return setup


def train_with(backend: Backend) -> Callable[[MhaWeights, SequenceShape], Callable[[TrainInputs], TrainResult]]:
    """attention.train on one backend."""

    def setup(w: MhaWeights, shape: SequenceShape) -> Callable[[TrainInputs], TrainResult]:
        return trained_layer(layer_with(backend, shape, w.wq_HED), w)

    return setup


def prefill_kernel_with(backend: Backend) -> Callable[[None, SequenceShape], Callable[[SequenceKernelInputs], Tensor]]:
    """attention.prefill_kernel on one backend."""

    def setup(w: None, shape: SequenceShape) -> Callable[[SequenceKernelInputs], Tensor]:
        scale = softmax_scale(shape, shape.model.head_dim)
        return lambda inputs: attend_causal(backend, inputs.q_BTHE, inputs.k_BTGE, inputs.v_BTGV, scale)

    return setup


def train_kernel_with(
    backend: Backend,
) -> Callable[[None, SequenceShape], Callable[[TrainKernelInputs], TrainKernelResult]]:
    """attention.train_kernel on one backend."""

    def setup(w: None, shape: SequenceShape) -> Callable[[TrainKernelInputs], TrainKernelResult]:
        scale = softmax_scale(shape, shape.model.head_dim)
        return trained_kernel(lambda q, k, v: attend_causal(backend, q, k, v, scale))

    return setup


def _decodes(backend: Backend) -> Callable[[DecodeShape], str | None]:
    """Why `backend` cannot decode a shape."""
    return lambda shape: no_fp8(shape) or backend.refusal(shape)


for _backend in BACKENDS:
    for _technique in ("mha", "gqa", "mqa"):
        _same = {"technique": _technique, "kind": "library", "name": _backend.name, "needs": _backend.needs}
        _supports = _decodes(_backend)
        implementation("attention.decode", supports=_supports, **_same)(decode_with(_backend))
        implementation("attention.decode_kernel", supports=_supports, **_same)(decode_kernel_with(_backend))
        if _backend is EFFICIENT and _technique != "mha":
            continue
        implementation("attention.prefill", supports=_backend.refusal, **_same)(prefill_with(_backend))
        implementation("attention.train", supports=_backend.refusal, **_same)(train_with(_backend))
        implementation("attention.prefill_kernel", supports=_backend.refusal, **_same)(prefill_kernel_with(_backend))
        implementation("attention.train_kernel", supports=_backend.refusal, **_same)(train_kernel_with(_backend))
