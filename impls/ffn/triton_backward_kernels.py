"""Triton kernels of the experts' gradients; rows are sorted by expert as in the forward.

    hidden_grad    da = dy W_out, then by what gate and up were: their gradients, the gate value's, and gate value x a
    input_grad     dx = d(gate, up) W_in        stored at the pair's number
    weight_grad    dW = left^T right            over one expert's rows

with a = silu(W_gate x) * W_up x. dy and x are gathered through the sorted pairs, nothing is copied.
Shape suffixes: a block's M rows, N columns, K reduced, A and B a weight's rows and columns; in memory T blocks,
P pairs, D hidden, W width, E experts.
"""

from __future__ import annotations

from ..triton_jit import jit, tl
from .triton_grouped_kernels import _block, _rows, _tokens


@jit
def _swiglu_grad(da_MN, value, both_ptr, h_ptr, rows, first, width, M: tl.constexpr, N: tl.constexpr):
    """The end of `hidden_grad` for half the columns, which is what fits into the registers; each row's <da, a>."""
    row, column = tl.arange(0, M)[:, None], first + tl.arange(0, N)[None, :]
    mask = (row < rows) & (column < width)
    gate_ptr = both_ptr + row * 2 * width + column
    gate_MN = tl.load(gate_ptr, mask=mask, other=0.0).to(tl.float32)
    up_MN = tl.load(gate_ptr + width, mask=mask, other=0.0).to(tl.float32)
    sigmoid_MN = 1 / (1 + tl.exp(-gate_MN))
    silu_MN = gate_MN * sigmoid_MN
    a_MN = silu_MN * up_MN
    part = tl.sum(tl.where(mask, da_MN * a_MN, 0.0), 1)
    tl.debug_barrier()  # what another warp is yet to load must not be written over
    da_MN *= value[:, None]
    dtype = h_ptr.dtype.element_ty
    tl.store(h_ptr + row * width + column, (value[:, None] * a_MN).to(dtype), mask=mask)
    tl.store(gate_ptr + width, (da_MN * silu_MN).to(dtype), mask=mask)
    tl.store(gate_ptr, (da_MN * up_MN * (sigmoid_MN + silu_MN * (1 - sigmoid_MN))).to(dtype), mask=mask)
    return part


@jit(do_not_specialize=["blocks", "top_k", "pairs"])
def hidden_grad(
    dy_ptr, pair_ptr, gates_ptr, weights, both_ptr, h_ptr, parts_ptr, tiles_ptr, blocks, top_k, pairs, hidden, width,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """In place of gate and up [P, 2 W] their gradients, in place of h [P, W] gate value x a; parts [blocks of columns,
    P] in FP32 of each gate value's gradient. `weights` are [E x D, W] in tiles [K, N]."""
    expert, start, end, block = _block(tiles_ptr, blocks, tl.cdiv(width, N), GROUP)
    if expert < 0:
        return
    row = start + tl.arange(0, M)
    inside = row < end
    token = _tokens(pair_ptr, row, inside, top_k)
    da_MN = tl.zeros([M, N], tl.float32)
    for k in tl.range(0, hidden, K, num_stages=STAGES):
        w_KN = weights.load([expert * hidden + k, block * N])
        da_MN = tl.dot(_rows(dy_ptr, token, inside, k, hidden, K), w_KN, da_MN)

    pair = tl.load(pair_ptr + row, mask=inside, other=0)
    value = tl.load(gates_ptr + pair, mask=inside, other=0.0)
    both_ptr += start.to(tl.int64) * 2 * width
    h_ptr += start.to(tl.int64) * width
    left_MN, right_MN = da_MN.reshape(M, 2, N // 2).permute(0, 2, 1).split()
    part = _swiglu_grad(left_MN, value, both_ptr, h_ptr, end - start, block * N, width, M, N // 2)
    part += _swiglu_grad(right_MN, value, both_ptr, h_ptr, end - start, block * N + N // 2, width, M, N // 2)
    tl.store(parts_ptr + block.to(tl.int64) * pairs + pair, part, mask=inside)


@jit(do_not_specialize=["blocks"])
def input_grad(
    both, pair_ptr, weights, dx_ptr, tiles_ptr, blocks, hidden, stacked,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """dx [P, D] at the pair's number from the gradients of gate and up [P, 2 W] in tiles [M, K]. `weights` are
    [E x 2 W, D] in tiles [K, N]; past an expert's last row stand others, which meet zeros."""
    expert, start, end, block = _block(tiles_ptr, blocks, tl.cdiv(hidden, N), GROUP)
    if expert < 0:
        return
    acc = tl.zeros([M, N], tl.float32)
    for k in tl.range(0, stacked, K, num_stages=STAGES):
        acc = tl.dot(both.load([start, k]), weights.load([expert * stacked + k, block * N]), acc)
    row = start + tl.arange(0, M)
    pair = tl.load(pair_ptr + row, mask=row < end, other=0)
    column = block * N + tl.arange(0, N)
    target = dx_ptr + pair[:, None] * hidden + column[None, :]
    tl.store(target, acc.to(dx_ptr.dtype.element_ty), mask=(row < end)[:, None] & (column < hidden)[None, :])


@jit
def _gathered(rows_ptr, pair_ptr, row, end, top_k, first, size, COLUMNS: tl.constexpr):
    """Columns of the tokens of some rows, zero past the expert's last."""
    token = _tokens(pair_ptr, row, row < end, top_k).to(tl.int64)
    column = first + tl.arange(0, COLUMNS)
    pointers = rows_ptr + token[:, None] * size + column[None, :]
    return tl.load(pointers, mask=(row < end)[:, None] & (column < size)[None, :], other=0.0)


@jit(do_not_specialize=["top_k"])
def weight_grad(
    left, right, pair_ptr, ends_ptr, dw_ptr, top_k, size_a, size_b, LEFT_LISTED: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dw [E, size_a, size_b]: over an expert's rows, left [., size_a]^T times right [., size_b]. One of the two is
    gathered by token, the other in sorted rows, in tiles [K, A] or [K, B]; rows of other experts meet zeros."""
    expert, block = tl.program_id(1), tl.program_id(0)
    first_a, first_b = block // tl.cdiv(size_b, B) * A, block % tl.cdiv(size_b, B) * B
    start = tl.load(ends_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends_ptr + expert)
    acc = tl.zeros([A, B], tl.float32)
    for first in tl.range(start, end, K, num_stages=STAGES):
        row = first + tl.arange(0, K)
        if LEFT_LISTED:
            left_KA = _gathered(left, pair_ptr, row, end, top_k, first_a, size_a, A)
            right_KB = right.load([first, first_b])
        else:
            left_KA = left.load([first, first_a])
            right_KB = _gathered(right, pair_ptr, row, end, top_k, first_b, size_b, B)
        acc = tl.dot(left_KA.T, right_KB, acc)
    a, b = first_a + tl.arange(0, A), first_b + tl.arange(0, B)
    target = dw_ptr + expert.to(tl.int64) * size_a * size_b + a[:, None] * size_b + b[None, :]
    tl.store(target, acc.to(dw_ptr.dtype.element_ty), mask=(a < size_a)[:, None] & (b < size_b)[None, :])
