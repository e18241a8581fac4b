"""The experts' products by the Triton kernels, with launches that follow from sizes alone.

Neither gate and up products nor sorted copies of the hidden states go through memory; what does is h [P, W] and each
pair's output [P, D]. Weights are read where they lie, so nothing is prepared.
Shape suffixes: M tokens, D hidden, E experts, K chosen, P = M x K pairs, W width, U = 2 W, T blocks of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..triton_jit import TensorDescriptor
from . import triton_grouped_kernels as kernels
from .triton_order import Sorted
from .triton_routing import padded

GROUP = 8
COLUMNS = 1024


@dataclass(frozen=True)
class Tile:
    """A program of a grouped product: N columns, K entries a step, stages in flight, warps."""

    columns: int
    step: int
    stages: int
    warps: int

    def constants(self, rows: int) -> dict[str, int]:
        """As the kernels take them, for blocks of `rows` rows."""
        return {
            "M": rows,
            "N": self.columns,
            "K": self.step,
            "STAGES": self.stages,
            "GROUP": GROUP,
            "num_warps": self.warps,
        }


@dataclass(frozen=True)
class Launch:
    """Rows of a block, and the tiles of both products."""

    rows: int
    gate_up: Tile
    down: Tile

    @property
    def turned(self) -> bool:
        """Whether weights are the first factor."""
        return self.rows <= 32

    @property
    def tiled(self) -> bool:
        """Whether rows that lie side by side come by tile copies; few rows come alone, without those of others."""
        return self.rows >= 128


SMALL = Launch(16, Tile(64, 128, 3, 4), Tile(128, 128, 3, 4))
MIDDLE = Launch(64, Tile(64, 64, 4, 4), Tile(128, 64, 4, 4))
LARGE = Launch(128, Tile(128, 64, 4, 8), Tile(256, 64, 4, 8))


def launch_for(pairs: int, experts: int) -> Launch:
    """By the mean rows of an expert: up to 8 and up to 64 the weights' bytes bind, and two programs share a processor
    so that one loads while the other starts or ends; above, the matrix units bind."""
    rows = pairs / min(pairs, experts)
    return SMALL if rows <= 8 else MIDDLE if rows <= 64 else LARGE


def tiles(matrix: Tensor, *block: int) -> Any:
    """A block of a matrix as one asynchronous copy."""
    return TensorDescriptor.from_tensor(matrix, list(block))


def hidden_rows(
    x: Tensor,
    pair_P: Tensor | None,
    top_k: int,
    tiles_3T: Tensor,
    rows: int,
    w_in_EUD: Tensor,
    launch: Launch,
    both_PU: Tensor | None = None,
) -> Tensor:
    """silu(W_gate x) * W_up x of each row, [P, W].

    `x` is [P, D], sorted by expert, or with `pair_P` (sorted pairs of token x top_k + choice) [M, D]. `both_PU` gets
    the two products; not with turned launches.
    """
    _, stacked, hidden = w_in_EUD.shape
    width, tile, blocks = stacked // 2, launch.gate_up, tiles_3T.shape[1]
    h_PW = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    pairs, listed = (tiles_3T, False) if pair_P is None else (pair_P, True)
    more: dict[str, Any] = {"LISTED": listed, **tile.constants(launch.rows)}
    if launch.turned and both_PU is not None:
        raise ValueError(f"a launch of {launch.rows} rows does not keep gate and up products; take one of 64 or 128")
    if launch.turned:
        kernel, weights = kernels.gate_up_turned, tiles(w_in_EUD.view(-1, hidden), tile.columns, tile.step)
    else:
        more |= {"TILED": launch.tiled and not listed, "KEEP": both_PU is not None}
        more["both_ptr"] = h_PW if both_PU is None else both_PU
        kernel, weights = kernels.gate_up, tiles(w_in_EUD.view(-1, width, hidden), 2, tile.columns, tile.step)
        x = tiles(x, launch.rows, tile.step) if more["TILED"] else x
    grid = (blocks * math.ceil(width / tile.columns),)
    kernel[grid](
        x,
        pairs,
        weights=weights,
        h_ptr=h_PW,
        tiles_ptr=tiles_3T,
        blocks=blocks,
        top_k=top_k,
        hidden=hidden,
        width=width,
        **more,
    )
    return h_PW


def output_rows(
    h_PW: Tensor, order: Sorted | None, gates_MK: Tensor | None, tiles_3T: Tensor, w_out_EDW: Tensor, launch: Launch
) -> Tensor:
    """W_out h of each row, [P, D]; with an order and gates, times the gate value, in the order of the pairs."""
    _, hidden, width = w_out_EDW.shape
    tile, blocks = launch.down, tiles_3T.shape[1]
    o_PD = torch.empty(len(h_PW), hidden, dtype=h_PW.dtype, device=h_PW.device)
    gated = order is not None and gates_MK is not None
    kernels.down[(blocks * math.ceil(hidden / tile.columns),)](
        tiles(h_PW, launch.rows, tile.step) if launch.tiled else h_PW,
        order.pair_P if gated else tiles_3T,
        gates_MK if gated else tiles_3T,
        tiles(w_out_EDW.view(-1, width), tile.columns, tile.step),
        o_PD,
        tiles_3T,
        blocks,
        hidden,
        width,
        GATED=gated,
        TILED=launch.tiled,
        TURNED=launch.turned,
        **tile.constants(launch.rows),
    )
    return o_PD


def combined(o_PD: Tensor, shared_MD: Tensor | None, tokens: int) -> Tensor:
    """The sum of each token's rows (and of the shared experts' output) in FP32, [M, D]."""
    hidden, columns = o_PD.shape[1], min(COLUMNS, padded(o_PD.shape[1]))
    y_MD = torch.empty(tokens, hidden, dtype=o_PD.dtype, device=o_PD.device)
    kernels.combine[(tokens, math.ceil(hidden / columns))](
        o_PD,
        o_PD if shared_MD is None else shared_MD,
        y_MD,
        hidden,
        TOP_K=len(o_PD) // tokens,
        SHARED=shared_MD is not None,
        COLUMNS=columns,
        num_warps=4,
    )
    return y_MD


def silu_mul(gate_up_MU: Tensor) -> Tensor:
    """silu(gate) * up, [M, W]."""
    tokens, width = len(gate_up_MU), gate_up_MU.shape[1] // 2
    h_MW = torch.empty(tokens, width, dtype=gate_up_MU.dtype, device=gate_up_MU.device)
    columns = min(COLUMNS, padded(width))
    kernels.silu_mul[(tokens, math.ceil(width / columns))](gate_up_MU, h_MW, width, COLUMNS=columns, num_warps=4)
    return h_MW
