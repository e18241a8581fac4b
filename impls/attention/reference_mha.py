"""Multi-head attention as DeepSeek-V2 §2.1.1 writes it; grouped (GQA) and multi-query (MQA) share keys among heads.

    q, k, v = W^Q h, W^K h, W^V h        q and k rotated by position
    o_i = Σ_j softmax_j(q_i · k_j / sqrt(E)) v_j        u = W^O [o_1; ...; o_H]

Wins by its simplicity: least FLOPs a cached token. Loses in decode, where every token of context costs 2 G E numbers of
memory traffic, and by writing out the scores, which fused kernels keep on chip.
Shape suffixes: B batch, T tokens, S slots, D hidden, H heads, G key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from .cache import no_fp8
from .inputs import DecodeInputs, DecodeKernelInputs, SequenceInputs, TrainInputs, TrainResult
from .plain import attend, attend_causal, project, unproject, visible_slots
from .rope import Rotary, softmax_scale
from .shape import DecodeShape, SequenceShape
from .training import trained_layer
from .weights import MhaWeights

TECHNIQUES = ("mha", "gqa", "mqa")


@implementation("attention.decode", technique=TECHNIQUES, kind="reference", supports=no_fp8)
def decode(w: MhaWeights, shape: DecodeShape) -> Callable[[DecodeInputs], Tensor]:
    """One step of decoding: keys and values of the new tokens join the cache, then each attends to all before it."""
    rotary = Rotary.of(shape, shape.model.head_dim, w.wq_HED)
    scale = softmax_scale(shape, shape.model.head_dim)
    steps_T = torch.arange(shape.new_tokens, device=w.wq_HED.device)

    def call(inputs: DecodeInputs) -> Tensor:
        x_BTD, cache = inputs.x_BTD, inputs.cache
        positions_BT = inputs.lengths_B[:, None] + steps_T
        q_BTHE = rotary.rotate(project(x_BTD, w.wq_HED), positions_BT)
        k_BTGE = rotary.rotate(project(x_BTD, w.wk_GED), positions_BT)
        cache.write(k_BTGE, project(x_BTD, w.wv_GED), positions_BT)
        visible_BTS = visible_slots(positions_BT, cache.k_BSGE.shape[1])
        o_BTHE = attend(q_BTHE, cache.k_BSGE, cache.v_BSGE, visible_BTS, scale)
        return unproject(o_BTHE, w.wo_DHE)

    return call


def _forward(shape: SequenceShape, like: Tensor) -> Callable[[MhaWeights, Tensor], Tensor]:
    """The layer over whole sequences."""
    rotary = Rotary.of(shape, shape.model.head_dim, like)
    scale = softmax_scale(shape, shape.model.head_dim)
    positions_T = torch.arange(shape.length, device=like.device)

    def forward(w: MhaWeights, x_BTD: Tensor) -> Tensor:
        q_BTHE = rotary.rotate(project(x_BTD, w.wq_HED), positions_T)
        k_BTGE = rotary.rotate(project(x_BTD, w.wk_GED), positions_T)
        o_BTHE = attend_causal(q_BTHE, k_BTGE, project(x_BTD, w.wv_GED), scale)
        return unproject(o_BTHE, w.wo_DHE)

    return forward


@implementation("attention.prefill", technique=TECHNIQUES, kind="reference")
def prefill(w: MhaWeights, shape: SequenceShape) -> Callable[[SequenceInputs], Tensor]:
    """Whole sequences, causal."""
    forward = _forward(shape, w.wq_HED)
    return lambda inputs: forward(w, inputs.x_BTD)


@implementation("attention.train", technique=TECHNIQUES, kind="reference")
def train(w: MhaWeights, shape: SequenceShape) -> Callable[[TrainInputs], TrainResult]:
    """Whole sequences, causal, and the gradients by autograd."""
    return trained_layer(_forward(shape, w.wq_HED), w)


@implementation("attention.decode_kernel", technique=TECHNIQUES, kind="reference", supports=no_fp8)
def decode_kernel(w: None, shape: DecodeShape) -> Callable[[DecodeKernelInputs], Tensor]:
    """The new tokens' queries over a cache that has their keys and values already."""
    scale = softmax_scale(shape, shape.model.head_dim)

    def call(inputs: DecodeKernelInputs) -> Tensor:
        k_BSGE, v_BSGE = inputs.cache.k_BSGE, inputs.cache.v_BSGE
        steps_T = torch.arange(-inputs.q_BTHE.shape[1], 0, device=k_BSGE.device)
        visible_BTS = visible_slots(inputs.lengths_B[:, None] + steps_T, k_BSGE.shape[1])
        return attend(inputs.q_BTHE, k_BSGE, v_BSGE, visible_BTS, scale)

    return call
