"""What training does about uneven experts: a choice of losses, of the bias and of dropping, for every mixture alike.

Losses are those of `ffn/balance.py`, a mean over the batch's sequences, added up over the layers. Under a sigmoid
router the V2 losses get scores over their sum, so that they keep their scale: alpha at perfect balance.
Shape suffixes: S sequences, T tokens, M = S x T, E experts, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ffn.balance import (
    bias_step,
    communication_loss,
    device_loss,
    exempt_sequences,
    expert_loads,
    expert_loss,
    kept,
    max_violation,
    normalised,
    sequence_loss,
)
from ..ffn.shape import Router
from .corpus import generator
from .layers import Keep, Mixture, Routed


@dataclass(frozen=True)
class Balancing:
    """Weights of the losses and speed of the bias; 0 leaves one out.

    expert, device, communication  DeepSeek-V2's alpha 1, 2 and 3 (there 0.003, 0.05 and 0.02; V2-Lite 0.001 and none;
                                   DeepSeekMoE 2B 0.01)
    sequence                       DeepSeek-V3's alpha (there 0.0001)
    bias_speed                     u (V3 and arXiv 2408.15664: 0.001, over some 10,000 steps)
    capacity                       DeepSeek-V2's token dropping in training (§2.2.4): the most pairs a device computes,
                                   over the average (there 1.0); 0 drops nothing
    exempt                         share of a batch's sequences of which nothing is dropped (there about 0.1)
    A router's groups are the devices, its best groups the devices a token may use.
    """

    expert: float = 0.0
    device: float = 0.0
    communication: float = 0.0
    sequence: float = 0.0
    bias_speed: float = 0.0
    capacity: float = 0.0
    exempt: float = 0.1

    def loss(self, routed: Sequence[Routed], rule: Router, sequences: int) -> Tensor | None:
        """What is added to the language loss, a scalar; None where no loss is asked for or nothing was routed."""
        parts = [part for one in routed for part in self._parts(one, rule, sequences)]
        return torch.stack(parts).sum() if parts else None

    def _parts(self, routed: Routed, rule: Router, sequences: int) -> list[Tensor]:
        s_STE = routed.s_ME.unflatten(0, (sequences, -1))
        experts_STK = routed.experts_MK.unflatten(0, (sequences, -1))
        p_STE = normalised(s_STE) if rule.score == "sigmoid" else s_STE
        parts = []
        if self.expert:
            parts.append(expert_loss(p_STE, experts_STK, self.expert))
        if self.device:
            parts.append(device_loss(p_STE, experts_STK, rule.groups, self.device))
        if self.communication:
            parts.append(communication_loss(p_STE, experts_STK, rule.groups, rule.top_groups, self.communication))
        if self.sequence:
            parts.append(sequence_loss(s_STE, rule.top_k, self.sequence))
        return parts

    def keep(self, rule: Router, sequences: int, seed: int, step: int) -> Keep | None:
        """Which pairs a step computes, None for all; the exempt sequences follow from seed and step alone.

        Step 0 computes all, so that the first batch has the same loss whatever the balancing.
        """
        if not self.capacity or not step:
            return None
        exempt_S = exempt_sequences(sequences, self.exempt, generator(seed, step, "exempt"))

        def chosen(affinity_MK: Tensor, experts_MK: Tensor) -> Tensor:
            exempt_M = exempt_S.to(experts_MK.device).repeat_interleave(len(experts_MK) // sequences)
            return kept(affinity_MK, experts_MK, rule.experts, rule.groups, exempt_M, self.capacity)

        return chosen

    def update(self, mixtures: Sequence[Mixture], loads_LE: Tensor) -> None:
        """Move every mixture's bias by the loads of the batch just trained on.

        Raises ValueError where a bias is asked for and the router has none.
        """
        if not self.bias_speed:
            return
        for mixture, loads_E in zip(mixtures, loads_LE, strict=True):
            if mixture.bias_E is None:
                raise ValueError(f"layer {mixture.layer}: bias_speed is set, but a softmax router has no bias")
            bias_step(mixture.bias_E, loads_E.to(mixture.bias_E.device), self.bias_speed)


def loads(routed: Sequence[Routed]) -> Tensor:
    """Tokens of each expert in each mixture, int64 [L, E]; [0, 0] where there are none."""
    if not routed:
        return torch.zeros(0, 0, dtype=torch.int64)
    return torch.stack([expert_loads(one.experts_MK, one.s_ME.shape[1]) for one in routed])


def dropped(routed: Sequence[Routed]) -> float:
    """Share of the pairs of token and chosen expert that were not computed, mean over the layers."""
    left_out = [0.0 if one.kept_MK is None else 1 - one.kept_MK.float().mean().item() for one in routed]
    return sum(left_out) / max(1, len(left_out))


def violation(loads_LE: Tensor) -> float:
    """MaxVio averaged over the layers, as arXiv 2408.15664 reports it."""
    return sum(max_violation(loads_E.double()) for loads_E in loads_LE) / max(1, len(loads_LE))
