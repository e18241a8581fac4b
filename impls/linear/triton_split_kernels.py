"""Triton kernels of products of FP8 operands whose result has few blocks: the summed axis is divided among programs.

    split     a_RL w_SL^T     tiles of a, blocks of w; each program sums one part of the steps of one block
    add_parts adds the parts up, in their order, so that results are the same every time

One step sums 128 elements in the tensor core and adds them, times both scales, to sums in FP32. Scales are loaded four
steps ahead: only one ahead, each step takes as long as memory takes to answer. TURNED multiplies w a^T, so that the 64
rows of an instruction are rows of the weight, not rows that a has not. EARLY: both launches overlap (programmatic
dependent launch); the second waits before it reads.
Shape suffixes: R rows of a, S rows of w, L summed; a block's M rows, N columns; P parts, E elements.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _scales(a_scale_ptr, b_scale_ptr, step, steps, r, rows):
    """The scale of each row in a tile of a, and that of a block of w; those of the last for steps beyond it."""
    step = tl.minimum(step, steps - 1)
    return tl.load(a_scale_ptr + step * rows + r, mask=r < rows, other=0.0), tl.load(b_scale_ptr + step)


@jit
def split(
    a, b, out_ptr, a_scale_ptr, b_scale_ptr, rows, columns, length, parts,
    M: tl.constexpr, N: tl.constexpr, STAGES: tl.constexpr, TURNED: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """out [parts, R, S]. `a` [R, L], its scales [L / 128, R]; `b` [S, L], its scales [S / 128, L / 128], tiles rounded
    up. N is a part of 128; no more parts than steps."""
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    steps, row_blocks = tl.cdiv(length, 128), tl.cdiv(rows, M)
    block, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    row, column = block % row_blocks * M, block // row_blocks * N
    begin, end = part * steps // parts, (part + 1) * steps // parts
    r, c = row + tl.arange(0, M), column + tl.arange(0, N)
    b_scale_ptr += column // 128 * steps
    a0, b0 = _scales(a_scale_ptr, b_scale_ptr, begin, steps, r, rows)
    a1, b1 = _scales(a_scale_ptr, b_scale_ptr, begin + 1, steps, r, rows)
    a2, b2 = _scales(a_scale_ptr, b_scale_ptr, begin + 2, steps, r, rows)
    a3, b3 = _scales(a_scale_ptr, b_scale_ptr, begin + 3, steps, r, rows)
    total = tl.zeros([N, M] if TURNED else [M, N], tl.float32)
    for step in tl.range(begin, end, num_stages=STAGES):
        scale_M = a0 * b0
        # Triton pipelines no loop that hands a value on as it is, hence the zeros.
        a0, a1, a2, b0, b1, b2 = a1 + 0.0, a2 + 0.0, a3 + 0.0, b1 + 0.0, b2 + 0.0, b3 + 0.0
        a3, b3 = _scales(a_scale_ptr, b_scale_ptr, step + 4, steps, r, rows)
        if TURNED:
            total += tl.dot(b.load([column, step * 128]), a.load([row, step * 128]).T) * scale_M[None, :]
        else:
            total += tl.dot(a.load([row, step * 128]), b.load([column, step * 128]).T) * scale_M[:, None]
    total_MN = total.T if TURNED else total
    target = out_ptr + (part * rows + r).to(tl.int64)[:, None] * columns + c[None, :]
    tl.store(target, total_MN.to(out_ptr.dtype.element_ty), mask=(r < rows)[:, None] & (c < columns)[None, :])


@jit
def add_parts(parts_ptr, out_ptr, length, parts, P: tl.constexpr, E: tl.constexpr, EARLY: tl.constexpr):
    """out [L], the sum of `parts`, at most P, of [parts, L] in FP32."""
    element, part = tl.program_id(0) * E + tl.arange(0, E), tl.arange(0, P)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    inside = (part < parts)[:, None] & (element < length)[None, :]
    total_E = tl.sum(
        tl.load(parts_ptr + part.to(tl.int64)[:, None] * length + element[None, :], mask=inside, other=0.0), 0
    )
    tl.store(out_ptr + element, total_E.to(out_ptr.dtype.element_ty), mask=element < length)
