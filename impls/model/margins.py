"""How far a model is from choosing otherwise: its routers another expert, its logits another symbol.

A choice that hangs on a rounding can be made either way by right implementations, and what follows differs then by
more than any rounding. So inputs on whose way a choice is closer than `LEAST` are passed over where results must agree.
In FP32 two right models differ by 3e-7 in a score and 4e-6 in a logit. With FP8 projections a rounding turns single
values of FP8 by a sixteenth and more: scores were found to differ by up to 4e-3 and logits by up to 0.04, at few
positions (models of 64 x 2 layers, drawn and trained, 768 positions each). In 16 bits no margin helps: see `watches`.
Wins: tokens and gradients of a mixture can be compared at all. Loses: near ties, which real texts have, are not seen.
Shape suffixes: B sequences, T tokens, M = B x T, E experts, G groups.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..ffn.shape import Router
from .decoder import Decoder
from .layers import Routed
from .shape import ModelShape

LEAST = {False: (1e-3, 1e-5), True: (0.05, 5e-3)}  # by `in_fp8`: of logits, of a router's scores


def watches(shape: ModelShape) -> bool:
    """Whether choices can be kept clear of roundings: not in 16 bits, where a thousandth of them is near enough."""
    return shape.attention.torch_dtype.itemsize >= 4


def of_choice(s_ME: Tensor, bias_E: Tensor | None, rule: Router) -> Tensor:
    """How far biased scores are from another choice of experts, [M]: none is made while each moves by less than half.

    The K-th best expert over the best that was not chosen, and where groups are chosen first the last group over the
    best that was not, whose scores are sums of up to two.
    """
    biased_ME = s_ME.detach() if bias_E is None else s_ME.detach() + bias_E
    found_M = torch.full_like(biased_ME[:, 0], torch.inf)
    if rule.top_groups < rule.groups:
        biased_MGE = biased_ME.unflatten(1, (rule.groups, -1))
        best = min(2 if rule.score == "sigmoid" else 1, biased_MGE.shape[-1])
        groups_MG = biased_MGE.topk(best, -1).values.sum(-1)
        values, order = groups_MG.topk(rule.top_groups + 1, -1)
        found_M = (values[:, -2] - values[:, -1]) / best
        allowed_MG = torch.zeros_like(groups_MG, dtype=torch.bool).scatter_(1, order[:, :-1], True)
        biased_ME = biased_MGE.masked_fill(~allowed_MG[..., None], -torch.inf).flatten(1)
    if rule.top_k < rule.experts:
        values = biased_ME.topk(rule.top_k + 1, -1).values
        found_M = torch.minimum(found_M, values[:, -2] - values[:, -1])
    return found_M


@contextlib.contextmanager
def watched(model: Decoder) -> Iterator[list[Tensor]]:
    """The margins [M] of every choice of experts that the model makes in this block, a tensor each forward of one."""
    found: list[Tensor] = []

    def note(mixture: Any, given: Any, returned: tuple[Tensor, Routed]) -> None:
        found.append(of_choice(returned[1].s_ME, mixture.bias_E, model.shape.rule))

    hooks = [mixture.register_forward_hook(note) for mixture in model.mixtures]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def of_routers(model: Decoder, forward: Callable[[Tensor], Any], symbols_BT: Tensor, ends_B: Tensor) -> Tensor:
    """The least margin of each sequence's choices of experts before its position `ends`, [B]; infinite without any.

    `forward` computes `model` over whole sequences int64 [B, T]; modules that predict further symbols may be fed fewer
    positions, from the first.
    """
    least_B = torch.full(ends_B.shape, torch.inf, dtype=torch.float64, device=symbols_BT.device)
    with watched(model) as found:
        forward(symbols_BT)
    for margins_M in found:
        margins_BT = margins_M.view(len(symbols_BT), -1).double()
        counts_BT = torch.arange(margins_BT.shape[1], device=symbols_BT.device) < ends_B[:, None]
        least_B = torch.minimum(least_B, margins_BT.masked_fill(~counts_BT, torch.inf).amin(-1))
    return least_B
