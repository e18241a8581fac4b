"""Triton's interpreter with the arithmetic of a GPU where its own is not: casts from and to FP8 and BF16, fused
multiply-adds, products of FP8.

As of Triton 3.6.0 its casts to FP8 lose the carry into the exponent and those from it NaN, those to BF16 cut off, and
a fused multiply-add rounds twice. Here casts are PyTorch's, which round to nearest, ties to even, and a multiply-add is
done in FP64, whose second rounding shows in one sum of 2^29 or so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def mend() -> None:
    """Replace them in this process, which must interpret."""
    import triton.language as tl
    from triton.runtime import interpreter

    narrow = {tl.float8e4nv: torch.float8_e4m3fn, tl.bfloat16: torch.bfloat16}
    known = {tl.float32: torch.float32, tl.float16: torch.float16, **narrow}
    raw = {torch.float8_e4m3fn: torch.uint8, torch.bfloat16: torch.uint16}
    builder = interpreter.InterpreterBuilder
    cast, plain_dot = builder.cast_impl, builder.create_dot

    def between(self: Any, src: Any, dst_type: Any, rounding_mode: Any = None) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source not in known or target not in known or not {source, target} & set(narrow):
            return cast(self, src, dst_type)
        made = torch.from_numpy(np.ascontiguousarray(src.data)).view(known[source]).to(known[target])
        made = made.view(raw.get(made.dtype, made.dtype))
        return interpreter.TensorHandle(made.numpy().reshape(src.data.shape), target)

    def fused(self: Any, x: Any, y: Any, z: Any) -> Any:
        wide = x.data.astype(np.float64) * y.data + z.data
        return interpreter.TensorHandle(wide.astype(x.data.dtype), z.dtype.scalar)

    def dot(self: Any, a: Any, b: Any, d: Any, *precision: Any) -> Any:
        a_MK, b_KN = (between(self, one, tl.float32) if one.dtype.scalar in narrow else one for one in (a, b))
        return plain_dot(self, a_MK, b_KN, d, *precision)

    builder.cast_impl = between
    builder.create_fp_to_fp = between
    builder.create_fp_ext = between
    builder.create_fp_trunc = between
    builder.create_fma = fused
    builder.create_dot = dot
