"""One block of the model: attention and feed-forward, pre-norm, each added to its own input.

Shape suffixes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Attention, Dense, Keep, Mixture, Norm, Routed
from .shape import ModelShape


class Block(nn.Module):
    """One attention and one feed-forward layer, each added to its own input."""

    def __init__(self, shape: ModelShape, layer: int, form: str, product: str, generator: torch.Generator) -> None:
        super().__init__()
        self.attention_norm = Norm(shape.hidden, shape.attention.norm_eps)
        self.attention = Attention(shape, generator, product)
        self.ffn_norm = Norm(shape.hidden, shape.attention.norm_eps)
        feed = shape.feed_of(layer)
        mixture = feed.startswith("moe")
        self.ffn = (
            Mixture(shape, layer, form, generator, product) if mixture else Dense(shape, feed, generator, product)
        )

    def forward(self, x_BTD: Tensor, keep: Keep | None = None) -> tuple[Tensor, Routed | None]:
        """[B, T, D] to [B, T, D], and what the router did, None in a dense block."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        y_BTD, routed = self.ffn(self.ffn_norm(x_BTD), keep)
        return x_BTD + y_BTD, routed
