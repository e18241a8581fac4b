"""The linear operations: three products, quantizing, the layer in training, grouped products, and numerics.

Products take operands that are quantized already; the truth is the product of what they stand for. What quantizing
itself costs in accuracy is a figure beside the latency, never part of the verification. On a CPU the cases are FP32
under technique "bf16", for most CPUs emulate BF16, and FP8 is emulated: the layout of its records says so, its bytes
are what FP8 takes, and there is no floor, for a CPU has no FP8 rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from harness import Metric, Operation, operation

from . import cost, inputs, numerics
from .numerics import activations, quantization_error
from .quantize import TECHNIQUES
from .shape import GroupedShape, LinearShape, QuantizeShape

BASELINE = ("bf16/mm", "bf16/reference")
QUANTIZE_BASELINE = ("fp8/reference", "bf16/reference")

QUANTIZED = Metric(
    "quantization_error",
    "share",
    "lower",
    "Relative Frobenius error of the exact product of quantized operands from the BF16 operands' (64 x 64 sample).",
)
OPERANDS = Metric("operand_bytes", "bytes", "lower", "Both operands of the product, scales included.", exact=0)
ACCUMULATED = Metric(
    "accumulation_error",
    "share",
    "lower",
    "Error of Hopper's FP8 accumulator, 13 bits after the leading one, over the whole length (emulated).",
)
PROMOTED = Metric("promoted_error", "share", "lower", "The same with sums promoted to FP32 every 128 (emulated).")
UNDERFLOW = Metric("underflow_share", "share", "lower", "Activations other than zero whose FP8 payload is zero.")
SATURATED = Metric("saturated_share", "share", "lower", "Activations beyond the largest FP8 value.")
ELEMENT = Metric("element_error", "share", "lower", "Median relative error of one quantized activation.")
PROMOTED_SUM = 2.0**-10, 2.0**-6
GRADIENTS = {
    "fprop": Metric("output_error", "share", "lower", "Quantization error of the output (64 x 64 sample)."),
    "dgrad": Metric("input_gradient_error", "share", "lower", "Quantization error of the activations' gradient."),
    "wgrad": Metric("weight_gradient_error", "share", "lower", "Quantization error of the weight's gradient."),
}


def _lengths(shape: LinearShape) -> dict[str, int]:
    return {"fprop": shape.ins, "dgrad": shape.outs, "wgrad": shape.rows}


def _error(shape: LinearShape, technique: str, which: str) -> float:
    values = shape.values if which == "fprop" else "gaussian" if shape.values == "positive" else shape.values
    return quantization_error(technique, which, values, _lengths(shape)[which], shape.power_of_two)


def _product_facts(shape: LinearShape, technique: str, which: str) -> Mapping[str, float]:
    work = {"fprop": cost.fprop, "dgrad": cost.dgrad, "wgrad": cost.wgrad}[which]
    return {QUANTIZED.name: _error(shape, technique, which), OPERANDS.name: work(shape, technique).read_bytes}


def _train_facts(shape: LinearShape, technique: str) -> Mapping[str, float]:
    return {metric.name: _error(shape, technique, which) for which, metric in GRADIENTS.items()}


def _numerics_series(shape: LinearShape, technique: str) -> Mapping[str, Sequence[float]]:
    return numerics.curves(technique, shape.values, shape.ins, shape.power_of_two)


def _numerics_facts(shape: LinearShape, technique: str) -> Mapping[str, float]:
    curves = _numerics_series(shape, technique)
    found = {name: values[-1] for name, values in curves.items() if name != "k"}
    if technique in TECHNIQUES:
        names = (UNDERFLOW.name, SATURATED.name, ELEMENT.name)
        figures = activations(technique, shape.values, shape.ins, shape.power_of_two)
        found |= dict(zip(names, figures, strict=True))
    return found


def _hopper_sum(shape: LinearShape | GroupedShape, device: str) -> tuple[float, float] | None:
    """The floor where no rounding to BF16 hides the sum of FP8 tensor cores: gradients of weights, and FP32 cases on a
    GPU. Promoted sums are off by 1.2e-4 to 1.3e-4 on an H200 over 128 to 448, by 4e-4 (worst element 2e-3 of the rms)
    over 4096 if emulated; without promotion by 1.2e-3 to 2.2e-3 (`tensor_core.py`)."""
    return None if shape.dtype == "float32" and device == "cpu" else PROMOTED_SUM


def _rows(shape: LinearShape | QuantizeShape | GroupedShape) -> int:
    return shape.rows


def _declare(name: str, weights: Any, draw: Any, work: Any, **more: Any) -> Operation:
    """One operation; a token is a row."""
    more = {"baseline": BASELINE, **more}
    return operation(Operation(f"linear.{name}", weights=weights, inputs=draw, cost=work, tokens=_rows, **more))


for _which, _weights, _draw, _work in (
    ("fprop", inputs.draw_weight, inputs.draw_fprop, cost.fprop),
    ("dgrad", inputs.draw_dgrad_weight, inputs.draw_dgrad, cost.dgrad),
    ("wgrad", inputs.draw_nothing, inputs.draw_wgrad, cost.wgrad),
):
    _facts = partial(_product_facts, which=_which)
    _declare(_which, _weights, _draw, _work, metrics=(QUANTIZED, OPERANDS), facts=_facts, allowed=_hopper_sum)

_declare("quantize", inputs.draw_norm, inputs.draw_quantize, cost.quantize, baseline=QUANTIZE_BASELINE)
_declare(
    "layer_train",
    inputs.draw_master,
    inputs.draw_train,
    cost.layer_train,
    metrics=tuple(GRADIENTS.values()),
    facts=_train_facts,
    allowed=_hopper_sum,
)
_declare(
    "numerics",
    inputs.draw_master,
    inputs.draw_rows,
    cost.numerics,
    metrics=(QUANTIZED, ACCUMULATED, PROMOTED, UNDERFLOW, SATURATED, ELEMENT),
    facts=_numerics_facts,
    series=_numerics_series,
)
_declare("grouped", inputs.draw_experts, inputs.draw_grouped, cost.grouped, allowed=_hopper_sum)
_declare("grouped_dgrad", inputs.draw_dgrad_experts, inputs.draw_grouped_dgrad, cost.grouped_dgrad, allowed=_hopper_sum)
_declare("grouped_wgrad", inputs.draw_nothing, inputs.draw_grouped_wgrad, cost.grouped_wgrad, allowed=_hopper_sum)
