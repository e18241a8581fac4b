"""A mixture of experts from PyTorch's own parts: routing, a stable sort, `grouped_mm`, and a weighted sum.

What one gets without writing a kernel. Wins over the loop over experts by a fixed number of launches and no word to the
host. Loses to fused kernels by memory traffic: sorted copies of the hidden states, gate and up products, their SiLU and
every expert's output go through memory.
Shape suffixes: M tokens, D hidden, K chosen, P = M x K pairs, W width, U = 2 W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import Permuted
from .layers import tokens_with, train_with
from .reference import MIXTURES, dense_forward
from .routing import Order, Routing, by_expert, route
from .shape import TokenShape
from .weights import MoeWeights

NAME = "grouped-mm"


def expert_rows(x_PD: Tensor, ends_E: Tensor, w_in_EUD: Tensor, w_out_EDW: Tensor) -> Tensor:
    """Each expert's SwiGLU on its rows, [P, D]."""
    gate_PW, up_PW = F.grouped_mm(x_PD, w_in_EUD.mT, offs=ends_E).chunk(2, -1)
    return F.grouped_mm(F.silu(gate_PW) * up_PW, w_out_EDW.mT, offs=ends_E)


def combine(rows_PD: Tensor, order: Order, gates_MK: Tensor) -> Tensor:
    """The sum of each token's expert outputs by its gate values, [M, D]; pairs without a row add nothing."""
    whole = len(rows_PD) == gates_MK.numel()
    pairs_PD = torch.empty_like(rows_PD) if whole else rows_PD.new_zeros(gates_MK.numel(), rows_PD.shape[1])
    pairs_PD.index_copy_(0, order.pair_P, rows_PD)
    return torch.bmm(gates_MK.unsqueeze(1).to(rows_PD.dtype), pairs_PD.unflatten(0, gates_MK.shape)).squeeze(1)


def forward(w: MoeWeights, x_MD: Tensor, routed: Routing | None = None, kept_MK: Tensor | None = None) -> Tensor:
    """The layer; routing and pairs left out as in `reference.mixture_forward`."""
    routed = routed or route(x_MD, w.router)
    order = by_expert(routed.experts_MK, w.router.rule.experts, kept_MK)
    rows_PD = expert_rows(x_MD[order.pair_P // routed.experts_MK.shape[1]], order.ends_E, w.w_in_EUD, w.w_out_EDW)
    y_MD = combine(rows_PD, order, routed.gates_MK)
    return y_MD if w.shared is None else y_MD + dense_forward(w.shared, x_MD)


def unaligned(technique: str) -> Callable[[TokenShape], str | None]:
    """Why `grouped_mm` cannot take a technique's shape, or None: rows must be of whole 16 bytes."""

    def supports(shape: TokenShape) -> str | None:
        model = shape.model.of(technique)
        for size in (model.hidden, model.width):
            if size * model.torch_dtype.itemsize % 16:
                return f"grouped_mm takes rows of whole 16 bytes, not of {size} {model.dtype}"
        return None

    return supports


for _technique in MIXTURES:
    _same = {"technique": _technique, "kind": "library", "name": NAME, "supports": unaligned(_technique)}
    implementation("ffn.prefill", **_same)(tokens_with(forward))
    implementation("ffn.decode", **_same)(tokens_with(forward))
    implementation("ffn.train", **_same)(train_with(forward))


@implementation("ffn.experts", technique="moe", kind="library", name=NAME, supports=unaligned("moe"))
def experts(w: tuple[Tensor, Tensor], shape: TokenShape) -> Callable[[Permuted], Tensor]:
    """The two grouped products and what is between them."""
    return lambda inputs: expert_rows(inputs.x_PD, inputs.ends_E, *w)
