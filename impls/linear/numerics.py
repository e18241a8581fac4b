"""How wrong FP8 products are, in FP64 against the BF16 values they stand for: by distribution, length, accumulator.

Computed on the CPU from a sample of [64, 64] outputs at the case's full length, with a fixed seed: figures of the
arithmetic, the same on every machine, not of an implementation. Three errors are kept apart, all relative Frobenius:

    quantization   of the exact product of the dequantized operands, from the product of the BF16 operands
    accumulation   of the tensor core's sum (`tensor_core.py`) from that exact product, without promotion
    promoted       the same with sums promoted to FP32 every 128 elements

Rounding the result to BF16 adds 1.7e-3 to any of them.
Shape suffixes: R and S rows of two operands, L summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .quantize import E4M3, LARGEST, TECHNIQUES, Quantized, dequantize, quantize, spread
from .tensor_core import running
from .values import draw

SAMPLE = 64
MOST = 8192  # of the length that is emulated: 256 steps
PRODUCTS = ("fprop", "dgrad", "wgrad")


def relative(result: Tensor, truth: Tensor) -> float:
    """Frobenius norm of the difference over the truth's; the difference's own where the truth is zero."""
    off, size = (float(torch.linalg.vector_norm(t.double())) for t in (result.double() - truth.double(), truth))
    return off / size if size else off


@lru_cache(maxsize=32)
def operands(values: str, length: int) -> tuple[Tensor, Tensor]:
    """A sample of activations and of weights in BF16, [64, L] each, and always the same."""
    generator = torch.Generator().manual_seed(length)
    weights = "positive" if values == "positive" else "gaussian"
    a_RL, b_SL = draw(values, SAMPLE, length, generator), draw(weights, SAMPLE, length, generator) * length**-0.5
    return a_RL.bfloat16(), b_SL.bfloat16()


def quantized_pair(a_RL: Tensor, b_SL: Tensor, technique: str, which: str, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """Both operands of a product as FP8 has them, dequantized to FP64.

    wgrad's second operand is what is kept from the forward, where it was quantized along the other axis; a sample has
    no other rows, so its tiles along that axis are as long as the sample.
    """
    grain, weight_grain = TECHNIQUES[technique]
    grains = (grain, grain if which == "wgrad" else weight_grain)
    a = quantize(a_RL, grains[0], power_of_two)
    if which == "wgrad":
        b_SL = dequantize(quantize(b_SL.T.contiguous(), grain, power_of_two)).T.contiguous()
    b = quantize(b_SL, grains[1], power_of_two)
    return dequantize(a.wide(torch.float64)), dequantize(b.wide(torch.float64))


@lru_cache(maxsize=256)
def quantization_error(technique: str, which: str, values: str, length: int, power_of_two: bool) -> float:
    """Of the exact product of dequantized operands; of the FP32 product for BF16, which is not rounded first."""
    a_RL, b_SL = operands(values, length)
    exact_RS = a_RL.double() @ b_SL.double().T
    if technique == "bf16":
        return relative(a_RL.float() @ b_SL.float().T, exact_RS)
    a, b = quantized_pair(a_RL, b_SL, technique, which, power_of_two)
    return relative(a @ b.T, exact_RS)


def lost(x_RL: Tensor, quantized: Quantized) -> tuple[float, float]:
    """Share of the elements other than zero whose payload is zero, and share beyond the largest value."""
    payload_RL, there_RL = quantized.payload.float(), x_RL != 0
    scale = spread(quantized.scale, quantized.grain, *x_RL.shape)
    vanished = there_RL & (payload_RL == 0)
    # Up to half a step above 448 rounds to 448: the scale itself is rounded.
    beyond = (x_RL.float() / scale).abs() > LARGEST * (1 + float(torch.finfo(E4M3).eps) / 4)
    return float(vanished.sum() / there_RL.sum().clamp_min(1)), float(beyond.float().mean())


@lru_cache(maxsize=64)
def activations(technique: str, values: str, length: int, power_of_two: bool) -> tuple[float, float, float]:
    """Underflow, saturation, and the median relative error of an element: a norm shows the largest elements alone."""
    a_RL, _ = operands(values, length)
    quantized = quantize(a_RL, TECHNIQUES[technique][0], power_of_two)
    exact_RL = a_RL.double()
    off_RL = (dequantize(quantized).double() - exact_RL).abs() / exact_RL.abs()
    return *lost(a_RL, quantized), float(off_RL[exact_RL != 0].median())


@lru_cache(maxsize=64)
def curves(technique: str, values: str, length: int, power_of_two: bool) -> Mapping[str, Sequence[float]]:
    """The three errors of fprop by the length summed so far, at powers of two from 128 up to the last below `length`.

    BF16 has the first alone: its tensor core keeps FP32.
    """
    a_RL, b_SL = operands(values, min(length, MOST))
    stops = [128 << n for n in range(16) if 128 << n <= a_RL.shape[1]]
    found: dict[str, list[float]] = {"k": [float(stop) for stop in stops]}
    if technique == "bf16":
        a, b = a_RL.float(), b_SL.float()
        sums = {stop: a[:, :stop] @ b[:, :stop].T for stop in stops}
    else:
        a, b = quantized_pair(a_RL, b_SL, technique, "fprop", power_of_two)
        sums = {stop: a[:, :stop] @ b[:, :stop].T for stop in stops}
        for name, promote in (("accumulation_error", False), ("promoted_error", True)):
            found[name] = [relative(t, sums[done]) for done, t in running(a, b, promote) if done in sums]
    found["quantization_error"] = [
        relative(sums[stop], a_RL[:, :stop].double() @ b_SL[:, :stop].double().T) for stop in stops
    ]
    return found
