"""Triton kernels of products of FP8 operands with fine-grained scales: persistent, plain and grouped.

    by_blocks    a_RL w_SL^T     tiles of a, blocks of w: forward and dgrad; GROUPED: rows belong to experts
    by_tiles     a_RL b_SL^T     tiles of both, FP32 result: wgrad; GROUPED: the summed axis belongs to experts

One step sums 128 elements in the tensor core and adds them, times both scales, to sums in FP32: as far as the tensor
core may be trusted (`tensor_core.py`) and as far as a scale reaches. Scales are loaded ahead: two steps, or one where
both operands have a scale a row. Programs take every so-many-th block of the result, GROUP blocks of rows down before
the next columns, so that those at work at one time share both operands in L2. Operands are descriptors, copied
asynchronously, and so is the result where its rows begin at multiples of 16 bytes.
Shape suffixes: R rows of a, S rows of b, L summed, E groups; a block's M rows, N columns, K = 128 summed.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _place(number, row_blocks, column_blocks, GROUP: tl.constexpr):
    """Block of rows and of columns of the result."""
    strip = GROUP * column_blocks
    first = number // strip * GROUP
    size = tl.minimum(row_blocks - first, GROUP)
    return first + number % strip % size, number % strip // size


@jit
def _scales(scale_ptr, tile, r, rows):
    """The scale of each row in a tile."""
    return tl.load(scale_ptr + tile * rows + r, mask=r < rows, other=0.0)


@jit
def _store(out, total, shift, row, rows, column, columns, M: tl.constexpr, N: tl.constexpr, TMA: tl.constexpr):
    """A block of the result, `shift` rows down."""
    if TMA:
        out.store([shift + row, column], total.to(out.dtype))
    else:
        r, c = row + tl.arange(0, M), column + tl.arange(0, N)
        inside = (r < rows)[:, None] & (c < columns)[None, :]
        target = out + (shift + r).to(tl.int64)[:, None] * columns + c[None, :]
        tl.store(target, total.to(out.dtype.element_ty), mask=inside)


@jit
def _end(ends_ptr, group, groups, MOST: tl.constexpr):
    """The row after the last of the group before `group`."""
    every = tl.arange(0, MOST)
    return tl.max(tl.load(ends_ptr + every, mask=(every < groups) & (every < group), other=0), 0)


@jit
def _group_of(ends_ptr, groups, row, MOST: tl.constexpr):
    """The group of a row, or `groups` for none: how many end at or before it."""
    every = tl.arange(0, MOST)
    ends = tl.load(ends_ptr + every, mask=every < groups, other=0x7FFFFFFF)
    return tl.sum((ends <= row).to(tl.int32), 0)


@jit(do_not_specialize=["groups"])
def by_blocks(
    a, b, out, a_scale_ptr, b_scale_ptr, ends_ptr, rows, columns, length, groups,
    TMA: tl.constexpr, GROUPED: tl.constexpr, MOST: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """out [R, S]. `a` [R, L], its scales [L / 128, R]; `b` [(E x) S, L], its scales [(E,) S / 128, L / 128], tiles
    rounded up. N is a part of 128. GROUPED: groups begin at multiples of M; rows after the last are zeros."""
    steps, row_blocks, column_blocks = tl.cdiv(length, 128), tl.cdiv(rows, M), tl.cdiv(columns, N)
    for number in tl.range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0)):
        row_block, column_block = _place(number, row_blocks, column_blocks, GROUP)
        row, column, first, last, block = row_block * M, column_block * N, 0, steps, column_block * N // 128
        if GROUPED:
            group = _group_of(ends_ptr, groups, row, MOST)
            last = tl.where(group < groups, steps, 0)
            group = tl.minimum(group, groups - 1)
            first, block = group * columns, block + group * tl.cdiv(columns, 128)
        r = row + tl.arange(0, M)
        b_scales_ptr = b_scale_ptr + block * steps
        total_MN = tl.zeros([M, N], tl.float32)
        second = tl.minimum(1, steps - 1)
        a_next, b_next = _scales(a_scale_ptr, 0, r, rows), tl.load(b_scales_ptr)
        a_then, b_then = _scales(a_scale_ptr, second, r, rows), tl.load(b_scales_ptr + second)
        for step in tl.range(0, last, num_stages=STAGES):
            scale_M = a_next * b_next
            # Triton pipelines no loop that hands a value on as it is, hence the zeros.
            a_next, b_next = a_then + 0.0, b_then + 0.0
            following = tl.minimum(step + 2, steps - 1)
            a_then, b_then = _scales(a_scale_ptr, following, r, rows), tl.load(b_scales_ptr + following)
            total_MN += tl.dot(a.load([row, step * 128]), b.load([first + column, step * 128]).T) * scale_M[:, None]
        _store(out, total_MN, 0, row, rows, column, columns, M, N, TMA)


@jit(do_not_specialize=["groups"])
def by_tiles(
    a, b, out, a_scale_ptr, b_scale_ptr, ends_ptr, rows, columns, length, groups,
    TMA: tl.constexpr, GROUPED: tl.constexpr, MOST: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """out [(E x) R, S] in FP32. `a` [R, L] and `b` [S, L], their scales [L / 128, R] and [L / 128, S], rounded up.
    GROUPED: groups begin at multiples of 128 along L; one without elements has zeros."""
    row_blocks, column_blocks = tl.cdiv(rows, M), tl.cdiv(columns, N)
    each = row_blocks * column_blocks
    for number in tl.range(tl.program_id(0), each * groups, tl.num_programs(0)):
        row_block, column_block = _place(number % each, row_blocks, column_blocks, GROUP)
        row, column, group, begin, last = row_block * M, column_block * N, number // each, 0, tl.cdiv(length, 128)
        if GROUPED:
            begin = _end(ends_ptr, group, groups, MOST) // 128
            last = tl.cdiv(_end(ends_ptr, group + 1, groups, MOST), 128)
        r, c = row + tl.arange(0, M), column + tl.arange(0, N)
        total_MN = tl.zeros([M, N], tl.float32)
        start = tl.minimum(begin, tl.cdiv(length, 128) - 1)
        a_next, b_next = _scales(a_scale_ptr, start, r, rows), _scales(b_scale_ptr, start, c, columns)
        for step in tl.range(begin, last, num_stages=STAGES):
            a_scale_M, b_scale_N = a_next, b_next
            following = tl.minimum(step + 1, last - 1)
            a_next, b_next = _scales(a_scale_ptr, following, r, rows), _scales(b_scale_ptr, following, c, columns)
            part_MN = tl.dot(a.load([row, step * 128]), b.load([column, step * 128]).T)
            total_MN += part_MN * a_scale_M[:, None] * b_scale_N[None, :]
        _store(out, total_MN, group * rows, row, rows, column, columns, M, N, TMA)
