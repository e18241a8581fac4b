"""A language model over bytes: pre-norm blocks of attention and feed-forward, a last norm, an untied head.

    x <- x + Attn(RMSNorm(x))        x <- x + FFN(RMSNorm(x))        logits = W_head RMSNorm(x)

Positions enter through RoPE alone; what predicts symbols after the next one is in `ahead.py`. Small enough to train in
minutes on two CPU cores, which is what it is for: it shows the direction of an idea, not its size at scale.
Shape suffixes: B sequences, T tokens, D hidden, V symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ahead import drawn
from .blocks import Block
from .layers import FP8_MIXTURE, MIXTURES, Keep, Mixture, Norm, Routed
from .shape import ModelShape


@dataclass(frozen=True)
class Output:
    """Logits in FP32 or wider, [B, T, V], and what each mixture's router did, front to back.

    `ahead` has the logits of each depth k = 1, 2, ..., [B, T - k, V]: position i predicts symbol i + k + 1.
    """

    logits_BTV: Tensor
    routed: tuple[Routed, ...]
    ahead: tuple[Tensor, ...] = ()


class Decoder(nn.Module):
    """The model, drawn from `seed` alone.

    `form` names the mixture's implementation, one of `layers.MIXTURES`; the default suits the axis `linear`. `product`
    says who multiplies in FP8, one of `linear.PRODUCTS`. Raises ValueError for an unknown one, and for a mixture that
    has no FP8 products.
    """

    def __init__(self, shape: ModelShape, seed: int = 0, form: str | None = None, product: str = "reference") -> None:
        super().__init__()
        form = form or (FP8_MIXTURE if shape.in_fp8 else "sorted")
        if form not in MIXTURES:
            raise ValueError(f"mixture {form!r} is none of {', '.join(MIXTURES)}")
        generator = torch.Generator().manual_seed(seed)
        self.shape, self.form = shape, form
        self.embedding_VD = nn.Parameter(torch.randn(shape.symbols, shape.hidden, generator=generator))
        self.blocks = nn.ModuleList(Block(shape, layer, form, product, generator) for layer in range(shape.layers))
        self.norm = Norm(shape.hidden, shape.attention.norm_eps)
        head_VD = torch.randn(shape.symbols, shape.hidden, generator=generator)
        self.head_VD = nn.Parameter(head_VD * shape.hidden**-0.5)
        self.ahead = drawn(shape, form, product, generator)  # last: the rest is the same without it

    @property
    def mixtures(self) -> tuple[Mixture, ...]:
        """The blocks' mixtures, front to back, then those of what predicts further symbols."""
        blocks = [*self.blocks, *(one.block for one in self.ahead)]
        return tuple(block.ffn for block in blocks if isinstance(block.ffn, Mixture))

    def embed(self, symbols_BT: Tensor) -> Tensor:
        """Embeddings [B, T, D] in the dtype computed in."""
        return F.embedding(symbols_BT, self.embedding_VD).to(self.shape.attention.torch_dtype)

    def hidden(self, symbols_BT: Tensor, keep: Keep | None = None) -> tuple[Tensor, tuple[Routed, ...]]:
        """The residual stream after the last block [B, T, D], before the last norm, and what the routers did."""
        x_BTD, _, routed = self._stream(symbols_BT, keep)
        return x_BTD, routed

    def _stream(self, symbols_BT: Tensor, keep: Keep | None) -> tuple[Tensor, Tensor, tuple[Routed, ...]]:
        """The residual stream after the last block and before it, and what the routers did."""
        x_BTD = before_BTD = self.embed(symbols_BT)
        found: list[Routed] = []
        for block in self.blocks:
            before_BTD = x_BTD
            x_BTD, routed = block(x_BTD, keep)
            found += [] if routed is None else [routed]
        return x_BTD, before_BTD, tuple(found)

    def head(self, x_BTD: Tensor, norm: Norm | None = None) -> Tensor:
        """Logits [B, T, V] in FP32 or wider of the residual stream; a module has a norm of its own."""
        logits_BTV = F.linear((norm or self.norm)(x_BTD), self.head_VD.to(x_BTD.dtype))
        return logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))

    def streams(self, symbols_BT: Tensor, keep: Keep | None = None) -> tuple[list[Tensor], tuple[Routed, ...]]:
        """The residual stream [B, T, D], then those of each depth k, [B, T - k, D], and what all routers did."""
        x_BTD, before_BTD, routed = self._stream(symbols_BT, keep)
        found, its = [x_BTD], list(routed)
        for depth, one in enumerate(self.ahead, 1):
            if self.shape.objective == "mtp":
                x_BTD, more = one(found[-1][:, :-1], self.embed(symbols_BT[:, depth:]), keep)
            else:
                x_BTD, more = one(before_BTD[:, :-depth], keep)
            found.append(x_BTD)
            its += [] if more is None else [more]
        return found, tuple(its)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norm before the head of each stream."""
        return (self.norm, *(one.norm for one in self.ahead))

    def forward(self, symbols_BT: Tensor, keep: Keep | None = None, further: bool = False) -> Output:
        """Logits of the next symbol at every position; symbols int64 [B, T]; with `further` those of later ones too.

        `keep` says in each mixture which pairs of token and chosen expert are computed; None: all.
        """
        if not further:
            x_BTD, _, routed = self._stream(symbols_BT, keep)
            return Output(self.head(x_BTD), routed)
        streams, routed = self.streams(symbols_BT, keep)
        logits_BTV, *ahead = (self.head(x_BTD, norm) for x_BTD, norm in zip(streams, self.norms, strict=True))
        return Output(logits_BTV, routed, tuple(ahead))
