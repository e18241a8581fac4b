"""Runs of whole models made up in code: sixteen combinations by a plain cost model, and another operation."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from harness.metrics import COMMON, Metric
from harness.record import Figure, Header, Record, RunWriter
from tests.reports import made

UNITS = {"validation_bits": "bits/byte", "train_loss": "bits/byte", "step_time": "ns", "train_rate": "tokens/s",
         "generate_rate_1": "tokens/s", "generate_rate_8": "tokens/s", "acceptance": "share", "kv_bytes": "bytes",
         "model_parameters": "count", "model_active_parameters": "count", "million_tokens": "money",
         "xz_bits": "bits/byte"}  # fmt: skip
METRICS = {**COMMON, **{name: Metric(name, unit, "lower", f"The {name}.") for name, unit in UNITS.items()}}
AXES = (("mha", "mla"), ("dense", "moe"), ("bf16", "fp8"), ("ntp", "mtp"))
NAMES = ["-".join(choices) for choices in itertools.product(*AXES)]
STEP, TOKEN, CACHE, BITS = (1.2, 1.5, 0.7, 1.6), (0.9, 1.4, 0.8, 0.7), (0.3, 1.0, 1.0, 1.5), (0.01, -0.05, 0.002, -0.01)


def header(run: str = "2026-07-01T10-00-00-model", device: str = "cuda", **changes: object) -> Header:
    """A header of a ladder."""
    found = made.header(run, device, started="2026-07-01T10:00:00+00:00", metrics=METRICS)
    return replace(found, options={**found.options, "study": "model"}, **changes)  # type: ignore[arg-type]


def settings(name: str) -> tuple[bool, ...]:
    """Whether each axis has its second choice."""
    return tuple(word == two for word, (_, two) in zip(name.split("-"), AXES, strict=True))


def product(factors: tuple[float, ...], on: tuple[bool, ...]) -> float:
    """The product of the factors that are on."""
    found = 1.0
    for factor, one in zip(factors, on, strict=True):
        found *= factor if one else 1.0
    return found


def record(name: str, price: float | None = 2.5, xz: float | None = 1.5, **changes: object) -> Record:
    """One combination: effects multiply, but for a step of a mixture in FP8, which takes 1.25 times what they make."""
    on = settings(name)
    together = 1.25 if on[1] and on[2] else 1.0
    step = 8e6 * product(STEP, on) * together
    rates = {batch: 1000 * batch**0.8 / product(TOKEN, on) for batch in (1, 8)}
    bits = 2.5 + sum(part for part, one in zip(BITS, on, strict=True) if one)
    figures = {
        "validation_bits": bits,
        "train_loss": bits - 0.1,
        "train_rate": 256e9 / step,
        "kv_bytes": 512 * product(CACHE, on),
        "model_parameters": 1e5 * (4 if on[1] else 1),
        "model_active_parameters": 1e5,
        "steps": 60.0,
        "peak": 3e5 * (1.5 if on[3] else 1.0),
        **{f"generate_rate_{batch}": rate for batch, rate in rates.items()},
        **({"acceptance": 0.8} if on[3] else {}),
        **({"million_tokens": price / 3600 * 1e6 / rates[8]} if price else {}),
        **({"xz_bits": xz} if xz else {}),
    }
    shape = {"recipe": {"steps": 60, "batch": 4, "length": 64, "seed": 0},
             "corpus": {"label": "some text", "digest": "0123456789abcdef"}}  # fmt: skip
    found = Record(
        case="model.ladder/byte-d64-l2/s60", study="model", operation="model.ladder", model="byte-d64-l2", sizes="s60",
        shape=shape, technique=name, implementation="dequantized" if on[2] else "reference", kind="reference",
        status="passed", figures={key: Figure(value) for key, value in figures.items()}, doc=f"The model {name}.",
        series={"step": [1, 60], "validation_bits": [8.0, bits]}, timing={"clock": "wall", "pairing": "interleaved"},
    )  # fmt: skip
    found = replace(found, figures={**found.figures, "step_time": Figure(step, 0.99 * step, 1.02 * step)})
    return replace(found, **changes)  # type: ignore[arg-type]


def ladder(writer: RunWriter) -> None:
    """All sixteen."""
    for name in NAMES:
        writer.record(record(name), METRICS)


def gaps(writer: RunWriter) -> None:
    """Without a price and a compressor's word; two combinations could not run, all four among them."""
    for name in NAMES:
        one = record(name, None, None)
        if name in ("mla-moe-fp8-mtp", "mha-moe-fp8-ntp"):
            step = 3 if name.startswith("mha") else 5
            one = made.failed(replace(one, series={}), "error", f"ValueError: step {step}: the training loss is nan")
        writer.record(one, METRICS)


def passes(writer: RunWriter) -> None:
    """An operation of the study that the page does not know by name."""
    for name, latency in (("mha-dense-bf16-ntp", 4e6), ("mla-moe-fp8-mtp", 3e6)):
        figures = {"latency": Figure(latency, 0.99 * latency, 1.01 * latency), "ratio": Figure(latency / 4e6)}
        one = record(name, operation="model.prefill", case="model.prefill/v2-lite/b1-t4096", model="v2-lite",
                     sizes="b1-t4096", figures=figures, series={}, baseline="mha-dense-bf16-ntp/reference",
                     implementation="reference")  # fmt: skip
        writer.record(one, METRICS)


PARTS = {"ladder": ladder, "gaps": gaps, "passes": passes}


def run(folder: Path, *parts: str, name: str = "2026-07-01T10-00-00-model", device: str = "cuda") -> Path:
    """A run with these parts."""
    writer = RunWriter(folder)
    writer.header(header(name, device))
    for part in parts:
        PARTS[part](writer)
    return folder
