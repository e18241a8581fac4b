"""What surrounds attention in an MLA decode step on pages: two Triton kernels where eager PyTorch takes twenty.

`settle` normalises both latents of a new token, rotates its key and stores latent and key in the token's page,
quantized where the cache is FP8; `turn` rotates the queries into their place behind the absorbed ones, which a batched
product has written there. What remains are matrix products, so a small batch takes what the weights' bytes take.

Wins over the eager layer at batch 1 and wherever launches and small copies count. Loses nothing but generality: both
kernels are made for a latent of 512 and 64 rotated values. Nothing is read back on the host.
Shape suffixes: B batch, T new tokens, M = B x T, H heads, D hidden, A = Q + C + R stacked rows, Q query latent,
C latent, R rotated, P = R / 2 pairs, K = C + R, N nope, E = N + R, V value, S positions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..triton_jit import jit, tl
from .cache import E4M3_MAX, FP8_GROUP, FP8_LATENT, FP8_ROPE, FP8_ROW, FP8_SCALES
from .inputs import DecodeInputs
from .mla_fused import split_down, stack_down
from .rope import Rotary
from .shape import DecodeShape
from .weights import MlaWeights

PAGE = 64
HEADS = 16  # that one program of `turn` rotates
TINY = torch.finfo(torch.float32).tiny

Attend = Callable[[Tensor, Any, Tensor], Tensor]


@jit
def _normalised(x_ptr, weight_ptr, size, eps, PADDED: tl.constexpr):
    """RMSNorm of one row, in FP32 and unrounded; zero beyond `size`."""
    column = tl.arange(0, PADDED)
    x = tl.load(x_ptr + column, mask=column < size, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=column < size, other=0.0).to(tl.float32)
    return x * tl.rsqrt(tl.sum(x * x, 0) / size + eps) * weight


@jit
def _turned(even, odd, cos_ptr, sin_ptr, position, P: tl.constexpr):
    """Pairs [..., P] turned by their token's angle, in FP32."""
    pair = tl.arange(0, P)
    cos = tl.load(cos_ptr + position * P + pair)
    sin = tl.load(sin_ptr + position * P + pair)
    return even * cos - odd * sin, even * sin + odd * cos


@jit(do_not_specialize=["row_stride", "table_stride", "tokens"])
def settle(
    a_ptr, q_norm_ptr, kv_norm_ptr, cos_ptr, sin_ptr, lengths_ptr, table_ptr, q_ptr, filled_ptr, values_ptr, scales_ptr,
    rope_ptr, eps, row_stride, table_stride, tokens, VALUE_STRIDE: tl.constexpr, SCALE_STRIDE: tl.constexpr,
    ROPE_STRIDE: tl.constexpr, FP8: tl.constexpr, SMALLEST: tl.constexpr, LARGEST: tl.constexpr, GROUP: tl.constexpr,
    Q: tl.constexpr, PADDED: tl.constexpr, C: tl.constexpr, P: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Programs (token, 0): latent and key of a [M, A] into the token's slot, and lengths [B] with the new tokens.
    Programs (token, 1), where there is a query latent: its norm, q [M, Q]."""
    token = tl.program_id(0)
    a_ptr += token.to(tl.int64) * row_stride
    if tl.program_id(1) == 1:
        column = tl.arange(0, PADDED)
        normalised = _normalised(a_ptr, q_norm_ptr, Q, eps, PADDED)
        tl.store(q_ptr + token.to(tl.int64) * Q + column, normalised.to(q_ptr.dtype.element_ty), mask=column < Q)
    else:
        sequence, step = token // tokens, token % tokens
        length = tl.load(lengths_ptr + sequence)
        tl.store(filled_ptr + sequence, length + tokens, mask=step == 0)
        position = length + step
        page = tl.load(table_ptr + sequence * table_stride + position // PAGE)
        slot = page.to(tl.int64) * PAGE + position % PAGE

        rounded = _normalised(a_ptr + Q, kv_norm_ptr, C, eps, C).to(a_ptr.dtype.element_ty)
        if FP8:
            groups = rounded.to(tl.float32).reshape(C // GROUP, GROUP)
            scales = tl.div_rn(tl.maximum(tl.max(tl.abs(groups), 1), SMALLEST), LARGEST)
            group = tl.arange(0, C // GROUP)
            tl.store(scales_ptr + slot * SCALE_STRIDE + group, scales)
            values = tl.div_rn(groups, tl.broadcast_to(scales[:, None], [C // GROUP, GROUP]))
            values = tl.minimum(tl.maximum(values, -LARGEST), LARGEST).to(values_ptr.dtype.element_ty)
            place = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
            tl.store(values_ptr + slot * VALUE_STRIDE + place, values)
        else:
            tl.store(values_ptr + slot * VALUE_STRIDE + tl.arange(0, C), rounded)

        pair = 2 * tl.arange(0, P)
        even = tl.load(a_ptr + Q + C + pair).to(tl.float32)
        odd = tl.load(a_ptr + Q + C + pair + 1).to(tl.float32)
        even, odd = _turned(even, odd, cos_ptr, sin_ptr, position, P)
        rope_ptr += slot * ROPE_STRIDE
        tl.store(rope_ptr + pair, even.to(a_ptr.dtype.element_ty).to(rope_ptr.dtype.element_ty))
        tl.store(rope_ptr + pair + 1, odd.to(a_ptr.dtype.element_ty).to(rope_ptr.dtype.element_ty))


@jit(do_not_specialize=["row_stride", "tokens", "heads"])
def turn(
    q_ptr, cos_ptr, sin_ptr, lengths_ptr, o_ptr, row_stride, tokens, heads,
    N: tl.constexpr, C: tl.constexpr, P: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """The last 2P of each head of q [M, H, N + 2P], turned, into the last 2P of o [M, H, C + 2P]."""
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    position = tl.load(lengths_ptr + token // tokens) + token % tokens
    pair = 2 * tl.arange(0, P)[None, :]
    inside = (head < heads)[:, None]
    source = q_ptr + token.to(tl.int64) * row_stride + head[:, None] * (N + 2 * P) + N + pair
    even = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    odd = tl.load(source + 1, mask=inside, other=0.0).to(tl.float32)
    even, odd = _turned(even, odd, cos_ptr, sin_ptr, position, P)
    target = o_ptr + (token.to(tl.int64) * heads + head[:, None]) * (C + 2 * P) + C + pair
    tl.store(target, even.to(o_ptr.dtype.element_ty), mask=inside)
    tl.store(target + 1, odd.to(o_ptr.dtype.element_ty), mask=inside)


def _slot_columns(pages: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, scales and rotated keys of all slots as views; a 16-bit cache has no scales, any tensor stands in."""
    rows = pages.view(-1, pages.shape[-1])
    if pages.dtype != torch.uint8:
        return rows[:, :FP8_LATENT], rows, rows[:, FP8_LATENT:]
    return (
        rows[:, :FP8_LATENT].view(torch.float8_e4m3fn),
        rows[:, FP8_LATENT:FP8_SCALES].view(torch.float32),
        rows[:, FP8_SCALES:FP8_ROW].view(torch.bfloat16),
    )


def settled(
    a_MA: Tensor, w: MlaWeights, rotary: Rotary, pages: Tensor, table_BN: Tensor, lengths_B: Tensor, eps: float
) -> tuple[Tensor | None, Tensor]:
    """Write the new tokens into their pages; the normalised query latents [M, Q] and the lengths with the new tokens.

    `a` is the stacked down-projection, rows contiguous; `lengths` (int32) are those before the call. Without a query
    latent the first result is None. Writing twice gives the same.
    """
    batch, (count, width) = len(lengths_B), a_MA.shape
    query = width - FP8_LATENT - FP8_ROPE
    norm = w.q_norm_Q is not None
    q_MQ = a_MA.new_empty(count, query) if norm else None
    filled_B = torch.empty_like(lengths_B)
    values, scales, rope = _slot_columns(pages)
    settle[(count, 1 + norm)](
        a_MA, w.q_norm_Q if norm else w.kv_norm_C, w.kv_norm_C, rotary.cos_SP, rotary.sin_SP, lengths_B, table_BN,
        q_MQ if norm else a_MA, filled_B, values, scales, rope, eps, a_MA.stride(0), table_BN.stride(0), count // batch,
        VALUE_STRIDE=values.stride(0), SCALE_STRIDE=scales.stride(0), ROPE_STRIDE=rope.stride(0),
        FP8=pages.dtype == torch.uint8, SMALLEST=TINY * E4M3_MAX, LARGEST=E4M3_MAX, GROUP=FP8_GROUP,
        Q=query, PADDED=1 << (query - 1).bit_length() if norm else 1, C=FP8_LATENT, P=FP8_ROPE // 2, PAGE=PAGE,
    )  # fmt: skip
    return q_MQ, filled_B


def absorbed_queries(
    q_MHE: Tensor, w_uk_HNC: Tensor, rotary: Rotary, lengths_B: Tensor, batch: int, tokens: int
) -> Tensor:
    """[B, T, H, C + R]: W^UK applied to the first N of each head, the rest rotated; two kernels, no copy."""
    count, heads, _ = q_MHE.shape
    nope, latent = w_uk_HNC.shape[1:]
    q_MHK = q_MHE.new_empty(count, heads, latent + FP8_ROPE)
    torch.bmm(q_MHE[..., :nope].transpose(0, 1), w_uk_HNC, out=q_MHK[..., :latent].transpose(0, 1))
    turn[(count, -(-heads // HEADS))](
        q_MHE, rotary.cos_SP, rotary.sin_SP, lengths_B, q_MHK, q_MHE.stride(0), tokens, heads,
        N=nope, C=latent, P=FP8_ROPE // 2, HEADS=HEADS,
    )  # fmt: skip
    return q_MHK.view(batch, tokens, heads, -1)


def paged_layer(w: MlaWeights, shape: DecodeShape, attend: Attend) -> Callable[[DecodeInputs], Tensor]:
    """One step of decoding on pages around `attend`: (absorbed queries [B, T, H, K], the paged cache that has the new
    tokens, lengths (int32) that count them) to latent outputs [B, T, H, C]."""
    model = shape.model
    rotary, down_AD = Rotary.of(shape, model.rope_dim, w.w_kr_RD), stack_down(w)

    def call(inputs: DecodeInputs) -> Tensor:
        batch, tokens, _ = inputs.x_BTD.shape
        a_MA = F.linear(inputs.x_BTD.flatten(0, 1), down_AD)
        cache, lengths_B = inputs.cache, inputs.lengths_B
        q_MQ, filled_B = settled(a_MA, w, rotary, cache.pages, cache.table_BN, lengths_B, model.norm_eps)
        q_MX = split_down(a_MA, model)[0] if q_MQ is None else F.linear(q_MQ, w.w_uq_HEQ.flatten(0, 1))
        q_MHE = q_MX.unflatten(-1, (model.heads, -1))
        q_BTHK = absorbed_queries(q_MHE, w.w_uk_HNC, rotary, lengths_B, batch, tokens)
        o_MHC = attend(q_BTHK, cache, filled_B).flatten(0, 1)
        v_MHV = o_MHC.new_empty(*o_MHC.shape[:2], model.value_dim)
        torch.bmm(o_MHC.transpose(0, 1), w.w_uv_HVC.mT, out=v_MHV.transpose(0, 1))
        return F.linear(v_MHV.flatten(1), w.wo_DHV.flatten(1)).unflatten(0, (batch, tokens))

    return call
