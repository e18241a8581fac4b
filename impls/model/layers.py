"""The model's layers: attention, dense feed-forward and mixture, weights and a forward of the suite each.

Their products are plain or in FP8, as the shape's axis `linear` says. A mixture also says what its router did: scores
and choice are computed here, by the ffn study's own functions, and given to the forward, with the pairs that are to be
left out.
Shape suffixes: B sequences, T tokens, D hidden, M = B x T tokens, E experts, K chosen, C norm width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..attention import sdpa_mha, sdpa_mla
from ..attention.plain import rms_norm
from ..attention.sdpa import DEFAULT
from ..attention.shape import SequenceShape
from ..attention.weights import MhaWeights, MlaWeights
from ..attention.weights import draw_weights as draw_attention
from ..ffn import grouped_mm, reference, sorted_experts
from ..ffn.routing import Routing, choose, gates, scores
from ..ffn.shape import TokenShape
from ..ffn.weights import DenseWeights, MoeWeights, RouterWeights
from ..ffn.weights import draw_weights as draw_ffn
from .held import Held
from .linear import linear_of
from .shape import ModelShape

Keep = Callable[[Tensor, Tensor], Tensor]  # scores of the chosen [M, K], experts [M, K] -> bool [M, K]
MIXTURES: dict[str, Callable[[MoeWeights, Tensor, Routing, Tensor | None], Tensor]] = {
    "reference": reference.mixture_forward,
    "sorted": sorted_experts.forward,
    "grouped-mm": grouped_mm.forward,
}
FP8_MIXTURE = "reference"


@dataclass(frozen=True)
class Routed:
    """What a router did: scores [M, E] in FP32 with their gradient, the experts chosen, int64 [M, K], and which of
    them were computed, bool [M, K], None for all."""

    layer: int
    s_ME: Tensor
    experts_MK: Tensor
    kept_MK: Tensor | None = None


class Norm(nn.Module):
    """RMSNorm with a gain of C, at first 1."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.gain_C, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x_BTC: Tensor) -> Tensor:
        """[..., C] to [..., C]."""
        return rms_norm(x_BTC, self.gain_C.to(x_BTC.dtype), self.eps)


class Attention(nn.Module):
    """MHA, GQA, MQA or MLA over whole sequences, on PyTorch's fused attention, which computes as the references do."""

    def __init__(self, shape: ModelShape, generator: torch.Generator, product: str = "reference") -> None:
        super().__init__()
        self.shape, self.linear = shape, linear_of(shape.linear, product)
        self.held = Held(_attention_weights(shape, generator))
        self._forwards: dict[tuple[int, torch.dtype, torch.device], Callable[[object, Tensor], Tensor]] = {}

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]; a token sees itself and those before it."""
        weights = self.held.weights(x_BTD.dtype, self.shape.in_fp8)
        return self._layer(x_BTD)(weights, x_BTD)

    def _layer(self, x_BTD: Tensor) -> Callable[[object, Tensor], Tensor]:
        """The forward for this length; its tables of angles are kept."""
        key = x_BTD.shape[1], x_BTD.dtype, x_BTD.device
        if key not in self._forwards:
            form = sdpa_mla if self.shape.technique == "mla" else sdpa_mha
            sizes = SequenceShape(self.shape.attention, 1, key[0])
            self._forwards[key] = form.layer_with(DEFAULT, sizes, x_BTD, self.linear)
        return self._forwards[key]


class Dense(nn.Module):
    """SwiGLU."""

    def __init__(
        self, shape: ModelShape, technique: str, generator: torch.Generator, product: str = "reference"
    ) -> None:
        super().__init__()
        self.linear, self.masters = linear_of(shape.linear, product), shape.in_fp8
        self.held = Held(_damped(draw_ffn(_tokens(shape), technique, generator), shape.layers))

    def forward(self, x_BTD: Tensor, keep: Keep | None = None) -> tuple[Tensor, None]:
        """[B, T, D] to [B, T, D], and None: nothing was routed, so there is nothing that `keep` could leave out."""
        return reference.dense_forward(self.held.weights(x_BTD.dtype, self.masters), x_BTD, self.linear), None


class Mixture(nn.Module):
    """A mixture of experts by one of `MIXTURES`; in FP8 by `FP8_MIXTURE`, the only one whose products can be replaced.

    Raises ValueError for another in FP8.
    """

    def __init__(
        self, shape: ModelShape, layer: int, form: str, generator: torch.Generator, product: str = "reference"
    ) -> None:
        super().__init__()
        if shape.in_fp8 and form != FP8_MIXTURE:
            raise ValueError(f"mixture {form!r} has no FP8 products: with linear {shape.linear} take {FP8_MIXTURE!r}")
        self.layer, self.compute, self.masters = layer, MIXTURES[form], shape.in_fp8
        if shape.in_fp8:
            self.compute = partial(reference.mixture_forward, linear=linear_of(shape.linear, product))
        drawn = _damped(draw_ffn(_tokens(shape), shape.feed, generator), shape.layers)
        self.held = Held(replace(drawn, router=_router(shape, generator)))

    @property
    def bias_E(self) -> Tensor | None:
        """The buffer that decides the choice with the scores, FP32; None under softmax."""
        bias_E: Tensor | None = getattr(self.held.router, "bias_E", None)
        return bias_E

    def forward(self, x_BTD: Tensor, keep: Keep | None = None) -> tuple[Tensor, Routed]:
        """[B, T, D] to [B, T, D], and what the router did; `keep` says which pairs are computed, None all."""
        x_MD = x_BTD.flatten(0, 1)
        weights: MoeWeights = self.held.weights(x_MD.dtype, self.masters)
        router = weights.router
        s_ME = scores(x_MD, router.matrix_ED, router.rule)
        experts_MK = choose(s_ME, router.bias_E, router.rule)
        kept_MK = None if keep is None else keep(s_ME.detach().gather(1, experts_MK), experts_MK)
        routing = Routing(gates(s_ME, experts_MK, router.rule), experts_MK)
        y_MD = self.compute(weights, x_MD, routing, kept_MK)
        return y_MD.view_as(x_BTD), Routed(self.layer, s_ME, experts_MK, kept_MK)


def _tokens(shape: ModelShape) -> TokenShape:
    return TokenShape(replace(shape.ffn, dtype="float32"), 1)


def _attention_weights(shape: ModelShape, generator: torch.Generator) -> MhaWeights | MlaWeights:
    """The study's draw, with norms of gain 1 and the output damped by the depth."""
    sizes = SequenceShape(replace(shape.attention, dtype="float32"), 1, 1)
    drawn = draw_attention(sizes, shape.technique, generator)
    if isinstance(drawn, MlaWeights):
        query = None if drawn.q_norm_Q is None else torch.ones_like(drawn.q_norm_Q)
        wo_DHV = drawn.wo_DHV * _damping(shape.layers)
        return replace(drawn, q_norm_Q=query, kv_norm_C=torch.ones_like(drawn.kv_norm_C), wo_DHV=wo_DHV)
    return replace(drawn, wo_DHE=drawn.wo_DHE * _damping(shape.layers))


def _damping(layers: int) -> float:
    """So that the residual stream grows by about its own size over all blocks, two additions each."""
    return float((2 * layers) ** -0.5)


def _damped(weights: DenseWeights | MoeWeights, layers: int) -> DenseWeights | MoeWeights:
    if isinstance(weights, DenseWeights):
        return replace(weights, w_out_DW=weights.w_out_DW * _damping(layers))
    shared = weights.shared and replace(weights.shared, w_out_DW=weights.shared.w_out_DW * _damping(layers))
    return replace(weights, w_out_EDW=weights.w_out_EDW * _damping(layers), shared=shared)


def _router(shape: ModelShape, generator: torch.Generator) -> RouterWeights:
    """Rows of norm about 1, other ones in each layer; the bias starts at 0 (the study's own draw is for steering)."""
    rule = shape.rule
    matrix_ED = torch.randn(rule.experts, shape.hidden, generator=generator, device=generator.device)
    bias_E = torch.zeros(rule.experts, device=generator.device) if rule.biased else None
    return RouterWeights(rule, matrix_ED * shape.hidden**-0.5, bias_E)
