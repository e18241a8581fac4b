"""MLA prefill and training in few, large products: what a token needs from the hidden state comes from one matrix.

W^DQ, W^DKV and W^KR are stacked (2112 rows in DeepSeek-V3), and so are W^UK and W^UV (256 rows a head); attention goes
to the backend that is fastest for heads of 192 and 128 on the device at hand. Wins over separate projections by fewer
kernels and one reading of the hidden state. Loses some memory: setup keeps stacked copies of these weights.
Shape suffixes: B batch, T tokens, D hidden, A = Q + C + R stacked rows, H heads, E = N + R query and key size, Q query
latent, C latent, R rope, N nope, V value, U = N + V.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import SequenceInputs, TrainInputs, TrainResult
from .plain import project, unproject
from .reference_mla import mla_scale
from .rope import Rotary
from .sdpa import attend_causal, best_for_latent_heads
from .shape import AttentionShape, SequenceShape
from .training import trained_layer
from .weights import MlaWeights


@dataclass(frozen=True)
class FusedWeights:
    """MLA's weights stacked by what they multiply; w_uq_HEQ is None where queries come from the hidden state."""

    down_AD: Tensor
    q_norm_Q: Tensor | None
    w_uq_HEQ: Tensor | None
    kv_norm_C: Tensor
    up_HUC: Tensor
    wo_DHV: Tensor


def stack_down(w: MlaWeights) -> Tensor:
    """All that applies to the hidden state, [A, D]: W^DQ (or W^Q, where there is no query latent), W^DKV, W^KR."""
    first = w.w_uq_HEQ.flatten(0, 1) if w.w_dq_QD is None else w.w_dq_QD
    return torch.cat((first, w.w_dkv_CD, w.w_kr_RD))


def split_down(a_BTA: Tensor, model: AttentionShape) -> tuple[Tensor, Tensor, Tensor]:
    """Its three parts along the last axis: for queries, latent, rotated key."""
    return a_BTA.split((a_BTA.shape[-1] - model.latent - model.rope_dim, model.latent, model.rope_dim), -1)


def fuse(w: MlaWeights) -> FusedWeights:
    """Stacked copies of the weights that are stacked; the others as they are."""
    return FusedWeights(
        down_AD=stack_down(w),
        q_norm_Q=w.q_norm_Q,
        w_uq_HEQ=None if w.w_dq_QD is None else w.w_uq_HEQ,
        kv_norm_C=w.kv_norm_C,
        up_HUC=torch.cat((w.w_uk_HNC, w.w_uv_HVC), 1),
        wo_DHV=w.wo_DHV,
    )


def unfuse(fused: FusedWeights, model: AttentionShape) -> MlaWeights:
    """The contract's form as views; the inverse of `fuse`, used on gradients."""
    first, w_dkv_CD, w_kr_RD = (part.mT for part in split_down(fused.down_AD.mT, model))
    direct = fused.w_uq_HEQ is None
    w_uk_HNC, w_uv_HVC = fused.up_HUC.split((model.nope_dim, model.value_dim), 1)
    return MlaWeights(
        w_dq_QD=None if direct else first,
        q_norm_Q=fused.q_norm_Q,
        w_uq_HEQ=first.unflatten(0, (model.heads, -1)) if direct else fused.w_uq_HEQ,
        w_dkv_CD=w_dkv_CD,
        kv_norm_C=fused.kv_norm_C,
        w_kr_RD=w_kr_RD,
        w_uk_HNC=w_uk_HNC,
        w_uv_HVC=w_uv_HVC,
        wo_DHV=fused.wo_DHV,
    )


def layer(shape: SequenceShape, like: Tensor) -> Callable[[FusedWeights, Tensor], Tensor]:
    """The layer over whole sequences."""
    model = shape.model
    rotary, scale = Rotary.of(shape, model.rope_dim, like), mla_scale(shape)
    positions_T = torch.arange(shape.length, device=like.device)
    backend = best_for_latent_heads(like)

    def forward(w: FusedWeights, x_BTD: Tensor) -> Tensor:
        q_BTQ, c_BTC, r_BTR = split_down(F.linear(x_BTD, w.down_AD), model)
        if w.w_uq_HEQ is None:
            q_BTHE = q_BTQ.unflatten(-1, (model.heads, -1))
        else:
            q_BTHE = project(F.rms_norm(q_BTQ, q_BTQ.shape[-1:], w.q_norm_Q, model.norm_eps), w.w_uq_HEQ)
        q_BTHN, q_BTHR = q_BTHE.split((model.nope_dim, model.rope_dim), -1)
        q_BTHE = torch.cat((q_BTHN, rotary.rotate_complex(q_BTHR, positions_T)), -1)

        up_BTHU = project(F.rms_norm(c_BTC, c_BTC.shape[-1:], w.kv_norm_C, model.norm_eps), w.up_HUC)
        k_BTHN, v_BTHV = up_BTHU.split((model.nope_dim, model.value_dim), -1)
        r_BT1R = rotary.rotate_complex(r_BTR.unsqueeze(2), positions_T)
        k_BTHE = torch.cat((k_BTHN, r_BT1R.expand(-1, -1, model.heads, -1)), -1)
        return unproject(attend_causal(backend, q_BTHE, k_BTHE, v_BTHV, scale), w.wo_DHV)

    return forward


@implementation("attention.prefill", technique="mla", kind="optimized", name="fused")
def prefill(w: MlaWeights, shape: SequenceShape) -> Callable[[SequenceInputs], Tensor]:
    """Whole sequences, causal."""
    forward, fused = layer(shape, w.w_kr_RD), fuse(w)
    return lambda inputs: forward(fused, inputs.x_BTD)


@implementation("attention.train", technique="mla", kind="optimized", name="fused")
def train(w: MlaWeights, shape: SequenceShape) -> Callable[[TrainInputs], TrainResult]:
    """Whole sequences, causal; gradients of stacked weights are handed back as views of the stack's."""
    return trained_layer(layer(shape, w.w_kr_RD), fuse(w), lambda gradients: unfuse(gradients, shape.model))
