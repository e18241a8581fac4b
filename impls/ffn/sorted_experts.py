"""A mixture of experts for the CPU in plain PyTorch: tokens sorted once, one stretch of rows an expert.

Wins over the loop of the reference: nothing is searched for once an expert, experts without tokens cost nothing, and
the backward keeps and copies little (`stretches.py`). Loses on a GPU, where reading the loads back stops the queue.
Shape suffixes: M tokens, D hidden, K chosen, P = M x K pairs.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness import implementation

from .inputs import Permuted
from .layers import tokens_with, train_with
from .reference import MIXTURES, dense_forward
from .routing import Routing, by_expert, route
from .shape import TokenShape
from .stretches import expert_rows, mixture
from .weights import MoeWeights

NAME = "sorted"


def forward(w: MoeWeights, x_MD: Tensor, routed: Routing | None = None, kept_MK: Tensor | None = None) -> Tensor:
    """The layer; routing and pairs left out as in `reference.mixture_forward`."""
    routed = routed or route(x_MD, w.router)
    order = by_expert(routed.experts_MK, w.router.rule.experts, kept_MK)
    pair_P = order.pair_P
    token_P, gates_P = pair_P // routed.experts_MK.shape[1], routed.gates_MK.flatten().index_select(0, pair_P)
    y_MD = mixture(x_MD, gates_P, token_P, order.ends_E, w.w_in_EUD, w.w_out_EDW)
    return (y_MD if w.shared is None else y_MD + dense_forward(w.shared, x_MD)).to(x_MD.dtype)


for _technique in MIXTURES:
    _same = {"technique": _technique, "kind": "optimized", "name": NAME}
    implementation("ffn.prefill", **_same)(tokens_with(forward))
    implementation("ffn.decode", **_same)(tokens_with(forward))
    implementation("ffn.train", **_same)(train_with(forward))


@implementation("ffn.experts", technique="moe", kind="optimized", name=NAME)
def experts(w: tuple[Tensor, Tensor], shape: TokenShape) -> Callable[[Permuted], Tensor]:
    """One stretch of rows an expert."""
    return lambda inputs: expert_rows(inputs.x_PD, inputs.ends_E, *w)
