"""Gluon's decorator and language for Hopper where Triton has them. Elsewhere kernels stay plain functions that nobody
may call, and their modules can be read all the same."""

from __future__ import annotations

from typing import Any

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia import hopper
    from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

    jit: Any = gluon.jit
except ImportError:
    gl = hopper = mbarrier = tma = None

    def jit(function: Any = None, **options: Any) -> Any:
        """The function itself."""
        return function if function is not None else lambda plain: plain


NEEDS = ("cuda", "sm_90", "triton", "triton.experimental.gluon")

__all__ = ["NEEDS", "gl", "hopper", "jit", "mbarrier", "tma"]
