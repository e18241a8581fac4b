"""Triton kernels that sort pairs of token and chosen expert, and lay blocks of rows out, without a word to the host.

A counting sort: each program counts the experts of a chunk of pairs, a scan over chunks gives each chunk its place in
each expert's rows, and within a chunk a pair's rank is the number of earlier pairs of the same expert. Nothing is
added up in an order that could change. As many pairs as one chunk holds take one launch.

Shape suffixes: C pairs of a chunk, E experts (padded to a power of two), T blocks of rows.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _chosen(experts_ptr, pair, pairs, experts):
    """Experts of some pairs, one that does not exist past the end."""
    return tl.load(experts_ptr + pair, mask=pair < pairs, other=experts).to(tl.int32)


@jit
def _counts(expert_C, E: tl.constexpr):
    """How often each expert occurs, [E]."""
    return tl.sum((expert_C[:, None] == tl.arange(0, E)[None, :]).to(tl.int32), 0)


@jit(do_not_specialize=["pairs", "experts", "chunks"])
def count(experts_ptr, counts_ptr, pairs, experts, chunks, C: tl.constexpr, E: tl.constexpr):
    """counts [E, chunks] of each chunk."""
    chunk, expert = tl.program_id(0), tl.arange(0, E)
    counts = _counts(_chosen(experts_ptr, chunk * C + tl.arange(0, C), pairs, experts), E)
    tl.store(counts_ptr + expert * chunks + chunk, counts, mask=expert < experts)


@jit(do_not_specialize=["chunks"])
def scan(counts_ptr, loads_ptr, chunks, SOME: tl.constexpr):
    """For one expert: each count becomes the sum of those before it; loads [E] get the sum of all."""
    expert = tl.program_id(0)
    total = tl.zeros([], tl.int32)
    for first in range(0, chunks, SOME):
        chunk = first + tl.arange(0, SOME)
        pointers = counts_ptr + expert * chunks + chunk
        counts = tl.load(pointers, mask=chunk < chunks, other=0)
        tl.store(pointers, total + tl.cumsum(counts, 0) - counts, mask=chunk < chunks)
        total += tl.sum(counts, 0)
    tl.store(loads_ptr + expert, total)


@jit
def _tiles(tiles_ptr, tile, tiles, loads_E, experts, BLOCK: tl.constexpr, E: tl.constexpr):
    """tiles [3, T]: expert, first row and row after the expert's last of some blocks; expert -1 past the last block."""
    ends_E = tl.cumsum(loads_E, 0)
    blocks_E = (loads_E + BLOCK - 1) // BLOCK
    last_E = tl.cumsum(blocks_E, 0)
    first_E = last_E - blocks_E
    expert = tl.sum((tile[None, :] >= last_E[:, None]).to(tl.int32), 0)
    known = tl.minimum(expert, E - 1)
    start = tl.gather(ends_E - loads_E - first_E * BLOCK, known, 0) + tile * BLOCK
    end = tl.gather(ends_E, known, 0)
    expert = tl.where(expert < experts, expert, -1)
    tl.store(tiles_ptr + tile, expert, mask=tile < tiles)
    tl.store(tiles_ptr + tiles + tile, start, mask=tile < tiles)
    tl.store(tiles_ptr + 2 * tiles + tile, end, mask=tile < tiles)


@jit(do_not_specialize=["pairs", "experts", "chunks", "tiles"])
def place(
    experts_ptr, counts_ptr, loads_ptr, pair_ptr, row_ptr, ends_ptr, tiles_ptr, pairs, experts, chunks, tiles,
    ALONE: tl.constexpr, BLOCK: tl.constexpr, C: tl.constexpr, SOME: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Sorted pairs (int64 [P]), the row of each pair (int32 [P]), ends [E], and tiles for BLOCK rows, none for 0.

    ALONE: one chunk holds all pairs, and nothing was counted before.
    """
    chunk, expert_E = tl.program_id(0), tl.arange(0, E)
    pair = chunk * C + tl.arange(0, C)
    expert_C = _chosen(experts_ptr, pair, pairs, experts)
    loads_E, rank_C = tl.zeros([E], tl.int32), tl.zeros([C], tl.int32)
    for first in tl.range(chunk * C, chunk * C + C, SOME):  # all at once would not fit into the registers
        other = first + tl.arange(0, SOME)
        other_expert = _chosen(experts_ptr, other, pairs, experts)
        earlier = (other[:, None] < pair[None, :]) & (other_expert[:, None] == expert_C[None, :])
        rank_C += tl.sum(earlier.to(tl.int32), 0)
        if ALONE:
            loads_E += _counts(other_expert, E)
    before_E = tl.zeros([E], tl.int32)
    if ALONE:
        loads_E = tl.where(expert_E < experts, loads_E, 0)
    else:
        loads_E = tl.load(loads_ptr + expert_E, mask=expert_E < experts, other=0)
        before_E = tl.load(counts_ptr + expert_E * chunks + chunk, mask=expert_E < experts, other=0)
    ends_E = tl.cumsum(loads_E, 0)
    row = rank_C + tl.gather(before_E + ends_E - loads_E, tl.minimum(expert_C, E - 1), 0)
    tl.store(pair_ptr + row, pair.to(tl.int64), mask=pair < pairs)
    tl.store(row_ptr + pair, row, mask=pair < pairs)
    if chunk == 0:
        tl.store(ends_ptr + expert_E, ends_E, mask=expert_E < experts)
    if BLOCK > 0:  # there are no more blocks than pairs
        _tiles(tiles_ptr, pair, tiles, loads_E, experts, BLOCK, E)


@jit(do_not_specialize=["tiles", "experts"])
def lay(ends_ptr, tiles_ptr, tiles, experts, BLOCK: tl.constexpr, SOME: tl.constexpr, E: tl.constexpr):
    """tiles [3, T] for rows that are sorted already."""
    expert = tl.arange(0, E)
    ends = tl.load(ends_ptr + expert, mask=expert < experts, other=0)
    starts = tl.load(ends_ptr + expert - 1, mask=(expert > 0) & (expert < experts), other=0)
    tile = tl.program_id(0) * SOME + tl.arange(0, SOME)
    _tiles(tiles_ptr, tile, tiles, ends - starts, experts, BLOCK, E)


@jit
def spread(x_ptr, row_ptr, rows_ptr, hidden, TOP_K: tl.constexpr, COLUMNS: tl.constexpr):
    """Each token's x [tokens, D], read once, to the TOP_K rows of its pairs in [P, D]."""
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x = tl.load(x_ptr + token * hidden + column, mask=column < hidden)
    for choice in tl.static_range(TOP_K):
        row = tl.load(row_ptr + token * TOP_K + choice).to(tl.int64)
        tl.store(rows_ptr + row * hidden + column, x, mask=column < hidden)
