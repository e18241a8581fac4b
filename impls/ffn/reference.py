"""Dense SwiGLU and DeepSeekMoE as the papers write them: one expert after the other.

    dense    y = W_out (silu(W_gate x) * W_up x)
    MoE      y = Σ_s FFN^(s)(x) + Σ_{i in TopK} g_i FFN_i(x)          (DeepSeekMoE §3, DeepSeek-V3 eq 12)

The residual connection around the layer is the model's. Outputs of a token's experts are added up in FP32 or wider.
The mixture wins over a dense layer of equal total size wherever arithmetic binds: a token pays for K experts of E.
It loses at a few tokens, whose experts' weights must all be read, and in this form by a host round trip an expert.
Shape suffixes: M tokens, N tokens of one expert, D hidden, E experts, K chosen, P = M x K pairs, W width, U = 2 W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import Permuted, PermuteInputs, SelectInputs, TokenInputs
from .layers import tokens_with, train_with
from .routing import Routing, by_expert, route, scored, select
from .shape import TokenShape
from .weights import ChoiceWeights, DenseWeights, MoeWeights, RouterWeights

MIXTURES = ("moe", "moe-coarse")
Linear = Callable[[Tensor, Tensor], Tensor]
"""x [N, K] and a weight [U, K] to x w^T [N, U]."""


def swiglu(x_ND: Tensor, w_in_UD: Tensor, w_out_DW: Tensor, linear: Linear = F.linear) -> Tensor:
    """W_out (silu(W_gate x) * W_up x), [N, D]."""
    gate_NW, up_NW = linear(x_ND, w_in_UD).chunk(2, -1)
    return linear(F.silu(gate_NW) * up_NW, w_out_DW)


def dense_forward(w: DenseWeights, x_MD: Tensor, linear: Linear = F.linear) -> Tensor:
    """The dense layer."""
    return swiglu(x_MD, w.w_in_UD, w.w_out_DW, linear)


def mixture_forward(
    w: MoeWeights,
    x_MD: Tensor,
    routed: Routing | None = None,
    kept_MK: Tensor | None = None,
    linear: Linear = F.linear,
) -> Tensor:
    """The mixture: every expert is given its tokens, and what it returns is added to them by their gate values.

    `routed` is what the router did, where that is known. Pairs of token and expert that `kept_MK` (bool) leaves out
    are not computed and add nothing; the gate values of the token's others stay as they are. `linear` multiplies by
    the experts' matrices; the router has its own product.
    """
    routed = routed or route(x_MD, w.router)
    y_MD = torch.zeros_like(x_MD, dtype=torch.promote_types(x_MD.dtype, torch.float32))
    for expert, (w_in_UD, w_out_DW) in enumerate(zip(w.w_in_EUD.unbind(), w.w_out_EDW.unbind(), strict=True)):
        is_its_MK = routed.experts_MK == expert
        token_N, choice_N = (is_its_MK if kept_MK is None else is_its_MK & kept_MK).nonzero(as_tuple=True)
        if len(token_N):
            gate_N1 = routed.gates_MK[token_N, choice_N].unsqueeze(1)
            y_MD = y_MD.index_add(0, token_N, swiglu(x_MD[token_N], w_in_UD, w_out_DW, linear) * gate_N1)
    if w.shared is not None:
        y_MD = y_MD + dense_forward(w.shared, x_MD, linear)
    return y_MD.to(x_MD.dtype)


for _techniques, _forward in ((("dense", "dense-total"), dense_forward), (MIXTURES, mixture_forward)):
    _same = {"technique": _techniques, "kind": "reference"}
    implementation("ffn.prefill", **_same)(tokens_with(_forward))
    implementation("ffn.decode", **_same)(tokens_with(_forward))
    implementation("ffn.train", **_same)(train_with(_forward))


@implementation("ffn.route", technique="moe", kind="reference")
def routed(w: RouterWeights, shape: TokenShape) -> Callable[[TokenInputs], Routing]:
    """Scores, choice and gate values."""
    return lambda inputs: route(inputs.x_MD, w)


@implementation("ffn.select", technique="moe", kind="reference")
def selected(w: ChoiceWeights, shape: TokenShape) -> Callable[[SelectInputs], Routing]:
    """Scores, choice and gate values of given logits."""
    return lambda inputs: select(scored(inputs.logits_ME, w.rule), w.bias_E, w.rule)


@implementation("ffn.permute", technique="moe", kind="reference")
def permute(w: None, shape: TokenShape) -> Callable[[PermuteInputs], Permuted]:
    """Copies of the hidden states, sorted by expert."""

    def call(inputs: PermuteInputs) -> Permuted:
        order = by_expert(inputs.experts_MK, shape.model.router.experts)
        return Permuted(inputs.x_MD[order.pair_P // inputs.experts_MK.shape[1]], order.ends_E)

    return call


@implementation("ffn.experts", technique="moe", kind="reference")
def experts(w: tuple[Tensor, Tensor], shape: TokenShape) -> Callable[[Permuted], Tensor]:
    """Each expert's SwiGLU on its own rows, [P, D]."""

    def call(inputs: Permuted) -> Tensor:
        parts, start = [], 0
        for end, w_in_UD, w_out_DW in zip(inputs.ends_E.tolist(), *w, strict=True):
            parts.append(swiglu(inputs.x_PD[start:end], w_in_UD, w_out_DW))
            start = end
        return torch.cat(parts)

    return call
