"""Choice of experts by PyTorch's top-k, unsorted, among the experts of a token's best groups alone.

What one gets without writing a kernel. Wins over the reference where groups are limited: the others are not masked,
they are not there, so the second top-k reads half as much or less. Loses to one fused kernel by launches, which are all
there is to pay for up to a thousand tokens.
Shape suffixes: M tokens, E experts, K chosen, T best groups, N experts of a group.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness import implementation

from .inputs import SelectInputs
from .routing import Routing, scored
from .shape import Router, TokenShape
from .weights import ChoiceWeights


def experts(biased_ME: Tensor, rule: Router) -> Tensor:
    """The chosen experts, int64 [M, K], in any order."""
    if rule.top_groups == rule.groups:
        return biased_ME.topk(rule.top_k, -1, sorted=False).indices
    biased_MGN = biased_ME.unflatten(1, (rule.groups, -1))
    size = biased_MGN.shape[-1]
    best = min(size, 2 if rule.biased else 1)
    rank_MG = biased_MGN.topk(best, -1, sorted=False).values.sum(-1) if best > 1 else biased_MGN.amax(-1)
    group_MT = rank_MG.topk(rule.top_groups, -1, sorted=False).indices
    open_MTN = biased_MGN.gather(1, group_MT[..., None].expand(-1, -1, size))
    place_MK = open_MTN.flatten(1).topk(rule.top_k, -1, sorted=False).indices
    return group_MT.gather(1, place_MK // size) * size + place_MK % size


def select(logits_ME: Tensor, bias_E: Tensor | None, rule: Router) -> Routing:
    """Gates and experts of given logits."""
    s_ME = scored(logits_ME, rule)
    experts_MK = experts(s_ME if bias_E is None else s_ME + bias_E, rule)
    gates_MK = s_ME.gather(1, experts_MK)
    if rule.normalise:
        return Routing(gates_MK * (rule.scale / (gates_MK.sum(-1, keepdim=True) + 1e-20)), experts_MK)
    return Routing(gates_MK if rule.scale == 1 else gates_MK * rule.scale, experts_MK)


@implementation("ffn.select", technique="moe", kind="library", name="topk")
def topk(w: ChoiceWeights, shape: TokenShape) -> Callable[[SelectInputs], Routing]:
    """Top-k of groups, then of their experts."""
    return lambda inputs: select(inputs.logits_ME, w.bias_E, w.rule)
