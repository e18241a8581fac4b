"""Triton kernels of MLA decode: one pass over the pages of a latent cache, and the merge of its splits.

A program takes a block of query rows (new tokens x heads) of one sequence and one share of its pages. Keys are the
page's 512 latents and 64 rotated values, values are the same latents, so a page is loaded once and serves both
products. The softmax is online, in base 2 and FP32.

Two orientations of the score matrix, because Hopper's matrix instruction has 64 rows:
`attend_turned*` put the 64 cached tokens there and the query rows across, S^T = K q^T and O^T = K^T P^T, so 16 or 32
query rows waste nothing; `attend_direct` puts 64 query rows there, which costs fewer shared-memory reads when there
are as many.

Shape suffixes: B sequences, M query rows (new tokens x heads, token-major), N pages a sequence, C = 512 latent,
R = 64 rotated, K = C + R.
"""

from __future__ import annotations

from ..triton_jit import jit, tl

RUNTIME = ["rows", "heads", "table_stride", "splits"]


@jit
def _share(lengths_ptr, sequence, split, splits, PAGE: tl.constexpr):
    """Length of the sequence, and the pages [first, last) of this split; empty for splits that are too many."""
    length = tl.load(lengths_ptr + sequence)
    pages = tl.cdiv(length, PAGE)
    share = tl.cdiv(pages, splits)
    first = split * share
    return length, first, tl.minimum(first + share, pages)


@jit
def _query_rows(q_ptr, sequence, block, rows, ROWS: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    """The block's rows of q [B, M, K] as [ROWS, C] and [ROWS, R], zero beyond M, and their numbers."""
    row = block * ROWS + tl.arange(0, ROWS)
    start = q_ptr + (sequence * rows + row).to(tl.int64)[:, None] * (C + R)
    inside = (row < rows)[:, None]
    q_MC = tl.load(start + tl.arange(0, C)[None, :], mask=inside, other=0.0)
    q_MR = tl.load(start + C + tl.arange(0, R)[None, :], mask=inside, other=0.0)
    return q_MC, q_MR, row


@jit
def _finish(o_ptr, lse_ptr, o_MC, top, total, sequence, split, splits, row, rows, C: tl.constexpr):
    """Store a block of o [B, splits, M, C] and its log2-sum-exp [B, splits, M]; an empty share leaves 0 and -inf."""
    place = (sequence * splits + split).to(tl.int64) * rows + row
    columns = tl.arange(0, C)[None, :]
    tl.store(o_ptr + place[:, None] * C + columns, o_MC.to(o_ptr.dtype.element_ty), mask=(row < rows)[:, None])
    if splits > 1:
        tl.store(lse_ptr + place, top + tl.log2(total), mask=row < rows)


@jit(do_not_specialize=RUNTIME)
def attend_turned(
    q_ptr, latents, rope, table_ptr, lengths_ptr, o_ptr, lse_ptr, scale, rows, heads, table_stride,
    splits, ROWS: tl.constexpr, STAGES: tl.constexpr, PAGE: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """16-bit cache, up to 32 rows a program: scores as [tokens, rows]. `scale` includes log2(e)."""
    split, sequence = tl.program_id(1), tl.program_id(2)
    length, first, last = _share(lengths_ptr, sequence, split, splits, PAGE)
    q_MC, q_MR, row = _query_rows(q_ptr, sequence, tl.program_id(0), rows, ROWS, C, R)
    limit = length - rows // heads + 1 + row // heads
    top = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([PAGE, ROWS], tl.float32)
    o_CM = tl.zeros([C, ROWS], tl.float32)

    table_ptr += sequence * table_stride
    page = tl.load(table_ptr + first, mask=first < last, other=0)
    for index in tl.range(first, last, num_stages=STAGES):
        k_NC = latents.load([page * PAGE, 0])
        k_NR = rope.load([page * PAGE, 0])
        page = tl.load(table_ptr + tl.minimum(index + 1, last - 1))
        s_NM = tl.dot(k_NR, q_MR.T, tl.dot(k_NC, q_MC.T)) * scale
        slot = index * PAGE + tl.arange(0, PAGE)
        s_NM = tl.where(slot[:, None] < limit[None, :], s_NM, float("-inf"))
        new_top = tl.maximum(tl.maximum(top, tl.max(s_NM, 0)), -1e30)
        shrink = tl.exp2(top - new_top)
        p_NM = tl.exp2(s_NM - new_top[None, :])
        sums = sums * shrink[None, :] + p_NM
        o_CM = tl.dot(k_NC.T, p_NM.to(k_NC.dtype), o_CM * shrink[None, :])
        top = new_top
    total = tl.sum(sums, 0)
    o_MC = tl.trans(o_CM / tl.maximum(total, 1e-30)[None, :])
    _finish(o_ptr, lse_ptr, o_MC, top, total, sequence, split, splits, row, rows, C)


@jit(do_not_specialize=RUNTIME)
def attend_direct(
    q_ptr, latents, rope, table_ptr, lengths_ptr, o_ptr, lse_ptr, scale, rows, heads, table_stride,
    splits, ROWS: tl.constexpr, STAGES: tl.constexpr, PAGE: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """16-bit cache, 64 rows a program: scores as [rows, tokens]."""
    split, sequence = tl.program_id(1), tl.program_id(2)
    length, first, last = _share(lengths_ptr, sequence, split, splits, PAGE)
    q_MC, q_MR, row = _query_rows(q_ptr, sequence, tl.program_id(0), rows, ROWS, C, R)
    limit = length - rows // heads + 1 + row // heads
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    o_MC = tl.zeros([ROWS, C], tl.float32)

    table_ptr += sequence * table_stride
    page = tl.load(table_ptr + first, mask=first < last, other=0)
    for index in tl.range(first, last, num_stages=STAGES):
        k_NC = latents.load([page * PAGE, 0])
        k_NR = rope.load([page * PAGE, 0])
        page = tl.load(table_ptr + tl.minimum(index + 1, last - 1))
        s_MN = tl.dot(q_MR, k_NR.T, tl.dot(q_MC, k_NC.T)) * scale
        slot = index * PAGE + tl.arange(0, PAGE)
        s_MN = tl.where(slot[None, :] < limit[:, None], s_MN, float("-inf"))
        new_top = tl.maximum(tl.maximum(top, tl.max(s_MN, 1)), -1e30)
        shrink = tl.exp2(top - new_top)
        p_MN = tl.exp2(s_MN - new_top[:, None])
        total = total * shrink + tl.sum(p_MN, 1)
        o_MC = tl.dot(p_MN.to(k_NC.dtype), k_NC, o_MC * shrink[:, None])
        top = new_top
    o_MC /= tl.maximum(total, 1e-30)[:, None]
    _finish(o_ptr, lse_ptr, o_MC, top, total, sequence, split, splits, row, rows, C)


@jit
def _dequantized(latents, scales_ptr, page, PAGE: tl.constexpr, C: tl.constexpr, GROUP: tl.constexpr,
                 ROW_BYTES: tl.constexpr):  # fmt: skip
    """A page's latents in FP16, [N, C]: E4M3 values times their group's scale."""
    slot = (page * PAGE + tl.arange(0, PAGE)).to(tl.int64)[:, None]
    scales = tl.load(scales_ptr + slot * (ROW_BYTES // 4) + tl.arange(0, C // GROUP)[None, :]).to(tl.float16)
    values = latents.load([page * PAGE, 0]).to(tl.float16).reshape(PAGE, C // GROUP, GROUP)
    return (values * scales[:, :, None]).reshape(PAGE, C)


@jit
def _scaled_queries(q_MC, scale):
    """FP16 queries of magnitude up to 1, and what their scores are to be multiplied with."""
    unit = tl.maximum(tl.max(tl.abs(q_MC.to(tl.float32)), 1), 1e-30)
    return (q_MC.to(tl.float32) / unit[:, None]).to(tl.float16), unit * scale


@jit(do_not_specialize=RUNTIME)
def attend_turned_fp8(
    q_ptr, latents, scales_ptr, rope, table_ptr, lengths_ptr, o_ptr, lse_ptr, scale, rows, heads, table_stride,
    splits, ROWS: tl.constexpr, STAGES: tl.constexpr, PAGE: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    GROUP: tl.constexpr, ROW_BYTES: tl.constexpr,
):  # fmt: skip
    """FP8 cache, up to 16 rows a program: scores as [tokens, rows]. Latents must be below FP16's 65,504."""
    split, sequence = tl.program_id(1), tl.program_id(2)
    length, first, last = _share(lengths_ptr, sequence, split, splits, PAGE)
    q_MC, q_MR, row = _query_rows(q_ptr, sequence, tl.program_id(0), rows, ROWS, C, R)
    q_MC, unit = _scaled_queries(q_MC, scale)
    limit = length - rows // heads + 1 + row // heads
    top = tl.full([ROWS], float("-inf"), tl.float32)
    sums = tl.zeros([PAGE, ROWS], tl.float32)
    o_CM = tl.zeros([C, ROWS], tl.float32)

    table_ptr += sequence * table_stride
    page = tl.load(table_ptr + first, mask=first < last, other=0)
    for index in tl.range(first, last, num_stages=STAGES):
        k_NC = _dequantized(latents, scales_ptr, page, PAGE, C, GROUP, ROW_BYTES)
        k_NR = rope.load([page * PAGE, 0]).to(q_MR.dtype)
        page = tl.load(table_ptr + tl.minimum(index + 1, last - 1))
        s_NM = tl.dot(k_NC, q_MC.T) * unit[None, :] + tl.dot(k_NR, q_MR.T) * scale
        slot = index * PAGE + tl.arange(0, PAGE)
        s_NM = tl.where(slot[:, None] < limit[None, :], s_NM, float("-inf"))
        new_top = tl.maximum(tl.maximum(top, tl.max(s_NM, 0)), -1e30)
        shrink = tl.exp2(top - new_top)
        p_NM = tl.exp2(s_NM - new_top[None, :])
        sums = sums * shrink[None, :] + p_NM
        o_CM = tl.dot(k_NC.T, p_NM.to(tl.float16), o_CM * shrink[None, :])
        top = new_top
    total = tl.sum(sums, 0)
    o_MC = tl.trans(o_CM / tl.maximum(total, 1e-30)[None, :])
    _finish(o_ptr, lse_ptr, o_MC, top, total, sequence, split, splits, row, rows, C)


@jit(do_not_specialize=RUNTIME)
def attend_direct_fp8(
    q_ptr, latents, scales_ptr, rope, table_ptr, lengths_ptr, o_ptr, lse_ptr, scale, rows, heads, table_stride,
    splits, ROWS: tl.constexpr, STAGES: tl.constexpr, PAGE: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    GROUP: tl.constexpr, ROW_BYTES: tl.constexpr,
):  # fmt: skip
    """FP8 cache, 64 rows a program: scores as [rows, tokens]. Dequantized keys are a product's second factor here,
    which the instruction takes from shared memory; as the first they would fill the registers."""
    split, sequence = tl.program_id(1), tl.program_id(2)
    length, first, last = _share(lengths_ptr, sequence, split, splits, PAGE)
    q_MC, q_MR, row = _query_rows(q_ptr, sequence, tl.program_id(0), rows, ROWS, C, R)
    q_MC, unit = _scaled_queries(q_MC, scale)
    limit = length - rows // heads + 1 + row // heads
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    o_MC = tl.zeros([ROWS, C], tl.float32)

    table_ptr += sequence * table_stride
    page = tl.load(table_ptr + first, mask=first < last, other=0)
    for index in tl.range(first, last, num_stages=STAGES):
        k_NC = _dequantized(latents, scales_ptr, page, PAGE, C, GROUP, ROW_BYTES)
        k_NR = rope.load([page * PAGE, 0]).to(q_MR.dtype)
        page = tl.load(table_ptr + tl.minimum(index + 1, last - 1))
        s_MN = tl.dot(q_MC, k_NC.T) * unit[:, None] + tl.dot(q_MR, k_NR.T) * scale
        slot = index * PAGE + tl.arange(0, PAGE)
        s_MN = tl.where(slot[None, :] < limit[:, None], s_MN, float("-inf"))
        new_top = tl.maximum(tl.maximum(top, tl.max(s_MN, 1)), -1e30)
        shrink = tl.exp2(top - new_top)
        p_MN = tl.exp2(s_MN - new_top[:, None])
        total = total * shrink + tl.sum(p_MN, 1)
        o_MC = tl.dot(p_MN.to(tl.float16), k_NC, o_MC * shrink[:, None])
        top = new_top
    o_MC /= tl.maximum(total, 1e-30)[:, None]
    _finish(o_ptr, lse_ptr, o_MC, top, total, sequence, split, splits, row, rows, C)


@jit(do_not_specialize=["rows", "splits"])
def merge(
    parts_ptr, lse_ptr, o_ptr, rows, splits,
    SPLITS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """o [B, M, C] from parts [B, splits, M, C] weighted by 2^lse; SPLITS is `splits` rounded up to a power of two."""
    row, sequence = tl.program_id(0), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    start = (sequence * splits).to(tl.int64) * rows + row
    split = tl.arange(0, SPLITS)
    lse = tl.load(lse_ptr + start + split * rows, mask=split < splits, other=float("-inf"))
    top = tl.max(lse, 0)
    total = tl.sum(tl.exp2(lse - top), 0)
    merged = tl.zeros([COLUMNS], tl.float32)
    for chunk in range(0, splits, CHUNK):
        some = chunk + tl.arange(0, CHUNK)
        source = start + some * rows
        weight = tl.exp2(tl.load(lse_ptr + source, mask=some < splits, other=float("-inf")) - top)
        part = tl.load(parts_ptr + source[:, None] * C + column[None, :], mask=(some < splits)[:, None], other=0.0)
        merged += tl.sum(part * weight[:, None], 0)
    place = (sequence * rows + row).to(tl.int64) * C + column
    tl.store(o_ptr + place, (merged / total).to(o_ptr.dtype.element_ty))
