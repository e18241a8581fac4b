"""Attention spelled out in plain PyTorch: the parts that the references share.

Scores are whole matrices here, so memory grows with their size: that is what the fused kernels avoid.
Shape suffixes: B batch, T queries, S keys, D hidden, H heads, G key-value heads, R = H/G heads a group, E query and
key size, V value size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .rope import precise

BLOCK = 512
Linear = Callable[[Tensor, Tensor], Tensor]
"""x [..., K] and a weight [N, K] to x w^T [..., N]."""


def project(x_BTD: Tensor, w_HED: Tensor, linear: Linear = F.linear) -> Tensor:
    """A projection into heads: [B, T, D] and [H, E, D] to [B, T, H, E]."""
    return linear(x_BTD, w_HED.flatten(0, 1)).unflatten(-1, w_HED.shape[:2])


def unproject(o_BTHV: Tensor, wo_DHV: Tensor, linear: Linear = F.linear) -> Tensor:
    """The output projection: [B, T, H, V] and [D, H, V] to [B, T, D]."""
    return linear(o_BTHV.flatten(2), wo_DHV.flatten(1))


def rms_norm(x_BTC: Tensor, weight_C: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) x weight, computed in float32 or float64."""
    x = x_BTC.to(precise(x_BTC.dtype))
    return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight_C).to(x_BTC.dtype)


def softmax(scores: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Softmax of the scaled visible scores over the last axis, computed in float32 or float64."""
    scaled = scores.to(precise(scores.dtype)) * scale
    return scaled.masked_fill(~visible, -torch.inf).softmax(-1).to(scores.dtype)


def visible_slots(last_BT: Tensor, count: int) -> Tensor:
    """[B, T, S]: the slots up to and including each query's own, which is at `last`."""
    return torch.arange(count, device=last_BT.device) <= last_BT[..., None]


def attend(q_BTHE: Tensor, k_BSGE: Tensor, v_BSGV: Tensor, visible_BTS: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v over the visible keys, [B, T, H, V]; the heads of a group share keys and values."""
    q_BTGRE = q_BTHE.unflatten(2, (k_BSGE.shape[2], -1))
    scores_BGRTS = torch.einsum("btgre,bsge->bgrts", q_BTGRE, k_BSGE)
    weights_BGRTS = softmax(scores_BGRTS, visible_BTS[:, None, None], scale)
    return torch.einsum("bgrts,bsgv->btgrv", weights_BGRTS, v_BSGV).flatten(2, 3)


def attend_causal(q_BTHE: Tensor, k_BTGE: Tensor, v_BTGV: Tensor, scale: float) -> Tensor:
    """Every token attends to itself and those before it, [B, T, H, V].

    Goes over blocks of 512 queries, for a row of scores needs no other: memory for a block of rows, not the square.
    """
    positions_T = torch.arange(q_BTHE.shape[1], device=q_BTHE.device)
    blocks = []
    for start in range(0, q_BTHE.shape[1], BLOCK):
        stop = min(start + BLOCK, q_BTHE.shape[1])
        visible_1TS = visible_slots(positions_T[None, start:stop], stop)
        blocks.append(attend(q_BTHE[:, start:stop], k_BTGE[:, :stop], v_BTGV[:, :stop], visible_1TS, scale))
    return torch.cat(blocks, 1)
