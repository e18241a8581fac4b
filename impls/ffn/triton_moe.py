"""A mixture of experts in Triton: six to eight launches for the routed experts, no copies of rows, no atomics.

Wins at a few tokens, where only the chosen experts' weights are read, once, and at many, where gate and up products
and sorted copies never reach memory. Loses where each expert has some 64 to 200 rows and tiles are half empty, and to
kernels with warp roles, which overlap one tile's end with the next one's loads.
No word to the host, shapes alone decide launches, results do not change from call to call: a CUDA graph can hold it.
Shape suffixes: M tokens, D hidden, K chosen, P = M x K pairs, W width, U = 2 W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import Permuted, PermuteInputs, SelectInputs, TokenInputs
from .layers import tokens_with
from .reference import MIXTURES
from .routing import Routing
from .shape import FfnShape, TokenShape
from .triton_grouped import combined, hidden_rows, launch_for, output_rows, silu_mul
from .triton_order import lay_blocks, sort_pairs, spread
from .triton_routing import route, select
from .weights import ChoiceWeights, DenseWeights, MoeWeights, RouterWeights

NEEDS = ("cuda", "triton")
MOST_EXPERTS = 512


def _unfit(model: FfnShape) -> str | None:
    if model.torch_dtype.itemsize != 2:
        return "made for 16-bit weights"
    if model.hidden % 16 or model.width % 16:
        return f"made for sizes that are multiples of 16, these are {model.hidden} and {model.width}"
    return _too_many(model)


def _too_many(model: FfnShape) -> str | None:
    if model.router.experts > MOST_EXPERTS:
        return f"made for up to {MOST_EXPERTS} experts, this layer has {model.router.experts}"
    return None


def unfit(shape: TokenShape) -> str | None:
    """Why the kernels cannot take a shape, or None."""
    return _unfit(shape.model)


def unfit_select(shape: TokenShape) -> str | None:
    """The same for the choice alone, whose logits are FP32."""
    return _too_many(shape.model)


def unfit_coarse(shape: TokenShape) -> str | None:
    """The same for moe-coarse."""
    return _unfit(shape.model.coarse())


def shared_forward(w: DenseWeights, x_MD: Tensor) -> Tensor:
    """The shared experts: two library products, and one pass between them."""
    return F.linear(silu_mul(F.linear(x_MD, w.w_in_UD)), w.w_out_DW)


def mixed(
    x_MD: Tensor, routed: Routing, w_in_EUD: Tensor, w_out_EDW: Tensor, shared_MD: Tensor | None = None
) -> Tensor:
    """Σ_k g_k FFN_k(x) + shared, [M, D], of experts that were chosen in any way."""
    tokens, top_k = routed.experts_MK.shape
    launch = launch_for(tokens * top_k, len(w_in_EUD))
    order = sort_pairs(routed.experts_MK, len(w_in_EUD), launch.rows)
    h_PW = hidden_rows(x_MD, order.pair_P, top_k, order.tiles_3T, tokens * top_k, w_in_EUD, launch)
    o_PD = output_rows(h_PW, order, routed.gates_MK, order.tiles_3T, w_out_EDW, launch)
    return combined(o_PD, shared_MD, tokens)


def forward(w: MoeWeights, x_MD: Tensor) -> Tensor:
    """The layer."""
    shared_MD = None if w.shared is None else shared_forward(w.shared, x_MD)
    return mixed(x_MD, route(x_MD, w.router), w.w_in_EUD, w.w_out_EDW, shared_MD)


SUPPORTS = {"moe": unfit, "moe-coarse": unfit_coarse}
for _technique in MIXTURES:
    _same = {"technique": _technique, "kind": "optimized", "name": "triton", "needs": NEEDS}
    _same["supports"] = SUPPORTS[_technique]
    implementation("ffn.prefill", **_same)(tokens_with(forward))
    implementation("ffn.decode", **_same)(tokens_with(forward))


@implementation("ffn.route", technique="moe", kind="optimized", name="triton", needs=NEEDS, supports=unfit)
def routed(w: RouterWeights, shape: TokenShape) -> Callable[[TokenInputs], Routing]:
    """Two launches: logits in parts; scores, choice and gates."""
    return lambda inputs: route(inputs.x_MD, w)


@implementation("ffn.select", technique="moe", kind="optimized", name="triton", needs=NEEDS, supports=unfit_select)
def selected(w: ChoiceWeights, shape: TokenShape) -> Callable[[SelectInputs], Routing]:
    """One launch, a token a program of one warp."""
    return lambda inputs: select(inputs.logits_ME[None], w.bias_E, w.rule)


@implementation("ffn.permute", technique="moe", kind="optimized", name="triton", needs=NEEDS, supports=unfit)
def permute(w: None, shape: TokenShape) -> Callable[[PermuteInputs], Permuted]:
    """A counting sort; each hidden state read once and written to its rows."""
    router = shape.model.router

    def call(inputs: PermuteInputs) -> Permuted:
        order = sort_pairs(inputs.experts_MK, router.experts)
        return Permuted(spread(inputs.x_MD, order.row_P, router.top_k), order.ends_E)

    return call


@implementation("ffn.experts", technique="moe", kind="optimized", name="triton", needs=NEEDS, supports=unfit)
def experts(w: tuple[Tensor, Tensor], shape: TokenShape) -> Callable[[Permuted], Tensor]:
    """Blocks laid out, and the two grouped products."""

    def call(inputs: Permuted) -> Tensor:
        rows = len(inputs.x_PD)
        launch = launch_for(rows, len(inputs.ends_E))
        tiles_3T = lay_blocks(inputs.ends_E, rows, launch.rows)
        h_PW = hidden_rows(inputs.x_PD, None, 1, tiles_3T, rows, w[0], launch)
        return output_rows(h_PW, None, None, tiles_3T, w[1], launch)

    return call
