"""Triton kernels of the experts' products: rows sorted by expert, a block of rows of one expert a program.

    gate_up    h = silu(W_gate x) * W_up x      rows of x gathered through the sorted pairs where a list is given
    down       o = (W_out h) gate               stored at the pair's number, so that a token's outputs lie side by side
    combine    y = Σ_k o_k + shared             in FP32, a token's rows in order, no atomics

Gate and up rows of the weights are loaded as one tile [2, N, K], so that one matrix instruction of 256 columns serves
both. Up to 16 rows the weights are the instruction's first factor (it has 64 rows) and the products are transposed.
Weights come by asynchronous tile copies in pipelined loops. Blocks of rows that the loads do not fill leave at once.

Shape suffixes: a block's M rows and N columns, K reduced; in memory T blocks, P pairs, D hidden, W width, E experts.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _block(tiles_ptr, blocks, columns, GROUP: tl.constexpr):
    """This program's expert (-1 for none), first row, row after the expert's last, and block of columns.

    Programs next to each other share a block of columns and so, mostly, the weights: they go down GROUP blocks of rows
    before the next block of columns.
    """
    program = tl.program_id(0)
    strip = GROUP * columns
    first = program // strip * GROUP
    size = tl.minimum(blocks - first, GROUP)
    block = first + program % strip % size
    column = program % strip // size
    expert = tl.load(tiles_ptr + block)
    start = tl.load(tiles_ptr + blocks + block)
    end = tl.load(tiles_ptr + 2 * blocks + block)
    return expert, start, end, column


@jit
def _rows(rows_ptr, place, inside, k, size, K: tl.constexpr):
    """A block [M, K] of rows that lie `size` apart, zero outside."""
    column = k + tl.arange(0, K)
    pointers = rows_ptr + place.to(tl.int64)[:, None] * size + column[None, :]
    return tl.load(pointers, mask=inside[:, None] & (column < size)[None, :], other=0.0)


@jit
def _silu_mul(gate, up):
    return gate / (1 + tl.exp(-gate)) * up


@jit
def _tokens(pair_ptr, row, inside, top_k):
    """The token of each row; pairs are token x top_k + choice."""
    return (tl.load(pair_ptr + row, mask=inside, other=0) // top_k).to(tl.int32)


@jit(do_not_specialize=["blocks", "top_k"])
def gate_up(
    x, pair_ptr, weights, h_ptr, both_ptr, tiles_ptr, blocks, top_k, hidden, width,
    LISTED: tl.constexpr, TILED: tl.constexpr, KEEP: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """h [P, W]. `weights` are [2 E, W, D] in tiles [2, N, K]; `x` is [P, D] (TILED: in tiles [M, K]) or, LISTED,
    [tokens, D] through pairs of token x top_k + choice. KEEP: gate and up products [P, 2 W] are stored as well."""
    expert, start, end, block = _block(tiles_ptr, blocks, tl.cdiv(width, N), GROUP)
    if expert < 0:
        return
    row = start + tl.arange(0, M)
    inside = row < end
    place = _tokens(pair_ptr, row, inside, top_k) if LISTED else row
    acc = tl.zeros([M, 2 * N], tl.float32)
    for k in tl.range(0, hidden, K, num_stages=STAGES):
        w_NK = weights.load([2 * expert, block * N, k]).reshape(2 * N, K)
        x_MK = x.load([start, k]) if TILED else _rows(x, place, inside, k, hidden, K)
        acc = tl.dot(x_MK, w_NK.T, acc)
    gate_MN, up_MN = acc.reshape(M, 2, N).permute(0, 2, 1).split()
    column = block * N + tl.arange(0, N)
    mask = inside[:, None] & (column < width)[None, :]
    if KEEP:
        target = both_ptr + row.to(tl.int64)[:, None] * 2 * width + column[None, :]
        tl.store(target, gate_MN.to(both_ptr.dtype.element_ty), mask=mask)
        tl.store(target + width, up_MN.to(both_ptr.dtype.element_ty), mask=mask)
    target = h_ptr + row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(target, _silu_mul(gate_MN, up_MN).to(h_ptr.dtype.element_ty), mask=mask)


@jit(do_not_specialize=["blocks", "top_k"])
def gate_up_turned(
    x_ptr, pair_ptr, weights, h_ptr, tiles_ptr, blocks, top_k, hidden, width, LISTED: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """The same for 16 or 32 rows, as [N, M]. `weights` are [2 E x W, D] in tiles [N, K]: as a first factor, a tile of
    both would be copied to registers."""
    expert, start, end, block = _block(tiles_ptr, blocks, tl.cdiv(width, N), GROUP)
    if expert < 0:
        return
    row = start + tl.arange(0, M)
    inside = row < end
    place = _tokens(pair_ptr, row, inside, top_k) if LISTED else row
    gate_NM = tl.zeros([N, M], tl.float32)
    up_NM = tl.zeros([N, M], tl.float32)
    first = 2 * expert * width + block * N
    for k in tl.range(0, hidden, K, num_stages=STAGES):
        x_KM = _rows(x_ptr, place, inside, k, hidden, K).T
        gate_NM = tl.dot(weights.load([first, k]), x_KM, gate_NM)
        up_NM = tl.dot(weights.load([first + width, k]), x_KM, up_NM)
    column = block * N + tl.arange(0, N)
    target = h_ptr + row.to(tl.int64)[None, :] * width + column[:, None]
    mask = inside[None, :] & (column < width)[:, None]
    tl.store(target, _silu_mul(gate_NM, up_NM).to(h_ptr.dtype.element_ty), mask=mask)


@jit(do_not_specialize=["blocks"])
def down(
    h, pair_ptr, gates_ptr, weights, o_ptr, tiles_ptr, blocks, hidden, width,
    GATED: tl.constexpr, TILED: tl.constexpr, TURNED: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """o [P, D]: row by row, or GATED, times the pair's gate value, at the pair's number. `weights` are [E x D, W] in
    tiles [N, K]; `h` is [P, W] (TILED: in tiles [M, K])."""
    expert, start, end, block = _block(tiles_ptr, blocks, tl.cdiv(hidden, N), GROUP)
    if expert < 0:
        return
    row = start + tl.arange(0, M)
    inside = row < end
    acc = tl.zeros([N, M] if TURNED else [M, N], tl.float32)
    for k in tl.range(0, width, K, num_stages=STAGES):
        w_NK = weights.load([expert * hidden + block * N, k])
        h_MK = h.load([start, k]) if TILED else _rows(h, row, inside, k, width, K)
        acc = tl.dot(w_NK, h_MK.T, acc) if TURNED else tl.dot(h_MK, w_NK.T, acc)
    place = row
    if GATED:
        place = tl.load(pair_ptr + row, mask=inside, other=0)
        gate = tl.load(gates_ptr + place, mask=inside, other=0.0)
        acc = acc * gate[None, :] if TURNED else acc * gate[:, None]
    column = block * N + tl.arange(0, N)
    target = o_ptr + place.to(tl.int64)[:, None] * hidden + column[None, :]
    mask = inside[:, None] & (column < hidden)[None, :]
    if TURNED:
        target, mask = target.T, mask.T
    tl.store(target, acc.to(o_ptr.dtype.element_ty), mask=mask)


@jit
def combine(o_ptr, shared_ptr, y_ptr, hidden, TOP_K: tl.constexpr, SHARED: tl.constexpr, COLUMNS: tl.constexpr):
    """y [tokens, D] from o [tokens x TOP_K, D] and, SHARED, another [tokens, D]."""
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = column < hidden
    y = tl.zeros([COLUMNS], tl.float32)
    for choice in tl.static_range(TOP_K):
        row = token * TOP_K + choice
        y += tl.load(o_ptr + row * hidden + column, mask=mask, other=0.0).to(tl.float32)
    if SHARED:
        y += tl.load(shared_ptr + token * hidden + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + token * hidden + column, y.to(y_ptr.dtype.element_ty), mask=mask)


@jit
def silu_mul(gate_up_ptr, h_ptr, width, COLUMNS: tl.constexpr):
    """h [tokens, W] = silu(gate) * up from [tokens, 2 W], gate first."""
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = column < width
    gate = tl.load(gate_up_ptr + token * 2 * width + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + token * 2 * width + width + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(h_ptr + token * width + column, _silu_mul(gate, up).to(h_ptr.dtype.element_ty), mask=mask)
