"""Triton kernels that quantize to FP8, to the bit as `quantize.py` defines it, reading and writing memory once.

    tiles      1 x 128 tiles of x, or of silu(gate) * up
    normed     1 x 128 tiles of the RMSNorm of whole rows, which are read a second time from cache
    squares    a square of 128 x 128: tiles or the block, straight and turned, both from one reading

The largest magnitude is found among bits: of numbers that are not negative they are ordered alike, with infinity and
NaN on top, so one bad value makes its grain's scale bad. x / s is an inverse of the grain's scale and one correction by
fused multiply-adds, half an epsilon off and 2^-21 of that more: a division an element would bind before memory does.
IEEE's quotient rounds to the same E4M3: x / s is either in the middle of two of its values, and then found exactly, or
at least 2^-6 epsilons away from where the FP32 quotient would become that middle, for x - s m of a middle m, which has
5 bits, is a multiple of 2^-5 of what the last place of x is worth.
What comes before quantizing is rounded to the input's dtype after each step, as PyTorch does.
Shape suffixes: a program's M rows, T tiles, C columns, K = 128.
"""

from __future__ import annotations

from ..triton_jit import jit, tl


@jit
def _magnitude(x):
    """Bits without the sign."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


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
    by = tl.where(scale < float("inf"), scale, 0.0)
    q = x * -1.0 * opposite
    return tl.fma(tl.fma(q, by, -x), opposite, q)


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
    scale_MT = _scale(tl.max(_magnitude(x_MTK), 2), POWER_OF_TWO)
    q_MTK = _quotient(x_MTK, scale_MT[:, :, None])
    tl.store(payload_ptr + target, q_MTK.to(payload_ptr.dtype.element_ty), mask=inside)
    there = (row < rows)[:, None] & (tile * 128 < columns)[None, :]
    tl.store(scale_ptr + tile[None, :] * rows + row[:, None], scale_MT, mask=there)


@jit
def normed(
    x_ptr, weight_ptr, payload_ptr, scale_ptr, rows, columns, eps,
    POWER_OF_TWO: tl.constexpr, M: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Payload [rows, columns] and scales [columns / 128, rows] of x / rms(x) * weight."""
    row = tl.program_id(0) * M + tl.arange(0, M)
    start_M = row.to(tl.int64)[:, None, None] * columns
    squares_MTK = tl.zeros([M, T, 128], tl.float32)
    for first in range(0, columns, T * 128):
        tile = first // 128 + tl.arange(0, T)
        column = tile[:, None] * 128 + tl.arange(0, 128)[None, :]
        inside = (row < rows)[:, None, None] & (column < columns)[None, :, :]
        x_MTK = tl.load(x_ptr + start_M + column[None, :, :], mask=inside, other=0.0).to(tl.float32)
        squares_MTK += x_MTK * x_MTK
    factor_M = 1 / tl.sqrt_rn(tl.sum(tl.sum(squares_MTK, 2), 1) / columns + eps)
    for first in range(0, columns, T * 128):
        tile = first // 128 + tl.arange(0, T)
        column = tile[:, None] * 128 + tl.arange(0, 128)[None, :]
        inside = (row < rows)[:, None, None] & (column < columns)[None, :, :]
        x_MTK = tl.load(x_ptr + start_M + column[None, :, :], mask=inside, other=0.0).to(tl.float32)
        weight_TK = tl.load(weight_ptr + column, mask=column < columns, other=0.0).to(tl.float32)
        x_MTK = (x_MTK * factor_M[:, None, None]).to(x_ptr.dtype.element_ty).to(tl.float32)
        x_MTK = (x_MTK * weight_TK[None, :, :]).to(x_ptr.dtype.element_ty).to(tl.float32)
        scale_MT = _scale(tl.max(_magnitude(x_MTK), 2), POWER_OF_TWO)
        q_MTK = _quotient(x_MTK, scale_MT[:, :, None])
        tl.store(payload_ptr + start_M + column[None, :, :], q_MTK.to(payload_ptr.dtype.element_ty), mask=inside)
        there = (row < rows)[:, None] & (tile * 128 < columns)[None, :]
        tl.store(scale_ptr + tile[None, :] * rows + row[:, None], scale_MT, mask=there)


@jit
def squares(
    x_ptr, kept_scale_ptr, payload_ptr, scale_ptr, turned_ptr, turned_scale_ptr,
    rows, columns, x_stride, stride, turned_stride,
    KEPT: tl.constexpr, BLOCK: tl.constexpr, STRAIGHT: tl.constexpr, TURNED: tl.constexpr,
    POWER_OF_TWO: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """STRAIGHT: payload [rows, columns], TURNED: [columns, rows], and their scales, by tiles along what runs fastest,
    or, BLOCK, by one scale a square. KEPT: x is FP8 in tiles with scales [columns / 128, rows] and stands for their
    products. C columns a program: 128, or a part of them where only TURNED tiles are wanted."""
    across = tl.cdiv(columns, C)
    down, right = tl.program_id(0) // across, tl.program_id(0) % across
    # Within a square places are 32 bits: rows of 2^24 entries and more are not for this.
    i, j, above, left = tl.arange(0, 128), tl.arange(0, C), (down * 128).to(tl.int64), (right * C).to(tl.int64)
    row, column = down * 128 + i, right * C + j
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    source_ptr = x_ptr + above * x_stride + left
    x_KC = tl.load(source_ptr + (i[:, None] * x_stride + j[None, :]), mask=inside, other=0.0).to(tl.float32)
    if KEPT:
        x_KC *= tl.load(kept_scale_ptr + right * C // 128 * rows + row, mask=row < rows, other=0.0)[:, None]
    bits_KC = _magnitude(x_KC)
    along_ptr = payload_ptr + above * stride + left + (i[:, None] * stride + j[None, :])
    across_ptr = turned_ptr + left * turned_stride + above + (j[:, None] * turned_stride + i[None, :])
    if BLOCK:
        scale = _scale(tl.max(tl.max(bits_KC, 1, keep_dims=True), 0, keep_dims=True), POWER_OF_TWO)
        q_KC = _quotient(x_KC, scale).to(payload_ptr.dtype.element_ty)
        tl.store(along_ptr, q_KC, mask=inside)
        tl.store(scale_ptr + down * across + right + tl.zeros([1, 1], tl.int32), scale)
        if TURNED:
            tl.store(across_ptr, q_KC.T, mask=inside.T)
            tl.store(turned_scale_ptr + right * tl.cdiv(rows, 128) + down + tl.zeros([1, 1], tl.int32), scale)
    else:
        if STRAIGHT:
            scale_K = _scale(tl.max(bits_KC, 1), POWER_OF_TWO)
            q_KC = _quotient(x_KC, scale_K[:, None])
            tl.store(along_ptr, q_KC.to(payload_ptr.dtype.element_ty), mask=inside)
            tl.store(scale_ptr + right * rows + row, scale_K, mask=row < rows)
        if TURNED:
            scale_C = _scale(tl.max(bits_KC, 0), POWER_OF_TWO)
            q_KC = _quotient(x_KC, scale_C[None, :]).to(turned_ptr.dtype.element_ty)
            tl.store(across_ptr, q_KC.T, mask=inside.T)
            tl.store(turned_scale_ptr + down * columns + column, scale_C, mask=column < columns)
