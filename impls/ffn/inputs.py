"""What the ffn operations take and return, and how hidden states are drawn that go to the experts asked for.

Random hidden states alone would spread tokens evenly, and leave some choices to the last bit of a score. So the
choices come first: how often each expert is wanted follows from the sizes (uniform to Zipf, or as recorded), which
token wants which from the draw. Then each hidden state is moved within the span of the router's rows until its scores
are what that choice needs, with a margin that no rounding crosses. The bias matters: some choices differ without it. So
do groups: in each group that a token may not use, one expert has a higher score than some that the token chooses.
Shape suffixes: M tokens, D hidden, E experts, G groups, N experts of a group, K chosen, P = M x K pairs, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from .recorded import preferences
from .routing import Order, by_expert, choose
from .shape import FfnShape, Router, TokenShape
from .weights import DenseWeights, MoeWeights, router_weights

# Ranges of logits under softmax, of sigmoid plus bias under sigmoid, by an expert's part: not chosen, chosen, the best
# chosen of its group; and in groups that are out of reach: not wanted, and the decoy. A group ranks by its best expert
# under softmax, so the best chosen must pass decoys; by its two best under sigmoid, so a decoy stands beside low ones.
OTHER, CHOSEN, BEST, SHUT, DECOY = range(5)
LOGITS = ((-2.0, 0.5), (1.5, 2.0), (3.2, 4.2), (-2.0, 0.5), (2.4, 2.8))
SCORES = ((0.44, 0.50), (0.68, 0.70), (0.68, 0.70), (0.23, 0.27), (0.75, 0.77))


@dataclass(frozen=True)
class TokenInputs:
    """Hidden states of independent tokens."""

    x_MD: Tensor


@dataclass(frozen=True)
class TrainInputs:
    """Hidden states, and the gradient that reaches the layer's output."""

    x_MD: Tensor
    dy_MD: Tensor


@dataclass(frozen=True)
class TrainResult:
    """Output, and gradients of the hidden states and of every weight; the bias has none."""

    y_MD: Tensor
    dx_MD: Tensor
    dw: DenseWeights | MoeWeights


@dataclass(frozen=True)
class SelectInputs:
    """Logits in FP32."""

    logits_ME: Tensor


@dataclass(frozen=True)
class PermuteInputs:
    """Hidden states, and the chosen experts (int64) of each token."""

    x_MD: Tensor
    experts_MK: Tensor


@dataclass(frozen=True)
class Permuted:
    """Rows of hidden states sorted by expert, then token; the row (int32) after the last of each expert."""

    x_PD: Tensor
    ends_E: Tensor


@lru_cache(maxsize=16)
def wanted(router: Router, tokens: int, skew: float, recorded: str = "") -> Tensor:
    """Experts [M, K] (int64, on the CPU) that the tokens of a workload choose, from the sizes alone.

    Drawn without replacement within each token's best groups (Gumbel top-k): in proportion to rank^-skew, or as the
    recorded loads of a digest say.
    """
    generator = torch.Generator().manual_seed(router.experts * 7919 + tokens)
    ranks_E = 1 + torch.randperm(router.experts, generator=generator)
    noise_ME = torch.rand(tokens, router.experts, generator=generator).clamp_min_(1e-12)
    prefer_E = preferences(router, recorded) if recorded else -skew * ranks_E.log()
    return choose(prefer_E - noise_ME.log().neg().log(), None, router)


def loads(shape: TokenShape, technique: str) -> Tensor:
    """Tokens of each expert, int64 [E], in every draw."""
    router = shape.model.of(technique).router
    return wanted(router, shape.tokens, shape.skew, shape.recorded).flatten().bincount(minlength=router.experts)


def _shuffled(router: Router, shape: TokenShape, generator: torch.Generator) -> Tensor:
    """The wanted experts with tokens in the draw's own order, on the generator's device."""
    order_M = torch.randperm(shape.tokens, generator=generator, device=generator.device)
    return wanted(router, shape.tokens, shape.skew, shape.recorded).to(generator.device)[order_M]


@lru_cache(maxsize=8)
def _steering(model: FfnShape) -> Tensor:
    """[E, D] in FP32: adding a logit's row to a hidden state adds that much to its logit and nothing to others."""
    matrix_ED = router_weights(model).matrix_ED.double()
    return torch.linalg.solve(matrix_ED @ matrix_ED.T, matrix_ED).float()


def draw_tokens(shape: TokenShape, technique: str, generator: torch.Generator) -> TokenInputs:
    """Inputs of the layers and of ffn.route; dense layers get those of the mixture."""
    model = shape.model.of(technique)
    router, device = router_weights(model), generator.device
    x_MD = torch.randn(shape.tokens, model.hidden, generator=generator, device=device)
    experts_MK = _shuffled(model.router, shape, generator)
    matrix_ED, steering_ED = router.matrix_ED.to(device, torch.float32), _steering(model).to(device)
    x_MD += (_logits(model.router, experts_MK, router.bias_E, generator) - x_MD @ matrix_ED.T) @ steering_ED
    return TokenInputs(x_MD.to(model.torch_dtype))


def _logits(router: Router, experts_MK: Tensor, bias_E: Tensor | None, generator: torch.Generator) -> Tensor:
    """Logits [M, E] that make each token choose its experts."""
    noise_ME = torch.rand(len(experts_MK), router.experts, generator=generator, device=generator.device)
    ranges_2 = torch.tensor(SCORES if router.biased else LOGITS, device=noise_ME.device)
    low_ME, high_ME = ranges_2[_parts(router, experts_MK, noise_ME)].unbind(-1)
    values_ME = low_ME + (high_ME - low_ME) * noise_ME
    return values_ME if bias_E is None else (values_ME - bias_E.to(values_ME.device)).logit()


def _parts(router: Router, experts_MK: Tensor, noise_ME: Tensor) -> Tensor:
    """Which part each expert plays for each token, int64 [M, E]; the noise says which one is a group's best or decoy.

    A token that uses fewer groups than it may could use another one too, and then none is out of reach.
    """
    is_chosen_ME = torch.zeros_like(noise_ME, dtype=torch.bool).scatter_(1, experts_MK, True)
    chosen_MGN, noise_MGN = (t.unflatten(1, (router.groups, -1)) for t in (is_chosen_ME, noise_ME))
    place_N = torch.arange(noise_MGN.shape[-1], device=noise_ME.device)
    if len(place_N) == 1:  # a group's rank is its expert's
        return torch.where(is_chosen_ME, CHOSEN, OTHER)
    used_MG1 = chosen_MGN.any(-1, keepdim=True)
    full_M11 = used_MG1.sum(1, keepdim=True) == router.top_groups
    shut_MGN = (~used_MG1 & full_M11).expand_as(chosen_MGN)
    first_MGN = (noise_MGN + chosen_MGN).argmax(-1, keepdim=True) == place_N  # among the chosen, if any
    unchosen_MGN = torch.where(shut_MGN, torch.where(first_MGN, DECOY, SHUT), OTHER)
    return torch.where(chosen_MGN, torch.where(first_MGN, BEST, CHOSEN), unchosen_MGN).flatten(1)


def draw_select(shape: TokenShape, technique: str, generator: torch.Generator) -> SelectInputs:
    """Inputs of ffn.select."""
    model = shape.model.of(technique)
    experts_MK = _shuffled(model.router, shape, generator)
    return SelectInputs(_logits(model.router, experts_MK, router_weights(model).bias_E, generator))


def draw_train(shape: TokenShape, technique: str, generator: torch.Generator) -> TrainInputs:
    """Inputs of ffn.train."""
    x_MD = draw_tokens(shape, technique, generator).x_MD
    return TrainInputs(x_MD, torch.randn(x_MD.shape, generator=generator, device=x_MD.device, dtype=x_MD.dtype))


def draw_permute(shape: TokenShape, technique: str, generator: torch.Generator) -> PermuteInputs:
    """Inputs of ffn.permute."""
    model = shape.model.of(technique)
    x_MD = torch.randn(
        shape.tokens, model.hidden, generator=generator, device=generator.device, dtype=model.torch_dtype
    )
    return PermuteInputs(x_MD, _shuffled(model.router, shape, generator))


def draw_experts(shape: TokenShape, technique: str, generator: torch.Generator) -> Permuted:
    """Inputs of ffn.experts: rows already sorted by expert."""
    given = draw_permute(shape, technique, generator)
    order: Order = by_expert(given.experts_MK, shape.model.of(technique).router.experts)
    return Permuted(given.x_MD[order.pair_P // given.experts_MK.shape[1]], order.ends_E)


def token_pieces(inputs: TokenInputs, count: int = 8192) -> Iterator[TokenInputs]:
    """Groups of tokens."""
    for start in range(0, len(inputs.x_MD), count):
        yield replace(inputs, x_MD=inputs.x_MD[start : start + count])
