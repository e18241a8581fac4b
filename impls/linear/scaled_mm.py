"""FP8 products by PyTorch: `torch._scaled_mm` per tensor and per row, and cuBLAS's block-scaled form on Hopper.

On a GPU these run on FP8 tensor cores: per tensor and per row with sums that are promoted, or forward, as in training,
with the hardware's own accumulator ("fast": gradients sum over more rows than it adds exactly enough); with 1 x 128 and
128 x 128 scales through `torch.nn.functional.scaled_mm` (CUDA 12.9 and newer, sm_90 alone). On a CPU the per-tensor and
per-row forms exist too, emulated. The bar to beat on Hopper; loses where operands are not aligned to 16, and with the
block form at few rows.
Shape suffixes: M rows, N outs, K ins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from .inputs import DgradInputs, FpropInputs, WgradInputs
from .quantize import Quantized, quantize
from .reference_train import Product, fp8_training
from .shape import LinearShape

COARSE = ("fp8-row", "fp8-tensor")
PROMOTED, FAST = "scaled-mm", "scaled-mm-fast"
ALIGNED = 16
SCALE_ALIGNED = 4
SUMMED_FAST = 8192  # at 16384 its error is 3.5e-3 where 3.3e-3 is allowed, on an H200
ONE_BY_ONE = 2**22  # multiplications: half a second on a CPU for which PyTorch has no better per-tensor product
BY_LIBRARY = "FP8 payloads, emulated by the library"


def unaligned(shape: LinearShape) -> str | None:
    """Why the library does not take a shape, or None."""
    for name in ("outs", "ins"):
        if getattr(shape, name) % ALIGNED:
            return f"_scaled_mm takes {name} in multiples of {ALIGNED}, not {getattr(shape, name)}"
    return None


def unaligned_rows(shape: LinearShape) -> str | None:
    """The same where the rows are summed over."""
    if shape.rows % ALIGNED:
        return f"_scaled_mm sums over multiples of {ALIGNED}, not {shape.rows} rows"
    return unaligned(shape)


def by_tensor(shape: LinearShape) -> str | None:
    """Why per-tensor scales are not taken, or None: without vector instructions for it, a CPU takes a minute a call."""
    if shape.dtype == "float32" and shape.rows * shape.outs * shape.ins > ONE_BY_ONE:
        return "per tensor _scaled_mm multiplies one by one on some CPUs: only for small shapes"
    return unaligned(shape)


def by_tensor_in_training(shape: LinearShape) -> str | None:
    """The same where the rows are summed over, too."""
    return by_tensor(shape) or unaligned_rows(shape)


def fast(shape: LinearShape, forward: Callable[[LinearShape], str | None]) -> str | None:
    """Why the hardware's own accumulator does not do, or why the library does not take a shape, or None."""
    if shape.ins > SUMMED_FAST:
        return f"fast accumulation is off by more than is allowed beyond {SUMMED_FAST} elements, not {shape.ins}"
    return forward(shape)


def by_row(shape: LinearShape) -> str | None:
    """Why per-row scales are not taken, or None: on a CPU since some version after PyTorch 2.11."""
    if shape.dtype == "float32" and not rows_on_cpus():
        return f"_scaled_mm of PyTorch {torch.__version__} takes per-tensor scales alone on a CPU"
    return unaligned(shape)


def by_row_in_training(shape: LinearShape) -> str | None:
    """The same where the gradient of a weight must be FP32: a GPU gives BF16."""
    if shape.dtype != "float32":
        return "per row _scaled_mm gives BF16 only, and gradients of weights are FP32"
    return by_row(shape) or unaligned_rows(shape)


@lru_cache(maxsize=1)
def rows_on_cpus() -> bool:
    """Whether this PyTorch multiplies with per-row scales on a CPU: tried, for no version says so."""
    small = quantize(torch.ones(ALIGNED, ALIGNED), "row")
    try:
        coarse(small, small, torch.float32)
    except RuntimeError:
        return False
    return True


def coarse(a: Quantized, b: Quantized, out: torch.dtype, fast: bool = False) -> Tensor:
    """a b^T with per-row or per-tensor scales."""
    scale_b = b.scale.T if b.grain == "row" else b.scale
    return torch._scaled_mm(a.payload, b.payload.T, a.scale, scale_b, out_dtype=out, use_fast_accum=fast)


def block_scales(w: Quantized) -> Quantized:
    """Scales as cuBLAS wants them: those of blocks in multiples of 4 along the summed axis."""
    short = -w.scale.shape[1] % SCALE_ALIGNED
    return replace(w, scale=F.pad(w.scale, (0, short))) if w.grain == "block" and short else w


def blockwise(a: Quantized, b: Quantized, out: torch.dtype) -> Tensor:
    """a b^T with tiles of a, and tiles or blocks of b, by cuBLAS."""
    kinds = {"tile": F.ScalingType.BlockWise1x128, "block": F.ScalingType.BlockWise128x128}
    b = block_scales(b)
    return F.scaled_mm(a.payload, b.payload.T, a.scale.T, kinds[a.grain], b.scale.T, kinds[b.grain], output_dtype=out)


def _fprop(w: Quantized, shape: LinearShape, multiply: Product) -> Callable[[FpropInputs], Tensor]:
    return lambda inputs: multiply(inputs.x, w, shape.torch_dtype)


def _dgrad(w: Quantized, shape: LinearShape, multiply: Product) -> Callable[[DgradInputs], Tensor]:
    return lambda inputs: multiply(inputs.dy, w, shape.torch_dtype)


def _wgrad(w: None, shape: LinearShape, multiply: Product) -> Callable[[WgradInputs], Tensor]:
    return lambda inputs: multiply(inputs.dy, inputs.x, torch.float32)


def _declare(technique: str, name: str, operation: str, multiply: Product, needs: tuple[str, ...] = ()) -> None:
    """One of the three products, or the layer in training, by a library function."""
    made, backward = {
        "linear.fprop": (partial(_fprop, multiply=multiply), False),
        "linear.dgrad": (partial(_dgrad, multiply=multiply), False),
        "linear.wgrad": (partial(_wgrad, multiply=multiply), True),
        "linear.layer_train": (partial(fp8_training, technique=technique, multiply=multiply), True),
    }[operation]
    supports = REFUSALS[technique][backward]
    if name == FAST:
        supports = partial(fast, forward=supports)
    ready = block_scales if operation in ("linear.fprop", "linear.dgrad") else None

    def setup(w: Any, shape: LinearShape) -> Prepared:
        layout = BY_LIBRARY if shape.dtype == "float32" else "contiguous"
        return Prepared(made(ready(w) if ready else w, shape), layout=layout)

    setup.__doc__ = multiply.func.__doc__ if isinstance(multiply, partial) else multiply.__doc__
    kept = {"technique": technique, "kind": "library", "name": name, "needs": needs, "supports": supports}
    implementation(operation, **kept)(setup)


REFUSALS = {
    "fp8": (unaligned, unaligned_rows),
    "fp8-row": (by_row, by_row_in_training),
    "fp8-tensor": (by_tensor, by_tensor_in_training),
}
for _operation in ("linear.fprop", "linear.dgrad", "linear.wgrad", "linear.layer_train"):
    _declare("fp8", PROMOTED, _operation, blockwise, ("cuda", "sm_90"))
    for _technique in COARSE:
        _declare(_technique, PROMOTED, _operation, coarse)
for _technique in COARSE:
    _declare(_technique, FAST, "linear.fprop", partial(coarse, fast=True), ("cuda",))
