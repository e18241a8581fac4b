"""Multi-head Latent Attention as DeepSeek-V2 §2.1 and DeepSeek-V3 eqs 1-11 write it: keys and values from a latent.

    c^Q = RMSNorm(W^DQ h)        q^C = W^UQ c^Q, q^R = RoPE(W^QR c^Q)        q_i = [q^C_i; q^R_i]
    c^KV = RMSNorm(W^DKV h)      k^C = W^UK c^KV, v^C = W^UV c^KV            k_i = [k^C_i; k^R], k^R = RoPE(W^KR h)
    o_i = Σ_j softmax_j(q_i · k_j / sqrt(N + R)) v^C_j        u = W^O [o_1; ...; o_H]

Only c^KV and k^R are cached; the norm is not applied to k^R, which all heads share. Wins in cache size: 576 numbers a
token, whatever the heads. Loses in decode in this plain form, which expands keys and values of the whole context for
every new token; the absorbed form beside it does not.
Shape suffixes: B batch, T tokens, S slots, D hidden, H heads, Q query latent, C latent, N nope, R rope, V value,
E = N + R.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .cache import no_fp8_row
from .inputs import DecodeInputs, SequenceInputs, TrainInputs, TrainResult
from .plain import Linear, attend_causal, project, rms_norm, softmax, unproject, visible_slots
from .rope import Rotary, softmax_scale
from .shape import AttentionShape, DecodeShape, SequenceShape
from .training import trained_layer
from .weights import MlaWeights


def queries(
    w: MlaWeights, x_BTD: Tensor, positions_BT: Tensor, rotary: Rotary, eps: float, linear: Linear = F.linear
) -> tuple[Tensor, Tensor]:
    """q^C [B, T, H, N] and the rotated q^R [B, T, H, R]; V2-Lite has no query latent."""
    c_BTQ = x_BTD if w.w_dq_QD is None else rms_norm(linear(x_BTD, w.w_dq_QD), w.q_norm_Q, eps)
    nope = w.w_uk_HNC.shape[1]
    q_BTHE = project(c_BTQ, w.w_uq_HEQ, linear)
    return q_BTHE[..., :nope], rotary.rotate(q_BTHE[..., nope:], positions_BT)


def latents(
    w: MlaWeights, x_BTD: Tensor, positions_BT: Tensor, rotary: Rotary, eps: float, linear: Linear = F.linear
) -> tuple[Tensor, Tensor]:
    """What is cached: the normalised c^KV [B, T, C] and the rotated k^R [B, T, R]."""
    c_BTC = rms_norm(linear(x_BTD, w.w_dkv_CD), w.kv_norm_C, eps)
    r_BT1R = rotary.rotate(linear(x_BTD, w.w_kr_RD).unsqueeze(2), positions_BT)
    return c_BTC, r_BT1R.squeeze(2)


def mla_scale(shape: DecodeShape | SequenceShape) -> float:
    """The softmax scale of a nope + rope head."""
    return softmax_scale(shape, shape.model.nope_dim + shape.model.rope_dim)


@implementation("attention.decode", technique="mla", kind="reference", supports=no_fp8_row)
def decode(w: MlaWeights, shape: DecodeShape) -> Callable[[DecodeInputs], Tensor]:
    """One step of decoding: cache the new latents, expand all cached ones to keys and values, attend."""
    rotary, scale = Rotary.of(shape, shape.model.rope_dim, w.w_kr_RD), mla_scale(shape)
    steps_T = torch.arange(shape.new_tokens, device=w.w_kr_RD.device)
    eps = shape.model.norm_eps

    def call(inputs: DecodeInputs) -> Tensor:
        positions_BT = inputs.lengths_B[:, None] + steps_T
        q_BTHN, q_BTHR = queries(w, inputs.x_BTD, positions_BT, rotary, eps)
        inputs.cache.write(*latents(w, inputs.x_BTD, positions_BT, rotary, eps), positions_BT)
        c_BSC, r_BSR = inputs.cache.read(q_BTHN.dtype)

        k_BSHN = project(c_BSC, w.w_uk_HNC)
        scores_BHTS = torch.einsum("bthn,bshn->bhts", q_BTHN, k_BSHN) + torch.einsum("bthr,bsr->bhts", q_BTHR, r_BSR)
        weights_BHTS = softmax(scores_BHTS, visible_slots(positions_BT, c_BSC.shape[1])[:, None], scale)
        v_BSHV = project(c_BSC, w.w_uv_HVC)
        return unproject(torch.einsum("bhts,bshv->bthv", weights_BHTS, v_BSHV), w.wo_DHV)

    return call


def _forward(shape: SequenceShape, like: Tensor) -> Callable[[MlaWeights, Tensor], Tensor]:
    """The layer over whole sequences."""
    model: AttentionShape = shape.model
    rotary, scale = Rotary.of(shape, model.rope_dim, like), mla_scale(shape)
    positions_T = torch.arange(shape.length, device=like.device)

    def forward(w: MlaWeights, x_BTD: Tensor) -> Tensor:
        q_BTHE = torch.cat(queries(w, x_BTD, positions_T, rotary, model.norm_eps), -1)
        c_BTC, r_BTR = latents(w, x_BTD, positions_T, rotary, model.norm_eps)
        shared_BTHR = r_BTR.unsqueeze(2).expand(-1, -1, model.heads, -1)
        k_BTHE = torch.cat((project(c_BTC, w.w_uk_HNC), shared_BTHR), -1)
        o_BTHV = attend_causal(q_BTHE, k_BTHE, project(c_BTC, w.w_uv_HVC), scale)
        return unproject(o_BTHV, w.wo_DHV)

    return forward


@implementation("attention.prefill", technique="mla", kind="reference")
def prefill(w: MlaWeights, shape: SequenceShape) -> Callable[[SequenceInputs], Tensor]:
    """Whole sequences, causal, expanded to heads of 192 and 128."""
    forward = _forward(shape, w.w_kr_RD)
    return lambda inputs: forward(w, inputs.x_BTD)


@implementation("attention.train", technique="mla", kind="reference")
def train(w: MlaWeights, shape: SequenceShape) -> Callable[[TrainInputs], TrainResult]:
    """Whole sequences, causal, and the gradients by autograd."""
    return trained_layer(_forward(shape, w.w_kr_RD), w)
