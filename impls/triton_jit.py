"""Triton where it is installed. Elsewhere `jit` leaves functions as they are, so that importing this package works
everywhere; the registry's `needs` keeps anyone from calling them. And what persistent kernels ask of a device."""

from __future__ import annotations

from typing import Any

import torch

try:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor
except ModuleNotFoundError:
    triton = tl = TensorDescriptor = None

WITHOUT_GPU = 4


def processors(device: torch.device) -> int:
    """Of a GPU; a handful elsewhere, so that programs take several blocks each there too."""
    return WITHOUT_GPU if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


def jit(function: Any = None, **options: Any) -> Any:
    """`triton.jit`, or the function itself where there is no Triton."""
    if triton is not None:
        return triton.jit(function, **options)
    return function if function is not None else lambda plain: plain
