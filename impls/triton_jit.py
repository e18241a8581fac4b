"""Triton where it is installed. Elsewhere `jit` leaves functions as they are, so that importing this package works
everywhere; the registry's `needs` keeps anyone from calling them."""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor
except ModuleNotFoundError:
    triton = tl = TensorDescriptor = None


def jit(function: Any = None, **options: Any) -> Any:
    """`triton.jit`, or the function itself where there is no Triton."""
    if triton is not None:
        return triton.jit(function, **options)
    return function if function is not None else lambda plain: plain
