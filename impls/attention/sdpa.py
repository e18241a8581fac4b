"""PyTorch's fused attention, `scaled_dot_product_attention`, by default dispatch and by backend.

What each backend refuses is said before it runs, so that a contender is listed as unavailable with the reason; nothing
is padded to make it fit except where its name's docstring says so.
Shape suffixes: B batch, T queries, S keys, H heads, G key-value heads, R = H/G, E query and key size, V value size.
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
    """New tokens over a cache, [B, T, H, E].

    `last` is the slot of each new token, masked with; None where the new tokens fill the last slots of every sequence.
    A single new token needs no causal mask, and the queries of a group become the rows of one product.
    """
    groups, count = k_BGSE.shape[1:3]
    visible_B1TS = None if last_BT is None else visible_slots(last_BT, count)[:, None]
    if q_BTHE.shape[1] == 1:
        q_BGRE = q_BTHE.squeeze(1).unflatten(1, (groups, -1))
        with backend.chosen():
            o_BGRE = F.scaled_dot_product_attention(q_BGRE, k_BGSE, v_BGSE, attn_mask=visible_B1TS, scale=scale)
        return o_BGRE.flatten(1, 2).unsqueeze(1)
    q_BHTE = q_BTHE.transpose(1, 2)
    mask = causal_lower_right(q_BHTE.shape[2], count) if visible_B1TS is None else visible_B1TS
    with backend.chosen():
        o_BHTE = F.scaled_dot_product_attention(
            q_BHTE, k_BGSE, v_BGSE, attn_mask=mask, scale=scale, enable_gqa=q_BHTE.shape[1] != groups
        )
    return o_BHTE.transpose(1, 2)
