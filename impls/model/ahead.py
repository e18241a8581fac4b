"""What predicts the symbols after the next one: DeepSeek-V3's MTP modules, one after another, or parallel heads.

A module of depth k (DeepSeek-V3 report, arXiv 2412.19437, §2.2, eqs 21-23), k = 1..K:

    h'_i = M_k [RMSNorm(h^{k-1}_i); RMSNorm(Emb(t_{i+k}))]     h^k = TRM_k(h')     P(t_{i+k+1}) = softmax(Head(h^k_i))

Emb and Head are the model's own, h^0 is its residual stream. The report does not say whether h^0 is taken before or
after the last norm: here it is before, for the module has a norm of its own; and each module has its own norm before
the shared head, as the released weights do. M_k is not in FP8, as in the released weights. The complete chain of causes
is kept: t_{i+k} is known when t_{i+k+1} is predicted, so a module is a drafter that knows what was drafted before.
Parallel heads (Gloeckle et al., arXiv 2404.19737): the model's last block is the head for the next symbol, and each of
K more blocks, fed what the last one is fed, is the head for one further symbol; they know nothing of each other. Wins
by K forwards that wait for none; loses acceptance, for the second symbol is guessed without the first.
Shape suffixes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Block
from .layers import Keep, Norm, Routed
from .shape import ModelShape


class MtpModule(nn.Module):
    """One MTP module, without the embedding and the head it shares with the model."""

    def __init__(self, shape: ModelShape, depth: int, form: str, product: str, generator: torch.Generator) -> None:
        super().__init__()
        eps, hidden = shape.attention.norm_eps, shape.hidden
        self.hidden_norm, self.embedding_norm = Norm(hidden, eps), Norm(hidden, eps)
        joined = torch.randn(hidden, 2 * hidden, generator=generator) * (2 * hidden) ** -0.5
        self.join = nn.Parameter(joined)  # [D, 2 D]: first D columns for the hidden state
        self.block = Block(shape, shape.layers + depth - 1, form, product, generator)
        self.norm = Norm(hidden, eps)

    def joined(self, h_BTD: Tensor, e_BTD: Tensor) -> Tensor:
        """h' [B, T, D] of the hidden states one depth before and the embeddings of the symbols k further on."""
        both = torch.cat((self.hidden_norm(h_BTD), self.embedding_norm(e_BTD)), -1)
        return F.linear(both, self.join.to(both.dtype))

    def forward(self, h_BTD: Tensor, e_BTD: Tensor, keep: Keep | None = None) -> tuple[Tensor, Routed | None]:
        """h^k [B, T, D], and what the router did."""
        return self.block(self.joined(h_BTD, e_BTD), keep)


class ParallelHead(nn.Module):
    """One parallel head without the unembedding it shares: a block and a norm."""

    def __init__(self, shape: ModelShape, depth: int, form: str, product: str, generator: torch.Generator) -> None:
        super().__init__()
        self.block = Block(shape, shape.layers + depth - 1, form, product, generator)
        self.norm = Norm(shape.hidden, shape.attention.norm_eps)

    def forward(self, x_BTD: Tensor, keep: Keep | None = None) -> tuple[Tensor, Routed | None]:
        """Its own residual stream [B, T, D] of what the model's last block is given, and what the router did."""
        return self.block(x_BTD, keep)


def drawn(shape: ModelShape, form: str, product: str, generator: torch.Generator) -> nn.ModuleList:
    """The shape's modules or heads, depth 1 first; none for "ntp"."""
    kind = MtpModule if shape.objective == "mtp" else ParallelHead
    return nn.ModuleList(kind(shape, depth, form, product, generator) for depth in range(1, shape.ahead + 1))
