"""Experts on sorted rows, one stretch of rows an expert: the mixture forward and backward, and the rows alone.

Products are taken expert by expert; everything between them on a block of several experts' rows, many enough to be
worth a call and few enough to stay in the caches from hidden states to the sum of outputs. Wins over autograd's own way
through a loop: gradients of the experts are written where they belong instead of stacked from one tensor an expert, and
all that is kept for the backward is gate and up. Loses wherever the loads are not on the host: reading them stops a
GPU's queue.
Shape suffixes: M tokens, P rows sorted by expert, N rows of a block, L of the largest, E experts, D hidden, W width,
U = 2 W; A and B any two sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 256


def mixture(
    x_MD: Tensor, gates_P: Tensor, token_P: Tensor, ends_E: Tensor, w_in_EUD: Tensor, w_out_EDW: Tensor
) -> Tensor:
    """Σ over a token's rows of gate x SwiGLU of the row's expert, [M, D], FP32 or wider. Differentiable once.

    Rows are sorted by expert, a token having at most one of an expert; `token_P` says whose a row is, `gates_P` its
    weight, `ends_E` the row after the last of each expert.
    """
    y_MD: Tensor = Stretches.apply(x_MD, gates_P, token_P, ends_E, w_in_EUD, w_out_EDW)
    return y_MD


def expert_rows(x_PD: Tensor, ends_E: Tensor, w_in_EUD: Tensor, w_out_EDW: Tensor) -> Tensor:
    """Each expert's SwiGLU on its rows, [P, D], in the dtype of `x_PD`. Not differentiable."""
    y_PD = torch.empty_like(x_PD)
    blocks = blocked(ends_E.tolist())
    h_LU = x_PD.new_empty(longest(blocks), w_in_EUD.shape[1])
    for block in blocks:
        h_NU = h_LU[: len(block)]
        products(block, x_PD[block.rows], w_in_EUD.mT, h_NU)
        gate_NW, up_NW = h_NU.chunk(2, 1)
        products(block, F.silu(gate_NW).mul_(up_NW), w_out_EDW.mT, y_PD[block.rows])
    return y_PD


class Stretches(torch.autograd.Function):
    """y = Σ gate W_out (silu(g) u) with (g, u) = W_in x."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, gates_P: Tensor, token_P: Tensor, ends_E: Tensor, *w: Tensor) -> Tensor:
        """Keeps (g, u) of every row for the backward, or takes memory for one block where there is none."""
        blocks, (w_in_EUD, w_out_EDW) = blocked(ends_E.tolist()), w
        keep = any(ctx.needs_input_grad)
        h_PU = x_MD.new_empty(len(token_P) if keep else longest(blocks), w_in_EUD.shape[1])
        y_MD = torch.zeros_like(x_MD, dtype=torch.promote_types(x_MD.dtype, torch.float32))
        for block in blocks:
            token_N, h_NU = token_P[block.rows], h_PU[block.rows] if keep else h_PU[: len(block)]
            x_ND = x_MD.index_select(0, token_N)
            products(block, x_ND, w_in_EUD.mT, h_NU)
            products(block, weighted(*h_NU.chunk(2, 1), gates_P[block.rows, None]), w_out_EDW.mT, x_ND)
            y_MD.index_add_(0, token_N, x_ND.to(y_MD.dtype))
        ctx.blocks = blocks
        ctx.save_for_backward(x_MD, gates_P, token_P, h_PU, *w)
        return y_MD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_MD: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, of the gates, and of both matrices of each expert, zero for those without rows."""
        x_MD, gates_P, token_P, h_PU, w_in_EUD, w_out_EDW = ctx.saved_tensors
        dx_MD, dgates_P = torch.zeros_like(dy_MD), torch.empty_like(gates_P)
        dw_in_EUD, dw_out_EDW = torch.empty_like(w_in_EUD), torch.empty_like(w_out_EDW)
        dh_LU = torch.empty_like(h_PU[: longest(ctx.blocks)])
        for block in ctx.blocks:
            token_N, gate_N1, dh_NU = token_P[block.rows], gates_P[block.rows, None], dh_LU[: len(block)]
            (g_NW, u_NW), (dg_NW, du_NW) = h_PU[block.rows].chunk(2, 1), dh_NU.chunk(2, 1)
            dy_ND = dy_MD.index_select(0, token_N).to(x_MD.dtype)
            outer_products(block, dy_ND, weighted(g_NW, u_NW, gate_N1), dw_out_EDW)
            s_NW, da_NW = F.silu(g_NW), torch.empty_like(g_NW)
            products(block, dy_ND, w_out_EDW, da_NW)
            dgates_P[block.rows] = (da_NW * s_NW * u_NW).sum(1)
            da_NW *= gate_N1.to(da_NW.dtype)
            torch.mul(da_NW, s_NW, out=du_NW)
            dg_NW.copy_(torch.ops.aten.silu_backward(da_NW.mul_(u_NW), g_NW))
            products(block, dh_NU, w_in_EUD, dy_ND)
            dx_MD.index_add_(0, token_N, dy_ND.to(dx_MD.dtype))
            outer_products(block, dh_NU, x_MD.index_select(0, token_N), dw_in_EUD)
        busy = {expert for block in ctx.blocks for expert, _, _ in block.stretches}
        for expert in set(range(len(w_in_EUD))) - busy:
            dw_in_EUD[expert].zero_()
            dw_out_EDW[expert].zero_()
        return dx_MD.to(x_MD.dtype), dgates_P, None, None, dw_in_EUD, dw_out_EDW


def weighted(g_NW: Tensor, u_NW: Tensor, gate_N1: Tensor) -> Tensor:
    """gate silu(g) u, [N, W]: the gate value on the shorter side of the product."""
    return F.silu(g_NW).mul_(u_NW).mul_(gate_N1.to(g_NW.dtype))


@dataclass(frozen=True)
class Block:
    """Rows [start, end) of all, and the stretches in them: expert, and its rows [first, last) counted from `start`."""

    start: int
    end: int
    stretches: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def rows(self) -> slice:
        """Its rows among all."""
        return slice(self.start, self.end)


def blocked(ends: list[int]) -> list[Block]:
    """Busy experts side by side, up to ROWS rows a block, or one expert with more."""
    groups: list[list[tuple[int, int, int]]] = []
    for expert, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if start < end:
            if not groups or end - groups[-1][0][1] > ROWS:
                groups.append([])
            groups[-1].append((expert, start, end))
    return [
        Block(group[0][1], group[-1][2], tuple((e, start - group[0][1], end - group[0][1]) for e, start, end in group))
        for group in groups
    ]


def longest(blocks: list[Block]) -> int:
    """Rows of the largest block."""
    return max(map(len, blocks), default=0)


def products(block: Block, rows_NA: Tensor, w_EAB: Tensor, out_NB: Tensor) -> None:
    """out = rows times the matrix of each row's expert."""
    for expert, start, end in block.stretches:
        torch.mm(rows_NA[start:end], w_EAB[expert], out=out_NB[start:end])


def outer_products(block: Block, rows_NA: Tensor, rows_NB: Tensor, out_EAB: Tensor) -> None:
    """out of each expert = rows_NA^T rows_NB over its rows."""
    for expert, start, end in block.stretches:
        torch.mm(rows_NA[start:end].T, rows_NB[start:end], out=out_EAB[expert])
