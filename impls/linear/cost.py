"""Least work of the linear operations: matrix FLOPs at the rate of their dtype, and every needed byte once.

A multiply and an add are two FLOPs. FP8 operands are one byte an element and four a scale, whoever computes with them:
where FP8 is emulated the bytes are what a machine with FP8 would move. Elementwise work is not counted.
"""

from __future__ import annotations

from harness import Cost

from .quantize import TECHNIQUES
from .shape import TILE, GroupedShape, LinearShape, QuantizeShape

FP8 = "float8_e4m3fn"
SCALE_BYTES = 4
END_BYTES = 4


def tiles(length: int) -> int:
    """Tiles of 128 that cover a length."""
    return -(-length // TILE)


def scales(rows: int, length: int, grain: str) -> int:
    """Scales of a matrix [rows, length]."""
    each = {"tensor": 1, "row": rows, "tile": rows * tiles(length), "block": tiles(rows) * tiles(length)}
    return each[grain]


def operand(rows: int, length: int, technique: str, side: int, dtype_bytes: int) -> int:
    """Bytes of one operand of a product; `side` 0 is quantized as activations are, 1 as weights."""
    if technique == "bf16":
        return rows * length * dtype_bytes
    return rows * length + SCALE_BYTES * scales(rows, length, TECHNIQUES[technique][side])


def _rate(technique: str, dtype: str) -> str:
    return dtype if technique == "bf16" else FP8


def _flops(shape: LinearShape | GroupedShape) -> float:
    return 2.0 * shape.rows * shape.outs * shape.ins


def fprop(shape: LinearShape, technique: str) -> Cost:
    """Cost of linear.fprop."""
    size = shape.torch_dtype.itemsize
    read = operand(shape.rows, shape.ins, technique, 0, size) + operand(shape.outs, shape.ins, technique, 1, size)
    return Cost(_flops(shape), read, shape.rows * shape.outs * size, _rate(technique, shape.dtype))


def dgrad(shape: LinearShape, technique: str) -> Cost:
    """Cost of linear.dgrad."""
    size = shape.torch_dtype.itemsize
    read = operand(shape.rows, shape.outs, technique, 0, size) + operand(shape.ins, shape.outs, technique, 1, size)
    return Cost(_flops(shape), read, shape.rows * shape.ins * size, _rate(technique, shape.dtype))


def wgrad(shape: LinearShape, technique: str) -> Cost:
    """Cost of linear.wgrad: the result is FP32."""
    size = shape.torch_dtype.itemsize
    read = sum(operand(n, shape.rows, technique, 0, size) for n in (shape.outs, shape.ins))
    return Cost(_flops(shape), read, 4 * shape.outs * shape.ins, _rate(technique, shape.dtype))


def numerics(shape: LinearShape, technique: str) -> Cost:
    """Cost of linear.numerics: activations are read as they are."""
    size = shape.torch_dtype.itemsize
    read = shape.rows * shape.ins * size + operand(shape.outs, shape.ins, technique, 1, size)
    return Cost(_flops(shape), read, shape.rows * shape.outs * size, _rate(technique, shape.dtype))


def layer_train(shape: LinearShape, technique: str) -> Cost:
    """Cost of linear.layer_train: three products; activations, gradient and master weight read, results written."""
    size = shape.torch_dtype.itemsize
    hidden, weight = shape.rows * (shape.ins + shape.outs) * size, 4 * shape.outs * shape.ins
    return Cost(3 * _flops(shape), hidden + weight, hidden + weight, _rate(technique, shape.dtype))


def quantize(shape: QuantizeShape, technique: str) -> Cost:
    """Cost of linear.quantize: the input read once; payload and scales written, or the matrix itself for BF16."""
    size, entries = shape.torch_dtype.itemsize, shape.rows * shape.columns
    read = shape.rows * shape.width * size + (shape.columns * size if shape.form == "rmsnorm" else 0)
    if technique == "bf16":
        return Cost(0.0, read, entries * size, shape.dtype)
    rows, columns = (shape.columns, shape.rows) if shape.form == "transposed" else (shape.rows, shape.columns)
    grain = "block" if shape.form == "blocks" else TECHNIQUES[technique][0]
    return Cost(0.0, read, entries + SCALE_BYTES * scales(rows, columns, grain), shape.dtype)


def _grouped(shape: GroupedShape, technique: str, rows_read: int, weight: int, written: int) -> Cost:
    used = sum(size > 0 for size in shape.sizes)
    read = rows_read + used * weight + END_BYTES * shape.groups
    return Cost(_flops(shape), read, written, _rate(technique, shape.dtype))


def grouped(shape: GroupedShape, technique: str) -> Cost:
    """Cost of linear.grouped: the weights of groups that have rows, once."""
    size = shape.torch_dtype.itemsize
    rows = operand(shape.rows, shape.ins, technique, 0, size)
    weight = operand(shape.outs, shape.ins, technique, 1, size)
    return _grouped(shape, technique, rows, weight, shape.rows * shape.outs * size)


def grouped_dgrad(shape: GroupedShape, technique: str) -> Cost:
    """Cost of linear.grouped_dgrad."""
    size = shape.torch_dtype.itemsize
    rows = operand(shape.rows, shape.outs, technique, 0, size)
    weight = operand(shape.ins, shape.outs, technique, 1, size)
    return _grouped(shape, technique, rows, weight, shape.rows * shape.ins * size)


def grouped_wgrad(shape: GroupedShape, technique: str) -> Cost:
    """Cost of linear.grouped_wgrad: FP32 gradients of every group, those without rows included."""
    size = shape.torch_dtype.itemsize
    rows = sum(operand(n, shape.rows, technique, 0, size) for n in (shape.outs, shape.ins))
    return _grouped(shape, technique, rows, 0, 4 * shape.groups * shape.outs * shape.ins)
