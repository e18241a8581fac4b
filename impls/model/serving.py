"""The model with caches: new symbols of every sequence at positions of their own, attending to what the cache holds.

Keys and values are kept as the attention study's fastest plain-PyTorch decoders keep them, heads first, and MLA's
latent with its rotated key in rows; MLA attends in the latent, with absorbed weights, for one new symbol and for a
whole prompt alike. Caches are taken once, for all slots there will be, and a slot past a sequence's length may hold
anything: it is written before it is read, so going back to a shorter length costs nothing. Wins over computing whole
sequences anew as soon as there is a context. Loses with long prompts, which the absorbed form and a mask over all slots
make dearer than a causal kernel would; and every step pays for all slots, however few are filled.
Shape suffixes: B sequences, T new symbols, S slots, D hidden, H heads, G key-value heads, E head size, C latent,
K latent and rotated key, N nope, R rope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.mla_absorbed import JoinedCache, attend_latent, per_head
from ..attention.plain import unproject
from ..attention.reference_mla import latents, mla_scale, queries
from ..attention.rope import Rotary, softmax_scale
from ..attention.sdpa import DEFAULT, attend_cached
from ..attention.sdpa_mha import HeadsFirstCache, queries_keys_values
from ..attention.shape import SequenceShape
from ..attention.weights import MhaWeights, MlaWeights, kv_heads
from .blocks import Block
from .decoder import Decoder
from .layers import Attention
from .shape import ModelShape

PIECE = 256
Step = Callable[[Tensor, Tensor], Tensor]  # x [B, T, D], positions [B, T] -> [B, T, D]


@dataclass(frozen=True)
class Cached:
    """Attention over a cache of its own; the cache's tensors have sequences first and slots last but one."""

    attend: Step
    tensors: tuple[Tensor, ...]


class Server:
    """A model with empty caches for `batch` sequences of up to `slots` symbols, on the model's device.

    The model's weights must not change while it serves. `blocks` are those of the model, `further` those that predict
    later symbols, each with a cache of its own.
    """

    def __init__(self, model: Decoder, batch: int, slots: int) -> None:
        self.model, self.batch, self.slots = model, batch, slots
        self.device, self.dtype = model.head_VD.device, model.shape.attention.torch_dtype
        self.caches: list[Tensor] = []
        self.blocks = [self._cached(block) for block in model.blocks]
        self.further = [self._cached(one.block) for one in model.ahead]

    def _cached(self, block: Block) -> Step:
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cached = cached_attention(block.attention, self.model.shape, self.batch, self.slots, like)
        self.caches += cached.tensors

        def step(x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
            x_BTD = x_BTD + cached.attend(block.attention_norm(x_BTD), positions_BT)
            y_BTD, _ = block.ffn(block.ffn_norm(x_BTD))
            return x_BTD + y_BTD

        return step

    def stream(self, symbols_BT: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream [B, T, D] after the last block, and before it; the caches hold the new symbols then."""
        x_BTD = before_BTD = self.model.embed(symbols_BT)
        for block in self.blocks:
            before_BTD = x_BTD
            x_BTD = block(x_BTD, positions_BT)
        return x_BTD, before_BTD

    def follow(self, other: Server) -> None:
        """Take over what another server of the same model has processed, each of its sequences as often as this one
        has room for: what follows one prompt in many ways need not process it more than once.

        Raises ValueError where the sequences of this one are not a multiple of the other's, or its slots are fewer.
        """
        if self.batch % other.batch or self.slots < other.slots:
            raise ValueError(
                f"{other.batch} sequences of {other.slots} slots do not go evenly into {self.batch} of {self.slots}"
            )
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            split = mine.unflatten(0, (other.batch, -1))
            split[..., : other.slots, :].copy_(theirs[:, None].expand_as(split[..., : other.slots, :]))


def pieces(length: int) -> list[tuple[int, int]]:
    """First position and the one after the last of the parts that a prompt is processed in, so that scores fit."""
    return [(start, min(start + PIECE, length)) for start in range(0, length, PIECE)]


def cached_attention(layer: Attention, shape: ModelShape, batch: int, slots: int, like: Tensor) -> Cached:
    """The layer over a cache of its own, in the dtype and on the device of `like`; projections by the layer's linear,
    but MLA's absorbed products, which are in the model's dtype in any case."""
    weights = layer.held.weights(like.dtype, shape.in_fp8)
    sizes = SequenceShape(shape.attention, batch, slots)
    rows_B1 = torch.arange(batch, device=like.device)[:, None]
    if isinstance(weights, MlaWeights):
        return _latent(weights, sizes, layer.linear, like)
    return _per_head(weights, sizes, kv_heads(shape.attention, shape.technique), layer.linear, rows_B1, like)


def _per_head(
    w: MhaWeights, sizes: SequenceShape, groups: int, linear: Callable[..., Tensor], rows_B1: Tensor, like: Tensor
) -> Cached:
    model = sizes.model
    rotary, scale = Rotary.of(sizes, model.head_dim, like), softmax_scale(sizes, model.head_dim)
    empty = (like.new_zeros(sizes.batch, groups, sizes.length, model.head_dim) for _ in range(2))
    cache = HeadsFirstCache(*empty)

    def attend(x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        q_BTHE, k_BTGE, v_BTGE = queries_keys_values(w, x_BTD, positions_BT, rotary, linear)
        cache.k_BGSE[rows_B1, :, positions_BT] = k_BTGE
        cache.v_BGSE[rows_B1, :, positions_BT] = v_BTGE
        o_BTHE = attend_cached(DEFAULT, q_BTHE, cache.k_BGSE, cache.v_BGSE, positions_BT, scale)
        return unproject(o_BTHE, w.wo_DHE, linear)

    return Cached(attend, (cache.k_BGSE, cache.v_BGSE))


def _latent(w: MlaWeights, sizes: SequenceShape, linear: Callable[..., Tensor], like: Tensor) -> Cached:
    model = sizes.model
    rotary, scale = Rotary.of(sizes, model.rope_dim, like), mla_scale(sizes)
    cache = JoinedCache(like.new_zeros(sizes.batch, sizes.length, model.latent + model.rope_dim))
    up_HNC, down_HCV = w.w_uk_HNC.to(like.dtype), w.w_uv_HVC.to(like.dtype).mT

    def attend(x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        q_BTHN, q_BTHR = queries(w, x_BTD, positions_BT, rotary, model.norm_eps, linear)
        cache.write(*latents(w, x_BTD, positions_BT, rotary, model.norm_eps, linear), positions_BT)
        q_BTHK = torch.cat((per_head(q_BTHN, up_HNC), q_BTHR), -1)
        o_BTHC = attend_latent(q_BTHK, cache.rows_BSK, positions_BT, model.latent, scale)
        return unproject(per_head(o_BTHC, down_HCV), w.wo_DHV, linear)

    return Cached(attend, (cache.rows_BSK,))


def capacity(prompt: int, count: int, depth: int) -> int:
    """Slots for a prompt, so many new symbols, and what is drafted beyond them."""
    return prompt + count + 2 * (depth + 1)
