"""Pairs sorted by expert, then token, and blocks of rows laid out: one launch for few pairs, three for many.

Wins over a sort of all bits of 64-bit keys: experts are few, so counting is enough. Loses to nothing known at these
sizes; with thousands of experts the comparisons of a chunk with all of them would be too many.
Shape suffixes: M tokens, D hidden, E experts, K chosen, P = M x K pairs, T blocks of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import triton_order_kernels as kernels
from .triton_routing import padded

CHUNK, SLICE = 256, 64
SCANNED = 1024
COLUMNS = 2048


@dataclass(frozen=True)
class Sorted:
    """The order of pairs, and which expert and rows each block of rows has.

    pair_P      int64: the pair (token x K + choice) of each row
    row_P       int32: the row of each pair
    ends_E      int32: the row after the last of each expert
    tiles_3T    int32: a block's expert (-1 for none), first row, and row after the expert's last
    """

    pair_P: Tensor
    row_P: Tensor
    ends_E: Tensor
    tiles_3T: Tensor


def most_blocks(pairs: int, experts: int, block: int) -> int:
    """Blocks of up to `block` rows of one expert that any distribution of the pairs needs."""
    hit = min(pairs, experts)
    return (pairs - hit) // block + hit


def sort_pairs(experts_MK: Tensor, experts: int, block: int = 0) -> Sorted:
    """The order of the chosen experts (int64 [M, K], each below `experts`), and tiles for `block` rows (none for 0)."""
    pairs, device = experts_MK.numel(), experts_MK.device
    chunks, width = math.ceil(pairs / CHUNK), max(16, padded(experts))
    tiles = most_blocks(pairs, experts, block) if block else 0
    pair_P = torch.empty(pairs, dtype=torch.int64, device=device)
    row_P, ends_E = (torch.empty(size, dtype=torch.int32, device=device) for size in (pairs, experts))
    tiles_3T = torch.empty(3, tiles, dtype=torch.int32, device=device)
    counts, loads = ends_E, ends_E
    if chunks > 1:
        counts = torch.empty(experts, chunks, dtype=torch.int32, device=device)
        loads = torch.empty_like(ends_E)
        kernels.count[(chunks,)](experts_MK, counts, pairs, experts, chunks, C=CHUNK, E=width, num_warps=8)
        kernels.scan[(experts,)](counts, loads, chunks, SOME=SCANNED)
    kernels.place[(chunks,)](
        experts_MK,
        counts,
        loads,
        pair_P,
        row_P,
        ends_E,
        tiles_3T,
        pairs,
        experts,
        chunks,
        tiles,
        ALONE=chunks == 1,
        BLOCK=block,
        C=CHUNK,
        SOME=SLICE,
        E=width,
        num_warps=8,
    )
    return Sorted(pair_P, row_P, ends_E, tiles_3T)


def lay_blocks(ends_E: Tensor, rows: int, block: int) -> Tensor:
    """tiles [3, T] of `rows` rows that are sorted already."""
    experts = len(ends_E)
    tiles = most_blocks(rows, experts, block)
    tiles_3T = torch.empty(3, tiles, dtype=torch.int32, device=ends_E.device)
    kernels.lay[(math.ceil(tiles / 64),)](
        ends_E, tiles_3T, tiles, experts, BLOCK=block, SOME=64, E=max(16, padded(experts)), num_warps=4
    )
    return tiles_3T


def spread(x_MD: Tensor, row_P: Tensor, top_k: int) -> Tensor:
    """Copies of the hidden states in the order of the sorted pairs, [P, D]."""
    tokens, hidden = x_MD.shape
    rows_PD = torch.empty(tokens * top_k, hidden, dtype=x_MD.dtype, device=x_MD.device)
    columns = min(COLUMNS, padded(hidden))
    kernels.spread[(tokens, math.ceil(hidden / columns))](
        x_MD, row_P, rows_PD, hidden, TOP_K=top_k, COLUMNS=columns, num_warps=4
    )
    return rows_PD
