"""PyTorch's fused attention, `scaled_dot_product_attention`, by default dispatch and by backend.

What each backend refuses is said before it runs, so that a contender is listed as unavailable with the reason; nothing
is padded to make it fit except where its name's docstring says so.
Shape suffixes: B batch, T queries, S keys, H heads, G key-value heads, R = H/G, M = T x R rows, E query and key size,
V value size.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from .plain import visible_slots
from .shape import DecodeShape, SequenceShape

HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Backend:
    """A way to call it: contender name, what the machine must have, and PyTorch's backend (None: its own choice)."""

    name: str
    needs: tuple[str, ...]
    choice: SDPBackend | None

    def chosen(self) -> contextlib.AbstractContextManager[None]:
        """The context in which calls go to this backend and no other."""
        return contextlib.nullcontext() if self.choice is None else sdpa_kernel(self.choice)

    def refusal(self, shape: DecodeShape | SequenceShape) -> str | None:
        """Why this backend cannot run `shape`, or None."""
        if self.choice is None:
            return None
        if self.choice is not SDPBackend.EFFICIENT_ATTENTION and shape.model.dtype not in HALF:
            return f"{self.name} computes in bfloat16 and float16 only"
        if isinstance(shape, DecodeShape) and shape.ragged:
            return f"{self.name} takes no length per sequence"
        return None


DEFAULT = Backend("sdpa", (), None)
FLASH = Backend("sdpa-flash", ("cuda",), SDPBackend.FLASH_ATTENTION)
CUDNN = Backend("sdpa-cudnn", ("cuda",), SDPBackend.CUDNN_ATTENTION)
EFFICIENT = Backend("sdpa-efficient", ("cuda",), SDPBackend.EFFICIENT_ATTENTION)
BACKENDS = (DEFAULT, FLASH, CUDNN, EFFICIENT)


def best_for_latent_heads(like: Tensor) -> Backend:
    """The fastest for heads of 192 and 128 where `like` is: cuDNN on Hopper and newer, else PyTorch's own choice."""
    hopper = like.is_cuda and torch.cuda.get_device_capability(like.device) >= (9, 0)
    return CUDNN if hopper and like.dtype in (torch.bfloat16, torch.float16) else DEFAULT


def attend_causal(backend: Backend, q_BTHE: Tensor, k_BTGE: Tensor, v_BTGV: Tensor, scale: float) -> Tensor:
    """Whole sequences, causal, [B, T, H, V]. Heads stay where the projections put them; no tensor is copied."""
    q_BHTE, k_BGTE, v_BGTV = (t.transpose(1, 2) for t in (q_BTHE, k_BTGE, v_BTGV))
    grouped = q_BHTE.shape[1] != k_BGTE.shape[1]
    with backend.chosen():
        o_BHTV = F.scaled_dot_product_attention(q_BHTE, k_BGTE, v_BGTV, is_causal=True, scale=scale, enable_gqa=grouped)
    return o_BHTV.transpose(1, 2)


def attend_cached(
    backend: Backend, q_BTHE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor, last_BT: Tensor | None, scale: float
) -> Tensor:
    """New tokens over a cache, [B, T, H, E], each key read for all heads of its group at once.

    `last` is the slot of each new token, masked with; None where the new tokens fill the last slots of every sequence.
    PyTorch's own grouping repeats keys where there are several new tokens, so a group's queries become the rows of one
    product here. Several new tokens need a mask then, and are called one by one where that is faster (a single
    key-value head) or the backend takes no mask (flash).
    """
    groups, count = k_BGSE.shape[1:3]
    tokens, heads = q_BTHE.shape[1:3]
    if last_BT is None and tokens > 1 and groups == heads:
        q_BHTE, mask = q_BTHE.transpose(1, 2), causal_lower_right(tokens, count)
        return _fused(backend, q_BHTE, k_BGSE, v_BGSE, mask, scale).transpose(1, 2)
    if last_BT is None and tokens > 1 and (groups == 1 or backend is FLASH):
        ends = range(count - tokens + 1, count + 1)
        caches = ((k_BGSE[:, :, :end], v_BGSE[:, :, :end]) for end in ends)
        queries = q_BTHE.split(1, 1)
        return torch.cat(
            [attend_cached(backend, q, *kv, None, scale) for q, kv in zip(queries, caches, strict=True)], 1
        )
    visible_BTS = None
    if last_BT is not None:
        visible_BTS = visible_slots(last_BT, count)
    elif tokens > 1:
        visible_BTS = visible_slots(torch.arange(count - tokens, count, device=q_BTHE.device)[None], count)
    q_BGTRE = q_BTHE.unflatten(2, (groups, -1)).transpose(1, 2)
    mask = None if visible_BTS is None else visible_BTS.repeat_interleave(heads // groups, 1)[:, None]
    o_BGME = _fused(backend, q_BGTRE.flatten(2, 3), k_BGSE, v_BGSE, mask, scale)
    return o_BGME.unflatten(2, (tokens, -1)).transpose(1, 2).flatten(2, 3)


def _fused(
    backend: Backend, q_BGME: Tensor, k_BGSE: Tensor, v_BGSE: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Rows of queries over a head's keys, [B, G, M, E], on one backend."""
    with backend.chosen():
        return F.scaled_dot_product_attention(q_BGME, k_BGSE, v_BGSE, attn_mask=mask, scale=scale)
