"""MLA decode with absorbed weights, to be read: attention on the latents themselves, as if they were one shared head.

    q^C_i · (W^UK_i c_j) = (W^UK_i^T q^C_i) · c_j        Σ_j a_ij (W^UV_i c_j) = W^UV_i (Σ_j a_ij c_j)

(DeepSeek-V2 §2.1.2 and Appendix C.) The product of W^UQ and W^UK is never formed: it would be far larger than its
factors. Wins in decode: no keys or values are ever expanded, and the cache is read once for all heads. Loses in
prefill, where a score costs 576 + 512 multiply-adds instead of 192 + 128.
Shape suffixes: B batch, T tokens, S slots, H heads, C latent, N nope, R rope, V value, K = C + R.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from .cache import no_fp8_row
from .inputs import DecodeInputs, DecodeKernelInputs
from .plain import softmax, unproject, visible_slots
from .reference_mla import latents, mla_scale, queries
from .rope import Rotary
from .shape import DecodeShape
from .weights import MlaWeights


def attend_latent(
    q_BTHC: Tensor, q_BTHR: Tensor, c_BSC: Tensor, r_BSR: Tensor, visible_BTS: Tensor, scale: float
) -> Tensor:
    """Σ_j a_j c_j of every head, [B, T, H, C]: keys are [c; r], values are c."""
    scores_BHTS = torch.einsum("bthc,bsc->bhts", q_BTHC, c_BSC) + torch.einsum("bthr,bsr->bhts", q_BTHR, r_BSR)
    weights_BHTS = softmax(scores_BHTS, visible_BTS[:, None], scale)
    return torch.einsum("bhts,bsc->bthc", weights_BHTS, c_BSC)


@implementation("attention.decode", technique="mla", kind="reference", name="reference-absorbed", supports=no_fp8_row)
def decode(w: MlaWeights, shape: DecodeShape) -> Callable[[DecodeInputs], Tensor]:
    """One step of decoding: cache the new latents, move the queries into the latent space, attend there."""
    rotary, scale = Rotary.of(shape, shape.model.rope_dim, w.w_kr_RD), mla_scale(shape)
    steps_T = torch.arange(shape.new_tokens, device=w.w_kr_RD.device)
    eps = shape.model.norm_eps

    def call(inputs: DecodeInputs) -> Tensor:
        positions_BT = inputs.lengths_B[:, None] + steps_T
        q_BTHN, q_BTHR = queries(w, inputs.x_BTD, positions_BT, rotary, eps)
        inputs.cache.write(*latents(w, inputs.x_BTD, positions_BT, rotary, eps), positions_BT)

        q_BTHC = torch.einsum("bthn,hnc->bthc", q_BTHN, w.w_uk_HNC)
        c_BSC, r_BSR = inputs.cache.read(q_BTHC.dtype)
        visible_BTS = visible_slots(positions_BT, c_BSC.shape[1])
        o_BTHC = attend_latent(q_BTHC, q_BTHR, c_BSC, r_BSR, visible_BTS, scale)
        o_BTHV = torch.einsum("bthc,hvc->bthv", o_BTHC, w.w_uv_HVC)
        return unproject(o_BTHV, w.wo_DHV)

    return call


@implementation("attention.decode_kernel", technique="mla", kind="reference", supports=no_fp8_row)
def decode_kernel(w: None, shape: DecodeShape) -> Callable[[DecodeKernelInputs], Tensor]:
    """Absorbed queries [B, T, H, C + R] over a cache that has the new tokens already, to latents [B, T, H, C]."""
    scale, latent = mla_scale(shape), shape.model.latent

    def call(inputs: DecodeKernelInputs) -> Tensor:
        q_BTHC, q_BTHR = inputs.q_BTHE[..., :latent], inputs.q_BTHE[..., latent:]
        steps_T = torch.arange(-q_BTHC.shape[1], 0, device=q_BTHC.device)
        c_BSC, r_BSR = inputs.cache.read(q_BTHC.dtype)
        visible_BTS = visible_slots(inputs.lengths_B[:, None] + steps_T, c_BSC.shape[1])
        return attend_latent(q_BTHC, q_BTHR, c_BSC, r_BSR, visible_BTS, scale)

    return call
