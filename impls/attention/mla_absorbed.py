"""MLA decode with absorbed weights in batched products: attend in the 512 + 64 latent, never expand keys or values.

Latent and rotated key of a slot lie side by side, 576 numbers a row, so that scores are one product and every head of a
sequence is a row of it. Wins over MHA and over the plain form when the cache's bytes bind (long context, many heads).
Loses to a fused kernel: scores go through memory, and an FP8 cache is dequantized to memory before it is read.
Shape suffixes: B batch, T tokens, S slots, D hidden, H heads, C latent, R rope, K = C + R, N nope, V value, E = N + R.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from .cache import Fp8LatentCache, LatentCache, no_fp8_row, slots
from .inputs import DecodeInputs, DecodeKernelInputs
from .mla_fused import split_down, stack_down
from .plain import project, unproject, visible_slots
from .reference_mla import mla_scale
from .rope import Rotary
from .shape import DecodeShape
from .weights import MlaWeights


@dataclass(frozen=True)
class JoinedCache:
    """Latents and rotated keys in one tensor."""

    rows_BSK: Tensor

    def write(self, c_BTC: Tensor, r_BTR: Tensor, positions_BT: Tensor) -> None:
        """Put the new tokens' latents and keys into their slots."""
        self.rows_BSK[slots(positions_BT)] = torch.cat((c_BTC, r_BTR), -1)


def _joined(cache: JoinedCache | Fp8LatentCache, dtype: torch.dtype) -> Tensor:
    """[B, S, K]: the native cache itself, the FP8 one dequantized."""
    return cache.rows_BSK if isinstance(cache, JoinedCache) else torch.cat(cache.read(dtype), -1)


def attend_latent(q_BTHK: Tensor, rows_BSK: Tensor, last_BT: Tensor | None, latent: int, scale: float) -> Tensor:
    """Σ_j a_j c_j of every head, [B, T, H, C], in two products, masking where asked, and one softmax.

    `last` is the slot of each new token; None where all slots are visible to all queries.
    """
    batch, tokens, heads, _ = q_BTHK.shape
    unused = q_BTHK.new_zeros(())
    scores_BMS = torch.baddbmm(unused, q_BTHK.flatten(1, 2), rows_BSK.mT, beta=0, alpha=scale)
    if last_BT is not None:
        hidden_BT1S = ~visible_slots(last_BT, rows_BSK.shape[1])[:, :, None]
        scores_BMS.view(batch, tokens, heads, -1).masked_fill_(hidden_BT1S, -torch.inf)
    return torch.bmm(scores_BMS.softmax(-1), rows_BSK[..., :latent]).view(batch, tokens, heads, latent)


def _prepared(call: Callable[[DecodeInputs | DecodeKernelInputs], Tensor], shape: DecodeShape) -> Prepared:
    """`call` on a native cache joined into rows of 576; FP8 rows are used as they are."""
    if shape.cache != "native":
        return Prepared(call)

    def pack(inputs: DecodeInputs | DecodeKernelInputs) -> DecodeInputs | DecodeKernelInputs:
        return replace(inputs, cache=JoinedCache(torch.cat((inputs.cache.c_BSC, inputs.cache.r_BSR), -1)))

    def unpack(packed: DecodeInputs | DecodeKernelInputs) -> DecodeInputs | DecodeKernelInputs:
        parts = packed.cache.rows_BSK.split((shape.model.latent, shape.model.rope_dim), -1)
        return replace(packed, cache=LatentCache(*parts))

    return Prepared(call, pack, unpack, "latent and rotated key in one row")


Attend = Callable[[Tensor, Any, Tensor], Tensor]


def absorbed_layer(w: MlaWeights, shape: DecodeShape, attend: Attend) -> Callable[[DecodeInputs], Tensor]:
    """One step of decoding around `attend`: (absorbed queries [B, T, H, K], cache that has the new tokens, their slots
    [B, T]) to latent outputs [B, T, H, C]."""
    model = shape.model
    rotary, down_AD = Rotary.of(shape, model.rope_dim, w.w_kr_RD), stack_down(w)
    steps_T = torch.arange(shape.new_tokens, device=down_AD.device)

    def call(inputs: DecodeInputs) -> Tensor:
        positions_BT = inputs.lengths_B[:, None] + steps_T
        q_BTQ, c_BTC, r_BTR = split_down(F.linear(inputs.x_BTD, down_AD), model)
        if w.w_dq_QD is None:
            q_BTHE = q_BTQ.unflatten(-1, (model.heads, -1))
        else:
            q_BTHE = project(F.rms_norm(q_BTQ, q_BTQ.shape[-1:], w.q_norm_Q, model.norm_eps), w.w_uq_HEQ)
        c_BTC = F.rms_norm(c_BTC, c_BTC.shape[-1:], w.kv_norm_C, model.norm_eps)
        r_BTR = rotary.rotate_complex(r_BTR.unsqueeze(2), positions_BT).squeeze(2)
        inputs.cache.write(c_BTC, r_BTR, positions_BT)

        q_BTHN, q_BTHR = q_BTHE.split((model.nope_dim, model.rope_dim), -1)
        q_BTHC = per_head(q_BTHN, w.w_uk_HNC)
        q_BTHK = torch.cat((q_BTHC, rotary.rotate_complex(q_BTHR, positions_BT)), -1)
        return unproject(per_head(attend(q_BTHK, inputs.cache, positions_BT), w.w_uv_HVC.mT), w.wo_DHV)

    return call


@implementation("attention.decode", technique="mla", kind="optimized", name="absorbed", supports=no_fp8_row)
def decode(w: MlaWeights, shape: DecodeShape) -> Prepared:
    """One step of decoding."""
    all_visible = shape.new_tokens == 1 and not shape.ragged
    scale = mla_scale(shape)

    def attend(q_BTHK: Tensor, cache: JoinedCache | Fp8LatentCache, positions_BT: Tensor) -> Tensor:
        last_BT = None if all_visible else positions_BT
        return attend_latent(q_BTHK, _joined(cache, q_BTHK.dtype), last_BT, shape.model.latent, scale)

    return _prepared(absorbed_layer(w, shape, attend), shape)


def per_head(x_BTHX: Tensor, w_HXY: Tensor) -> Tensor:
    """Each head's own matrix, [B, T, H, X] and [H, X, Y] to [B, T, H, Y], as one batched product without copies."""
    batch, tokens = x_BTHX.shape[:2]
    product_HMY = torch.bmm(x_BTHX.flatten(0, 1).transpose(0, 1), w_HXY)
    return product_HMY.transpose(0, 1).unflatten(0, (batch, tokens))


@implementation("attention.decode_kernel", technique="mla", kind="optimized", name="absorbed", supports=no_fp8_row)
def decode_kernel(w: None, shape: DecodeShape) -> Prepared:
    """Absorbed queries over a cache that has the new tokens already."""
    all_visible = shape.new_tokens == 1 and not shape.ragged
    scale = mla_scale(shape)

    def call(inputs: DecodeKernelInputs) -> Tensor:
        steps_T = torch.arange(-shape.new_tokens, 0, device=inputs.lengths_B.device)
        last_BT = None if all_visible else inputs.lengths_B[:, None] + steps_T
        rows_BSK = _joined(inputs.cache, inputs.q_BTHE.dtype)
        return attend_latent(inputs.q_BTHE, rows_BSK, last_BT, shape.model.latent, scale)

    return _prepared(call, shape)
