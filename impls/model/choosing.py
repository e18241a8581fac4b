"""How a symbol is chosen from logits, and which drafted symbols stand: greedily, or by sampling.

Speculative sampling (Leviathan et al., arXiv 2211.17192): a symbol x drafted with probability q(x) stands with
probability min(1, p(x) / q(x)); the first that does not is replaced by one from max(0, p - q) over its sum, and where
all stand one more comes from p. What comes out is distributed as p whatever q is. Greedily a draft stands where it is
the argmax, which is the same rule with p and q of one symbol each. Of exactly equal logits the lowest symbol is the
argmax; logits that differ by less than rounding may be ordered otherwise when several symbols are computed at once, and
only there can greedy results part.
Shape suffixes: B sequences, K drafted symbols, T = K + 1, V symbols.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Chooser(Protocol):
    """What generation asks of a way to choose."""

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The next symbols, int64 [B]."""
        ...

    def draft(self, logits_BV: Tensor, depth: int) -> Tensor:
        """Drafted symbols, int64 [B], of depth 1, 2, ...; what `verify` needs of them is kept."""
        ...

    def verify(self, logits_BTV: Tensor, drafts_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols int64 [B, T] and how many drafts stand, int64 [B]: those, and the symbol after them, are right."""
        ...


class Greedy:
    """The most probable symbol."""

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The argmax."""
        return logits_BV.argmax(-1)

    def draft(self, logits_BV: Tensor, depth: int) -> Tensor:
        """The argmax."""
        return logits_BV.argmax(-1)

    def verify(self, logits_BTV: Tensor, drafts_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Drafts stand as long as they are the argmax."""
        best_BT = logits_BTV.argmax(-1)
        return best_BT, (best_BT[:, :-1] == drafts_BK).to(torch.int64).cumprod(-1).sum(-1)


class Sampled:
    """Symbols drawn from softmax(logits / temperature) by `generator`, on the logits' device."""

    def __init__(self, generator: torch.Generator, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}, expected more than 0; Greedy is the limit")
        self.generator, self.temperature = generator, temperature
        self._q: dict[int, Tensor] = {}

    def probabilities(self, logits: Tensor) -> Tensor:
        """Over the last axis."""
        return (logits / self.temperature).softmax(-1)

    def choose(self, logits_BV: Tensor) -> Tensor:
        """A symbol from p."""
        return self._drawn(self.probabilities(logits_BV))

    def draft(self, logits_BV: Tensor, depth: int) -> Tensor:
        """A symbol from q, which is kept."""
        self._q[depth] = self.probabilities(logits_BV)
        return self._drawn(self._q[depth])

    def verify(self, logits_BTV: Tensor, drafts_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Drafts that stand, then a symbol from what is left of p."""
        p_BTV, count = self.probabilities(logits_BTV), drafts_BK.shape[1]
        q_BKV = torch.stack([self._q[depth] for depth in range(1, count + 1)], 1)
        at_BK1 = drafts_BK[..., None]
        p_BK, q_BK = (x.gather(-1, at_BK1).squeeze(-1) for x in (p_BTV[:, :-1], q_BKV))
        uniform_BK = torch.rand(p_BK.shape, generator=self.generator, dtype=p_BK.dtype, device=p_BK.device)
        stands_BK = uniform_BK * q_BK < p_BK
        accepted_B = stands_BK.to(torch.int64).cumprod(-1).sum(-1)
        q_BTV = torch.cat((q_BKV, torch.zeros_like(p_BTV[:, :1])), 1)
        rows_B = torch.arange(len(accepted_B), device=accepted_B.device)
        p_BV, q_BV = p_BTV[rows_B, accepted_B], q_BTV[rows_B, accepted_B]
        left_BV = (p_BV - q_BV).clamp_min(0)
        left_BV = torch.where(left_BV.sum(-1, keepdim=True) > 0, left_BV, p_BV)  # p = q: no draft is refused then
        symbols_BT = torch.cat((drafts_BK, drafts_BK[:, :1]), 1)
        symbols_BT[rows_B, accepted_B] = self._drawn(left_BV)
        return symbols_BT, accepted_B

    def _drawn(self, weights_BV: Tensor) -> Tensor:
        return torch.multinomial(weights_BV, 1, generator=self.generator).squeeze(-1)
