"""Runs of the linear study made up in code: products by a plain cost model, errors, a layer in training, losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.metrics import COMMON, Metric
from harness.record import Figure, Header, Record, RunWriter, slug
from harness.statistics import median_estimate, ratio_estimate
from tests.reports import made

SHARES = ("quantization_error", "accumulation_error", "promoted_error", "underflow_share", "saturated_share",
          "element_error", "output_error", "input_gradient_error", "weight_gradient_error")  # fmt: skip
METRICS = {
    **COMMON,
    **{name: Metric(name, "share", "lower", f"The {name}.") for name in SHARES},
    "operand_bytes": Metric("operand_bytes", "bytes", "lower", "Both operands."),
    "saved_bytes": Metric("saved_bytes", "bytes", "lower", "Kept for the backward."),
    **{name: Metric(name, "bits/byte", "lower", f"The {name}.") for name in ("validation_bits", "smoothed_loss")},
}
CEILINGS = {"read_bandwidth": 4.1e12, "copy_bandwidth": 3.9e12,
            "matrix": {"float32": 5.1e13, "bfloat16": 6.9e14, "float8_e4m3fn": 1.3e15}}  # fmt: skip
KINDS = {"reference": ("reference", 3.0), "mm": ("library", 1.1), "scaled-mm": ("library", 1.15),
         "deep-gemm": ("library", 1.05), "triton": ("optimized", 1.3)}  # fmt: skip
CONTENDERS = ["bf16/reference", "bf16/mm", "fp8/reference", "fp8/scaled-mm", "fp8/deep-gemm", "fp8/triton",
              "fp8-row/scaled-mm", "fp8-tensor/scaled-mm"]  # fmt: skip
ERRORS = {"gaussian": (0.0372, 0.0371, 0.0374), "positive": (0.0012, 0.0012, 0.0013), "outliers": (0.036, 0.34, 0.52)}
PLACES = ("fp8", "fp8-row", "fp8-tensor")
LAYER, SMALL = (7168, 16384), (4096, 7168)


def header(run: str = "2026-05-01T10-00-00-linear", device: str = "cuda", **changes: object) -> Header:
    """A header of a linear run; a CPU has no rate of FP8."""
    found = made.header(run, device, started="2026-05-01T10:00:00+00:00", metrics=METRICS)
    matrix = CEILINGS["matrix"] if device == "cuda" else {"float32": 5.1e13, "bfloat16": 6.9e14}
    changes = {"ceilings": {**CEILINGS, "matrix": matrix}, **changes}
    return replace(found, options={**found.options, "study": "linear"}, **changes)  # type: ignore[arg-type]


def flops(operation: str, rows: int, outs: int, ins: int) -> float:
    """Matrix FLOPs: three products in training, none in quantizing."""
    return 2.0 * rows * outs * ins * {"layer_train": 3, "quantize": 0}.get(operation, 1)


def record(
    operation: str,
    rows: int,
    outs: int,
    ins: int,
    contender: str,
    device: str = "cuda",
    words: str = "",
    **more: object,
) -> tuple[Record, np.ndarray]:
    """A record that passed and its samples. `words` end its sizes; `more` goes into the shape."""
    technique, name = contender.split("/")
    kind, factor = KINDS[name]
    single, fp8 = device == "cpu", technique != "bf16"
    word = 1 if fp8 else 4 if single else 2
    moved = float(word * rows * ins + (0 if operation == "quantize" else word * outs * ins + 2 * rows * outs))
    dtype = "float8_e4m3fn" if fp8 else "float32" if single else "bfloat16"
    rate = header(device=device).ceilings["matrix"].get(dtype)
    floor = 1e9 * max(moved / 4.1e12, flops(operation, rows, outs, ins) / (rate or 5.1e13))
    extra = 1.35 if operation == "layer_train" and fp8 else 1.0
    latency = floor * factor * extra * (4.0 if single and fp8 else 1.0) + 2000
    samples = latency * (1 + 0.01 * np.random.default_rng(rows + len(contender)).random(60))
    estimate = median_estimate(samples)
    value = estimate.value
    found = {
        "latency": Figure(value, estimate.low, estimate.high),
        "flops": Figure(flops(operation, rows, outs, ins)),
        "flop_rate": Figure(flops(operation, rows, outs, ins) / value * 1e9),
        "bytes": Figure(moved),
        "byte_rate": Figure(moved / value * 1e9),
        "resident": Figure(float(word * outs * ins)),
        "error": Figure(4e-4 if fp8 else 1e-6),
    }
    if rate:
        found |= {"floor": Figure(floor), "floor_share": Figure(floor / value)}
    if operation in ("fprop", "dgrad", "wgrad") and fp8:
        found["quantization_error"] = Figure(ERRORS["gaussian"][PLACES.index(technique)])
    if operation == "layer_train" and fp8:
        found |= {name_: Figure(0.037 * (1 + place / 10)) for place, name_ in enumerate(SHARES[-3:])}
    shape = {"rows": rows, "outs": outs, "ins": ins, "dtype": "float32" if single else "bfloat16", **more}
    sizes = f"m{rows}-n{outs}-k{ins}" if operation != "quantize" else f"m{rows}-c{ins}"
    sizes += words + ("-fp32" if single else "")
    case = f"linear.{operation}/v3/{sizes}"
    emulated = fp8 and (single or name == "reference")
    return Record(
        case=case, study="linear", operation=f"linear.{operation}", model="v3", sizes=sizes, shape=shape,
        technique=technique, implementation=name, kind=kind, status="passed", figures=found,
        layout="FP8 payloads, widened to FP32 for each product" if emulated else "contiguous",
        timing={"clock": "events", "pairing": "paired", "rounds": 60},
        samples={"file": f"samples/{slug(case)}.npz", "key": contender, "count": 60}, doc=f"{name} of {technique}.",
    ), samples  # fmt: skip


def write_case(
    writer: RunWriter,
    operation: str,
    rows: int,
    outs: int,
    ins: int,
    device: str = "cuda",
    words: str = "",
    **more: object,
) -> None:
    """All contenders of one case; the Triton one is wrong in dgrad, DeepGEMM is not installed on a CPU."""
    found, arrays = [], {}
    for contender in CONTENDERS:
        one, samples = record(operation, rows, outs, ins, contender, device, words, **more)
        if operation == "quantize" and one.technique == "bf16" and "silu" not in words:
            continue
        if operation == "dgrad" and one.implementation == "triton":
            one = made.failed(one, "incorrect", "dx is off by 3.1e-01 (relative Frobenius), limit 3.4e-03")
        elif device == "cpu" and one.implementation in ("deep-gemm", "triton"):
            one = made.failed(one, "unavailable", "needs an NVIDIA GPU")
        else:
            arrays[contender], arrays[f"{contender}:round"] = samples, np.arange(60.0)
        found.append(one)
    base = "bf16/mm" if "bf16/mm" in arrays else "fp8/reference"
    for one in found:
        if one.status == "passed":
            ratio = ratio_estimate(arrays[one.contender], arrays[base])
            figures = {**one.figures, "ratio": Figure(ratio.value, ratio.low, ratio.high)}
            one = replace(one, figures=figures, baseline=base)
        writer.record(one, METRICS)
    writer.samples(found[0].case, arrays)


def products(writer: RunWriter, device: str = "cuda") -> None:
    """Forward products over rows, both gradients and the layer in training."""
    for rows in (64, 1024, 8192):
        write_case(writer, "fprop", rows, *LAYER, device)
    write_case(writer, "fprop", 64, *SMALL, device)
    write_case(writer, "fprop", 8192, *SMALL, device)
    for operation in ("dgrad", "wgrad", "layer_train"):
        write_case(writer, operation, 8192, *LAYER, device)
    write_case(writer, "layer_train", 8192, *SMALL, device)
    write_case(writer, "fprop", 8192, *SMALL, device, words="-pow2", power_of_two=True)


def quantizers(writer: RunWriter, device: str = "cuda") -> None:
    """Quantizing alone and after SwiGLU."""
    for form in ("tiles", "transposed", "silu"):
        write_case(writer, "quantize", 8192, 1, 7168, device, words=f"-{form}", form=form)


def numerics_record(values: str, contender: str, length: int = 8192, powers: bool = False) -> Record:
    """Errors by technique, and curves over the length of the sum."""
    technique = contender.split("/")[0]
    found, _ = record("numerics", 64, 64, length, contender, words=f"-{values}{'-pow2' if powers else ''}",
                      values=values, power_of_two=powers)  # fmt: skip
    if technique == "bf16":
        return replace(found, samples=None)
    stops = [float(128 << n) for n in range(int(math.log2(length // 128)) + 1)]
    errors = {name: ERRORS[values][place] for place, name in enumerate(PLACES)}
    series: dict[str, Sequence[float]] = {
        "k": stops,
        "accumulation_error": [4e-4 * (k / 128) ** (0.9 if values == "positive" else 0.5) for k in stops],
        "promoted_error": [4e-4] * len(stops),
        "quantization_error": [errors[technique]] * len(stops),
    }
    lost = 0.002 if values != "outliers" else (0.008, 0.164, 0.342)[PLACES.index(technique)]
    extra = {"quantization_error": errors[technique], "underflow_share": lost, "saturated_share": 0.0,
             "element_error": 0.021 + lost / 2}  # fmt: skip
    figures = {**found.figures, **{name: Figure(value) for name, value in extra.items()}}
    return replace(found, figures=figures, series=series, samples=None)


def numerics(writer: RunWriter, device: str = "cuda") -> None:
    """Three distributions, one of them with both kinds of scale."""
    writer.record(numerics_record("gaussian", "fp8/scaled-mm", powers=True), METRICS)
    for values in ERRORS:
        for contender in ("bf16/mm", "fp8/scaled-mm", "fp8-row/scaled-mm", "fp8-tensor/scaled-mm"):
            writer.record(numerics_record(values, contender), METRICS)


def grouped(writer: RunWriter, device: str = "cuda") -> None:
    """Products of experts, forward and both gradients."""
    for operation in ("grouped", "grouped_dgrad", "grouped_wgrad"):
        write_case(writer, operation, 8192, *SMALL, device, groups=8)


def loss_record(
    seed: int, technique: str, device: str = "cuda", off: float = 0.001, steps: int = 400, **changes: object
) -> Record:
    """A training: `off` is how far FP8 ends from the other, relatively; seeds differ by 1 %."""
    stops = [1.0, *(float(steps * n // 8) for n in range(1, 9))]
    own = 1 + (off * (1 + 0.1 * seed) if technique == "fp8" else 0.0)
    loss = [(1.6 + 6.4 * math.exp(-6 * s / steps)) * (1 + 0.005 * seed) * (1 + (own - 1) * s / steps) for s in stops]
    sizes = f"s{steps}-seed{seed}{'-fp32' if device == 'cpu' else ''}"
    series = {"step": stops, "smoothed_loss": loss, "validation_bits": [0.98 * v for v in loss], "train_loss": loss}
    figures = {
        "latency": Figure(4e7 if technique == "fp8" else 2e7, 1.9e7, 4.1e7),
        "steps": Figure(steps),
        "validation_bits": Figure(0.98 * loss[-1]),
        "smoothed_loss": Figure(loss[-1]),
        "saved_bytes": Figure(6e6 if technique == "fp8" else 7e6),
    }
    found = Record(
        case=f"linear.loss/byte-dense-d128/{sizes}", study="linear", operation="linear.loss", model="byte-dense-d128",
        sizes=sizes, shape={"recipe": {"seed": seed, "steps": steps}}, technique=technique,
        implementation="scaled-mm" if technique == "fp8" else "reference",
        kind="library" if technique == "fp8" else "reference", status="passed", figures=figures, series=series,
        timing={"clock": "wall", "pairing": "paired", "steps": steps, "planned": steps}, baseline="bf16/reference",
        verification={"data": "some text, digest 0123"}, doc="Trains.",
    )  # fmt: skip
    return replace(found, **changes)  # type: ignore[arg-type]


def loss(writer: RunWriter, device: str = "cuda") -> None:
    """Three seeds without and with FP8."""
    for seed in range(3):
        for technique in ("bf16", "fp8"):
            writer.record(loss_record(seed, technique, device), METRICS)


PARTS = {"products": products, "quantizers": quantizers, "numerics": numerics, "grouped": grouped, "loss": loss}


def run(folder: Path, *parts: str, name: str = "2026-05-01T10-00-00-linear", device: str = "cuda") -> Path:
    """A run with these parts."""
    writer = RunWriter(folder)
    writer.header(header(name, device))
    for part in parts:
        PARTS[part](writer, device)
    return folder
