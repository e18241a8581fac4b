"""Triton kernels that quantize to FP8, to the bit as `quantize.py` defines it, reading and writing memory once.

    tiles      1 x 128 tiles of x, or of silu(gate) * up
    normed     1 x 128 tiles of the RMSNorm of whole rows, which stay in registers
    squares    a square of 128 x 128: tiles or the block, straight and turned, both from one reading

The largest magnitude is found among bits: of numbers that are not negative they are ordered alike, with infinity and
NaN on top, so one bad value makes its grain's scale bad. x / s is an inverse of the grain's scale and one correction by
fused multiply-adds, half an epsilon off and 2^-21 of that more: a division an element would bind before memory does.
IEEE's quotient rounds to the same E4M3: x / s is either in the middle of two of its values, and then found exactly, or
at least 2^-6 epsilons away from where the FP32 quotient would become that middle, for x - s m of a middle m, which has
5 bits, is a multiple of 2^-5 of what the last place of x is worth.
What comes before quantizing is rounded to the input's dtype after each step, as PyTorch does.
A square is read as four, of rows 4 w, 4 w + 1, 4 w + 2 and 4 w + 3, so that four bytes of one column lie in one thread
and make a word without an exchange; words are what shared memory turns, a quarter of the accesses that bytes take.
Shape suffixes: a program's M rows, T tiles, C columns, W words of four rows, K = 128.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _magnitude(x):
    """Bits without the sign."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@jit
def _larger(x, y):
    """The larger magnitude, or NaN: one instruction, which takes magnitudes by itself."""
    return tl.maximum(tl.abs(x), tl.abs(y), propagate_nan=tl.PropagateNan.ALL)


@jit
def _largest(x):
    """Bits of the largest magnitudes along the last axis."""
    return tl.max(_magnitude(x), len(x.shape) - 1)


@jit
def _scale(bits, POWER_OF_TWO: tl.constexpr):
    """The scale of grains whose largest magnitudes have these bits, IEEE's quotient by 448; 0x38D1B717 are the floor's,
    1e-4."""
    largest = tl.maximum(bits, 0x38D1B717).to(tl.float32, bitcast=True)
    scale = largest * (1.0 / 448.0)
    scale = tl.fma(tl.fma(scale, -448.0, largest), 1.0 / 448.0, scale)
    if POWER_OF_TWO:
        up = (scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & -0x800000
        scale = up.to(tl.float32, bitcast=True)
    return tl.where(bits < 0x7F800000, scale, largest)


@jit
def _quotient(x, scale):
    """x / scale, as near as E4M3 can tell; where the scale is infinite, 0 for finite x and NaN for others."""
    # By -1 and not by a minus, which is 0 - x: the sign of a zero is that of x, also where the scale is infinite.
    opposite = -1.0 / scale
    by = tl.minimum(scale, 3.4028234663852886e38)
    minus = x * -1.0
    q = minus * opposite
    return tl.fma(tl.fma(q, by, minus), opposite, q)


@jit
def _silu(gate):
    return gate / (1 + tl.exp(-gate))


@jit
def tiles(
    x_ptr, payload_ptr, scale_ptr, rows, columns, x_stride, stride,
    SILU: tl.constexpr, POWER_OF_TWO: tl.constexpr, M: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Payload [rows, columns] and scales [columns / 128, rows] of x, SILU: of [rows, 2 x columns], gate first."""
    row = tl.program_id(0) * M + tl.arange(0, M)
    tile = tl.program_id(1) * T + tl.arange(0, T)
    column = tile[:, None] * 128 + tl.arange(0, 128)[None, :]
    inside = (row < rows)[:, None, None] & (column < columns)[None, :, :]
    source = row.to(tl.int64)[:, None, None] * x_stride + column[None, :, :]
    target = row.to(tl.int64)[:, None, None] * stride + column[None, :, :]
    if SILU:
        gate_ptr = x_ptr + source
        gate = tl.load(gate_ptr, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        gate = _silu(gate).to(x_ptr.dtype.element_ty).to(tl.float32)
        x_MTK = (gate * up).to(x_ptr.dtype.element_ty).to(tl.float32)
    else:
        x_MTK = tl.load(x_ptr + source, mask=inside, other=0.0).to(tl.float32)
    scale_MT = _scale(_largest(x_MTK), POWER_OF_TWO)
    q_MTK = _quotient(x_MTK, scale_MT[:, :, None])
    tl.store(payload_ptr + target, q_MTK.to(payload_ptr.dtype.element_ty), mask=inside)
    there = (row < rows)[:, None] & (tile * 128 < columns)[None, :]
    tl.store(scale_ptr + tile[None, :] * rows + row[:, None], scale_MT, mask=there)


@jit
def normed(
    x_ptr, weight_ptr, payload_ptr, scale_ptr, rows, columns, eps,
    POWER_OF_TWO: tl.constexpr, M: tl.constexpr, T: tl.constexpr, WIDTH: tl.constexpr, MORE: tl.constexpr,
):  # fmt: skip
    """Payload [rows, columns] and scales [columns / 128, rows] of x / rms(x) * weight. T tiles hold a row. WIDTH: the
    columns, if they are whole tiles, or 0. MORE: a program has M rows several times, the next on their way while these
    are quantized."""
    if WIDTH:
        columns = WIDTH
    tile = tl.arange(0, T)
    column = tile[:, None] * 128 + tl.arange(0, 128)[None, :]
    known_TK = column < columns
    weight_TK = tl.load(weight_ptr + column, mask=known_TK, other=0.0)
    begun, step = tl.program_id(0) * M, tl.num_programs(0) * M
    row = begun + tl.arange(0, M)
    place = row.to(tl.int64)[:, None, None] * columns + column[None, :, :]
    read_MTK = tl.load(x_ptr + place, mask=(row < rows)[:, None, None] & known_TK[None, :, :], other=0.0)
    for begin in range(begun, rows, step):
        row = begin + tl.arange(0, M)
        inside = (row < rows)[:, None, None] & known_TK[None, :, :]
        place = row.to(tl.int64)[:, None, None] * columns + column[None, :, :]
        x_MTK = read_MTK.to(tl.float32)
        if MORE:
            after = (row + step < rows)[:, None, None] & known_TK[None, :, :]
            read_MTK = tl.load(x_ptr + place + step.to(tl.int64) * columns, mask=after, other=0.0)
        factor_M = 1 / tl.sqrt_rn(tl.sum(tl.sum(x_MTK * x_MTK, 2), 1) / columns + eps)
        x_MTK = (x_MTK * factor_M[:, None, None]).to(x_ptr.dtype.element_ty).to(tl.float32)
        x_MTK = (x_MTK * weight_TK.to(tl.float32)[None, :, :]).to(x_ptr.dtype.element_ty).to(tl.float32)
        scale_MT = _scale(_largest(x_MTK), POWER_OF_TWO)
        q_MTK = _quotient(x_MTK, scale_MT[:, :, None])
        tl.store(payload_ptr + place, q_MTK.to(payload_ptr.dtype.element_ty), mask=inside)
        there = (row < rows)[:, None] & (tile * 128 < columns)[None, :]
        tl.store(scale_ptr + tile[None, :] * rows + row[:, None], scale_MT, mask=there)


@jit
def _read(x_ptr, kept_scale_ptr, i, j, r, stride, rows, columns, KEPT: tl.constexpr, EVEN: tl.constexpr):
    """Rows i + r and columns j of a square in FP32, zeros beyond `rows` and `columns`; KEPT: times the rows' scales."""
    # Places are 32 bits: rows of 2^24 entries and more are not for this.
    x_ptr = x_ptr + (i[:, None] * stride + j[None, :]) + r * stride
    if EVEN:
        x_WC = tl.load(x_ptr).to(tl.float32)
    else:
        x_WC = tl.load(x_ptr, mask=(i + r < rows)[:, None] & (j < columns)[None, :], other=0.0).to(tl.float32)
    if KEPT and EVEN:
        x_WC *= tl.load(kept_scale_ptr + i + r)[:, None]
    elif KEPT:
        x_WC *= tl.load(kept_scale_ptr + i + r, mask=i + r < rows, other=0.0)[:, None]
    return x_WC


@jit
def _write(payload_ptr, x_WC, scale, i, j, stride, rows, columns, EVEN: tl.constexpr):
    """The payload of x in rows i and columns j of a square."""
    payload_ptr += i[:, None] * stride + j[None, :]
    q_WC = _quotient(x_WC, scale).to(payload_ptr.dtype.element_ty)
    if EVEN:
        tl.store(payload_ptr, q_WC)
    else:
        tl.store(payload_ptr, q_WC, mask=(i < rows)[:, None] & (j < columns)[None, :])


@jit
def _write_tiles(
    payload_ptr, scale_ptr, a_WC, b_WC, c_WC, d_WC, w, j, stride, rows, columns,
    POWER_OF_TWO: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Payload and scales of four rows a word, by tiles along them."""
    a_W, b_W = _scale(_largest(a_WC), POWER_OF_TWO), _scale(_largest(b_WC), POWER_OF_TWO)
    c_W, d_W = _scale(_largest(c_WC), POWER_OF_TWO), _scale(_largest(d_WC), POWER_OF_TWO)
    _write(payload_ptr, a_WC, a_W[:, None], w * 4, j, stride, rows, columns, EVEN)
    _write(payload_ptr, b_WC, b_W[:, None], w * 4 + 1, j, stride, rows, columns, EVEN)
    _write(payload_ptr, c_WC, c_W[:, None], w * 4 + 2, j, stride, rows, columns, EVEN)
    _write(payload_ptr, d_WC, d_W[:, None], w * 4 + 3, j, stride, rows, columns, EVEN)
    scale_K, k = tl.join(tl.join(a_W, c_W), tl.join(b_W, d_W)).reshape(128), tl.arange(0, 128)
    tl.store(scale_ptr + k, scale_K, mask=k < rows)


@jit
def _words(a_WC, b_WC, c_WC, d_WC, scale):
    """E4M3 of four rows over `scale`, the first in the lowest byte."""
    # Joined before they are converted: an instruction makes two neighbours in the word, and nobody else wants them.
    # ptxas 12.8 makes one conversion of two that fill a word, and whoever else uses the first gets nothing: so a block,
    # whose payload is the same straight and turned, is converted twice, by pairs along rows and along columns.
    ac = tl.join(_quotient(a_WC, scale), _quotient(c_WC, scale))
    bd = tl.join(_quotient(b_WC, scale), _quotient(d_WC, scale))
    bytes = tl.join(ac, bd).to(tl.float8e4nv).to(tl.uint8, bitcast=True).to(tl.int32)
    low, high = tl.split(bytes)  # of (a, b) and (c, d)
    a, c = tl.split(low)
    b, d = tl.split(high)
    return (a | b << 8) | (c | d << 8) << 16


@jit
def squares(
    x_ptr, kept_scale_ptr, payload_ptr, scale_ptr, turned_ptr, turned_scale_ptr,
    rows, columns, x_stride, stride, turned_stride,
    KEPT: tl.constexpr, BLOCK: tl.constexpr, STRAIGHT: tl.constexpr, TURNED: tl.constexpr,
    POWER_OF_TWO: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """STRAIGHT: payload [rows, columns], TURNED: [columns, rows], and their scales, by tiles along what runs fastest,
    or, BLOCK, by one scale a square. KEPT: x is FP8 in tiles with scales [columns / 128, rows] and stands for their
    products. C columns a program: 128, or a part of them where only TURNED tiles are wanted. WIDTH: the columns, if all
    squares are whole and x is contiguous, or 0. RUN: neighbours that a thread reads, or 0 for 16 bytes of them."""
    EVEN: tl.constexpr = WIDTH > 0
    if EVEN:
        columns, x_stride, stride = WIDTH, WIDTH, WIDTH
    down, right = tl.program_id(1), tl.program_id(0)
    above, left = (down * 128).to(tl.int64), (right * C).to(tl.int64)
    rows_left, columns_left = rows - down * 128, columns - right * C
    w, j = tl.arange(0, 32), tl.arange(0, C)
    if RUN:
        j = tl.max_contiguous(j, RUN)
    x_ptr += above * x_stride + left
    kept_scale_ptr += left // 128 * rows + above
    a_WC = _read(x_ptr, kept_scale_ptr, w * 4, j, 0, x_stride, rows_left, columns_left, KEPT, EVEN)
    b_WC = _read(x_ptr, kept_scale_ptr, w * 4, j, 1, x_stride, rows_left, columns_left, KEPT, EVEN)
    c_WC = _read(x_ptr, kept_scale_ptr, w * 4, j, 2, x_stride, rows_left, columns_left, KEPT, EVEN)
    d_WC = _read(x_ptr, kept_scale_ptr, w * 4, j, 3, x_stride, rows_left, columns_left, KEPT, EVEN)
    # Of floats the instruction takes magnitudes by itself, and keeps NaN.
    largest_WC = _magnitude(_larger(_larger(a_WC, b_WC), _larger(c_WC, d_WC)))
    payload_ptr += above * stride + left
    turned_ptr += left * turned_stride + above
    if BLOCK:
        scale = _scale(tl.max(tl.max(largest_WC, 1), 0), POWER_OF_TWO)
        _write(payload_ptr, a_WC, scale, w * 4, j, stride, rows_left, columns_left, EVEN)
        _write(payload_ptr, b_WC, scale, w * 4 + 1, j, stride, rows_left, columns_left, EVEN)
        _write(payload_ptr, c_WC, scale, w * 4 + 2, j, stride, rows_left, columns_left, EVEN)
        _write(payload_ptr, d_WC, scale, w * 4 + 3, j, stride, rows_left, columns_left, EVEN)
        tl.store(scale_ptr + down * tl.num_programs(0) + right, scale)
        if TURNED:
            tl.store(turned_scale_ptr + right * tl.num_programs(1) + down, scale)
    else:
        if STRAIGHT:
            scale_ptr += right * rows + above
            _write_tiles(
                payload_ptr, scale_ptr, a_WC, b_WC, c_WC, d_WC, w, j, stride, rows_left, columns_left,
                POWER_OF_TWO, EVEN,
            )  # fmt: skip
        if TURNED:
            scale_C = _scale(tl.max(largest_WC, 0), POWER_OF_TWO)
            tl.store(turned_scale_ptr + down * columns + right * C + j, scale_C, mask=j < columns_left)
            scale = scale_C[None, :]
    if TURNED:
        word_WC = _words(a_WC, b_WC, c_WC, d_WC, scale)
        words_ptr = turned_ptr.to(tl.pointer_type(tl.int32), bitcast=True)
        words_ptr += j[:, None] * (turned_stride // 4) + w[None, :]
        if EVEN:
            tl.store(words_ptr, word_WC.T)
        else:
            tl.store(words_ptr, word_WC.T, mask=(j < columns_left)[:, None] & (w * 4 < rows_left)[None, :])
