"""Training a mixture of experts with grouped Triton products, forward and backward.

Routing, gate values and the shared experts are PyTorch's and its autograd's; the experts' sum is one function of the
hidden states, the gate values and the weights. It keeps gate and up products and h [P, 3 W], and of the backward's
rows only dx [P, D] besides. Wins over autograd around grouped products: sorted copies of x and dy never reach memory,
and the gradients of gate, up and the gate value come from the end of the product that makes them.
Loses at small experts of few rows, whose weights' gradients are all zeros to write.
Shape suffixes: M tokens, D hidden, E experts, K chosen, P = M x K pairs, W width, U = 2 W, T blocks of rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from . import triton_backward_kernels as kernels
from .layers import train_with
from .reference import MIXTURES, dense_forward
from .routing import choose, gates, scores
from .triton_grouped import GROUP, MIDDLE, SMALL, Launch, combined, hidden_rows, launch_for, output_rows, tiles
from .triton_moe import NEEDS, SUPPORTS
from .triton_order import sort_pairs
from .weights import MoeWeights

COLUMNS, WIDE_COLUMNS, STEP, STAGES = 128, 256, 64, 4
WEIGHT_ROWS, WEIGHT_COLUMNS, WEIGHT_STAGES = 128, 256, 7


def launch_of(pairs: int, experts: int) -> Launch:
    """As in the forward alone, but for turned launches."""
    launch = launch_for(pairs, experts)
    return MIDDLE if launch is SMALL else launch


class Mixed(torch.autograd.Function):
    """Σ_k g_k FFN_k(x), [M, D], of x [M, D], gate values (FP32) and experts [M, K], w_in [E, U, D], w_out [E, D, W].

    The backward writes over what was kept, so it can be run once.
    """

    @staticmethod
    def forward(
        ctx: Any, x_MD: Tensor, gates_MK: Tensor, experts_MK: Tensor, w_in_EUD: Tensor, w_out_EDW: Tensor
    ) -> Tensor:
        """The sum, and what the backward needs."""
        tokens, top_k = experts_MK.shape
        pairs, stacked = tokens * top_k, w_in_EUD.shape[1]
        launch = launch_of(pairs, len(w_in_EUD))
        order = sort_pairs(experts_MK, len(w_in_EUD), launch.rows)
        both_PU = torch.empty(pairs, stacked, dtype=x_MD.dtype, device=x_MD.device)
        h_PW = hidden_rows(x_MD, order.pair_P, top_k, order.tiles_3T, pairs, w_in_EUD, launch, both_PU)
        o_PD = output_rows(h_PW, order, gates_MK, order.tiles_3T, w_out_EDW, launch)
        ctx.save_for_backward(x_MD, gates_MK, w_in_EUD, w_out_EDW)
        ctx.order, ctx.both_PU, ctx.h_PW, ctx.launch = order, both_PU, h_PW, launch
        return combined(o_PD, None, tokens)

    @staticmethod
    def backward(ctx: Any, dy_MD: Tensor) -> tuple[Tensor, Tensor, None, Tensor, Tensor]:
        """Gradients of the hidden states, gate values and weights."""
        x_MD, gates_MK, w_in_EUD, w_out_EDW = ctx.saved_tensors
        order, both_PU, h_PW, launch = ctx.order, ctx.both_PU, ctx.h_PW, ctx.launch
        dy_MD, top_k = dy_MD.contiguous(), gates_MK.shape[1]
        dgates_MK = hidden_gradients(dy_MD, gates_MK, order, w_out_EDW, both_PU, h_PW, launch)
        dw_out_EDW = weight_gradients(dy_MD, h_PW, order, top_k, w_out_EDW, left_listed=True)
        dw_in_EUD = weight_gradients(both_PU, x_MD, order, top_k, w_in_EUD, left_listed=False)
        dx_MD = combined(input_gradients(both_PU, order, w_in_EUD, launch), None, len(x_MD))
        return dx_MD, dgates_MK, None, dw_in_EUD, dw_out_EDW


def _constants(launch: Launch, columns: int) -> dict[str, int]:
    return {
        "M": launch.rows,
        "N": columns,
        "K": STEP,
        "STAGES": STAGES,
        "GROUP": GROUP,
        "num_warps": 8 if launch.rows >= 128 else 4,
    }


def hidden_gradients(
    dy_MD: Tensor, gates_MK: Tensor, order: Any, w_out_EDW: Tensor, both_PU: Tensor, h_PW: Tensor, launch: Launch
) -> Tensor:
    """The gate values' gradients [M, K]; gate and up products become their gradients, h becomes gate value x h."""
    _, hidden, width = w_out_EDW.shape
    blocks, columns, pairs = order.tiles_3T.shape[1], math.ceil(width / COLUMNS), gates_MK.numel()
    parts = torch.empty(columns, pairs, dtype=torch.float32, device=dy_MD.device)
    kernels.hidden_grad[(blocks * columns,)](
        dy_MD,
        order.pair_P,
        gates_MK,
        tiles(w_out_EDW.view(-1, width), STEP, COLUMNS),
        both_PU,
        h_PW,
        parts,
        order.tiles_3T,
        blocks,
        gates_MK.shape[1],
        pairs,
        hidden,
        width,
        **_constants(launch, COLUMNS),
    )
    return parts.sum(0).view_as(gates_MK)


def input_gradients(both_PU: Tensor, order: Any, w_in_EUD: Tensor, launch: Launch) -> Tensor:
    """The gradient of each pair's hidden state, [P, D], in the order of the pairs."""
    _, stacked, hidden = w_in_EUD.shape
    blocks, columns = order.tiles_3T.shape[1], WIDE_COLUMNS if launch.rows >= 128 else COLUMNS
    dx_PD = torch.empty(len(both_PU), hidden, dtype=both_PU.dtype, device=both_PU.device)
    kernels.input_grad[(blocks * math.ceil(hidden / columns),)](
        tiles(both_PU, launch.rows, STEP),
        order.pair_P,
        tiles(w_in_EUD.view(-1, hidden), STEP, columns),
        dx_PD,
        order.tiles_3T,
        blocks,
        hidden,
        stacked,
        **_constants(launch, columns),
    )
    return dx_PD


def weight_gradients(left: Tensor, right: Tensor, order: Any, top_k: int, weights: Tensor, left_listed: bool) -> Tensor:
    """left^T right over each expert's rows, like `weights` [E, columns of left, columns of right].

    One of the two is by token, [M, .], the left one if `left_listed`; the other by sorted row, [P, .].
    """
    experts, size_a, size_b = weights.shape
    dw = torch.empty_like(weights)
    grid = (math.ceil(size_a / WEIGHT_ROWS) * math.ceil(size_b / WEIGHT_COLUMNS), experts)
    kernels.weight_grad[grid](
        left if left_listed else tiles(left, STEP, WEIGHT_ROWS),
        tiles(right, STEP, WEIGHT_COLUMNS) if left_listed else right,
        order.pair_P,
        order.ends_E,
        dw,
        top_k,
        size_a,
        size_b,
        LEFT_LISTED=left_listed,
        A=WEIGHT_ROWS,
        B=WEIGHT_COLUMNS,
        K=STEP,
        STAGES=WEIGHT_STAGES,
        num_warps=8,
    )
    return dw


def train_forward(w: MoeWeights, x_MD: Tensor) -> Tensor:
    """The layer, to be differentiated."""
    s_ME = scores(x_MD, w.router.matrix_ED, w.router.rule)
    experts_MK = choose(s_ME, w.router.bias_E, w.router.rule)
    gates_MK = gates(s_ME, experts_MK, w.router.rule)
    y_MD = Mixed.apply(x_MD, gates_MK, experts_MK, w.w_in_EUD, w.w_out_EDW)
    return y_MD if w.shared is None else y_MD + dense_forward(w.shared, x_MD)


for _technique in MIXTURES:
    implementation(
        "ffn.train",
        technique=_technique,
        kind="optimized",
        name="triton",
        needs=NEEDS,
        supports=SUPPORTS[_technique],
    )(train_with(train_forward))
