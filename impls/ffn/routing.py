"""Which experts a token goes to, and with what weight: routing as the DeepSeek papers define it, in plain PyTorch.

    V1, V2   s_i = softmax_i(x · e_i)     the K best                                              g_i = s_i scale
    V3       s_i = sigmoid(x · e_i)       the K best of s_i + b_i in the M best groups            g_i = s_i / Σ s scale

(DeepSeekMoE §3; DeepSeek-V2 §2.2.2, device-limited; DeepSeek-V3 eqs 12-16, node-limited.) Scores are computed in FP32
or wider. Experts of other groups are masked with minus infinity: a mask of zero, as one widespread implementation had
it, would prefer them to experts with a negative biased score.
Shape suffixes: M tokens, D hidden, E experts, G groups, K chosen, P = M x K pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .shape import Router
from .weights import RouterWeights


@dataclass(frozen=True)
class Routing:
    """Chosen experts, int64 [M, K], in no particular order, and their gate values [M, K]."""

    gates_MK: Tensor
    experts_MK: Tensor


@dataclass(frozen=True)
class Order:
    """Pairs of token and chosen expert sorted by expert, then token.

    pair_P      int64: which pair (token x K + choice) stands in each row; fewer than P rows where some are left out
    ends_E      int32: the row after the last of each expert
    """

    pair_P: Tensor
    ends_E: Tensor


def scores(x_MD: Tensor, router_ED: Tensor, router: Router) -> Tensor:
    """s [M, E] in FP32, or FP64 where the inputs are."""
    dtype = torch.promote_types(x_MD.dtype, torch.float32)
    return scored(x_MD.to(dtype) @ router_ED.to(dtype).T, router)


def scored(logits_ME: Tensor, router: Router) -> Tensor:
    """s [M, E] of logits, in their dtype."""
    return logits_ME.sigmoid() if router.score == "sigmoid" else logits_ME.softmax(-1)


def choose(s_ME: Tensor, bias_E: Tensor | None, router: Router) -> Tensor:
    """The chosen experts [M, K] of each token, by biased score, within its best groups."""
    biased_ME = s_ME.detach() if bias_E is None else s_ME.detach() + bias_E
    if router.top_groups < router.groups:
        biased_MGE = biased_ME.unflatten(1, (router.groups, -1))
        best = 2 if router.score == "sigmoid" else 1
        groups_MG = biased_MGE.topk(min(best, biased_MGE.shape[-1]), -1).values.sum(-1)
        allowed_MG = torch.zeros_like(groups_MG, dtype=torch.bool)
        allowed_MG.scatter_(1, groups_MG.topk(router.top_groups, -1).indices, True)
        biased_ME = biased_MGE.masked_fill(~allowed_MG[..., None], -torch.inf).flatten(1)
    return biased_ME.topk(router.top_k, -1).indices


def gates(s_ME: Tensor, experts_MK: Tensor, router: Router) -> Tensor:
    """Gate values [M, K] of the chosen experts: their unbiased scores, normalised and scaled as the model does."""
    g_MK = s_ME.gather(1, experts_MK)
    if router.normalise:
        g_MK = g_MK / (g_MK.sum(-1, keepdim=True) + 1e-20)
    return g_MK * router.scale


def select(s_ME: Tensor, bias_E: Tensor | None, router: Router) -> Routing:
    """Choice and gates from scores."""
    experts_MK = choose(s_ME, bias_E, router)
    return Routing(gates(s_ME, experts_MK, router), experts_MK)


def route(x_MD: Tensor, w: RouterWeights) -> Routing:
    """Scores, choice and gates."""
    return select(scores(x_MD, w.matrix_ED, w.rule), w.bias_E, w.rule)


def by_expert(experts_MK: Tensor, count: int, kept_MK: Tensor | None = None) -> Order:
    """The order that puts each expert's tokens side by side, without a word to the host.

    Pairs that `kept_MK` (bool) leaves out have no row; how many those are, the host must ask.
    """
    pair_P = experts_MK.flatten().argsort(stable=True)
    loads_E = torch.zeros(count, dtype=torch.int32, device=experts_MK.device)
    ones_P = torch.ones_like(experts_MK.flatten(), dtype=torch.int32)
    if kept_MK is not None:
        pair_P, ones_P = pair_P[kept_MK.flatten()[pair_P]], kept_MK.flatten().to(torch.int32)
    loads_E.scatter_add_(0, experts_MK.flatten(), ones_P)
    return Order(pair_P, loads_E.cumsum(0, dtype=torch.int32))
