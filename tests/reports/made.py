"""Runs made up in code, written by the harness's own writer: plausible attention sweeps, failures, and an odd study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.metrics import COMMON, Metric
from harness.record import Figure, Header, Record, RunWriter, slug
from harness.statistics import median_estimate, ratio_estimate
from tests.reports import made_machine

MODEL = {
    "hidden": 7168,
    "heads": 128,
    "kv_heads": 8,
    "layers": 61,
    "head_dim": 128,
    "latent": 512,
    "query_latent": 1536,
    "nope_dim": 128,
    "rope_dim": 64,
    "value_dim": 128,
    "dtype": "bfloat16",
    "converted": False,
}
METRICS = {
    **COMMON,
    "kv_bytes_per_token": Metric(
        "kv_bytes_per_token", "bytes", "lower", "Bytes one token leaves in one layer's cache."
    ),
    "parameters": Metric("parameters", "count", "neither", "Entries of the layer's matrices."),
}
KV_BYTES = {"mha": 65536, "gqa": 4096, "mqa": 512, "mla": 1152}
WEIGHTS = {"mha": 9.4e8, "gqa": 5.0e8, "mqa": 4.7e8, "mla": 3.7e8}
KINDS = {
    "reference": ("reference", 3.1),
    "compiled": ("compiled", 1.9),
    "sdpa": ("library", 1.35),
    "absorbed": ("optimized", 1.28),
    "split_kv": ("optimized", 1.22),
}
CONTENDERS = [
    *[f"{t}/{name}" for t in ("mha", "gqa", "mqa") for name in ("reference", "compiled", "sdpa", "split_kv")],
    "mla/reference",
    "mla/absorbed",
    "mla/flash_mla",
]
GPU = {
    "label": "NVIDIA H200",
    "cpu": {"name": "Xeon Platinum 8480C", "cores": 16, "memory_bytes": 128 * 2**30, "l3_bytes": 105 * 2**20},
    "gpus": [
        {
            "name": "NVIDIA H200",
            "memory_bytes": 150_000_000_000,
            "multiprocessors": 132,
            "l2_bytes": 50 * 2**20,
            "driver": "570.1",
            "power_limit_w": 700.0,
            "processes": [],
        }
    ],
    "software": {
        "python": "3.12.3",
        "torch": "2.11.0",
        "triton": "3.6.0",
        "cuda": "12.9",
        "cudnn": 91000,
        "os": "Linux",
    },
    "git": {"commit": "a1b2c3d4e5", "branch": "main", "dirty": True},
}
CEILINGS = {"read_bandwidth": 4.1e12, "copy_bandwidth": 3.9e12, "matrix": {"float32": 5.1e13, "bfloat16": 6.9e14}}
EVIL = "Split the cache <script>alert('x')</script> & merge.\n\nWins above 4 096 tokens — «Größe» 漢字; loses below."


def header(run: str = "2026-03-01T10-00-00-gpu", device: str = "cuda", **changes: object) -> Header:
    """A header as the harness writes it."""
    machine = GPU if device == "cuda" else {**GPU, "label": "Xeon Platinum 8480C, 16 cores", "gpus": []}
    options = {
        "device": device,
        "tier": "gpu" if device == "cuda" else "cpu",
        "budget": 480.0,
        "study": "attention",
        "model": "v3",
        "impl": None,
    }
    made = Header(run, "2026-03-01T10:00:00+00:00", machine, CEILINGS, options, METRICS)
    return replace(made, **changes)  # type: ignore[arg-type]


def latency_ns(contender: str, operation: str, batch: int, length: int) -> tuple[float, float]:
    """Latency and floor in nanoseconds by a plain bandwidth model."""
    technique, name = contender.split("/")
    kernel = operation.endswith("_kernel")
    moved = (0 if kernel else WEIGHTS[technique]) + batch * length * KV_BYTES[technique] * (
        1 if "decode" in operation else 4
    )
    arithmetic = (
        batch * length * (139264 if technique == "mla" else 32768) * 2 * (1 if "decode" in operation else length / 2)
    )
    floor = 1e9 * max(moved / 4.1e12, arithmetic / 6.9e14)
    factor = KINDS.get(name, ("", 1.3))[1]
    return floor * factor + (620_000 if technique == "mla" else 21_000), floor


def passed(
    case: str, operation: str, contender: str, batch: int, length: int, rng: np.random.Generator
) -> tuple[Record, np.ndarray, np.ndarray]:
    """A record that passed, its samples and their rounds."""
    technique, name = contender.split("/")
    latency, floor = latency_ns(contender, operation, batch, length)
    rounds = np.repeat(np.arange(120), 3)
    drift = 1 + 0.004 * np.sin(rounds / 17)
    samples = latency * drift * (1 + 0.006 * np.abs(rng.standard_normal(rounds.size)))
    samples[rng.integers(0, samples.size, 4)] *= 1.4
    estimate = median_estimate(np.array([np.median(samples[rounds == r]) for r in range(120)]))
    tokens = batch if "decode" in operation else batch * length
    moved, flops = floor * 4100, floor * 2e4
    figures = {
        "latency": Figure(estimate.value, estimate.low, estimate.high),
        "floor": Figure(floor),
        "floor_share": Figure(floor / estimate.value),
        "throughput": Figure(tokens / estimate.value * 1e9),
        "resident": Figure(WEIGHTS[technique] + batch * length * KV_BYTES[technique]),
        "peak": Figure(3e6 + 40.0 * batch * length),
        "flops": Figure(flops),
        "bytes": Figure(moved),
        "flop_rate": Figure(flops / estimate.value * 1e9),
        "byte_rate": Figure(moved / estimate.value * 1e9),
        "error": Figure(0.0031),
        "parameters": Figure(WEIGHTS[technique] / 2),
        "kv_bytes_per_token": Figure(KV_BYTES[technique]),
        "launches": Figure(9),
    }
    shape: dict[str, object] = {"model": MODEL, "batch": batch, "length": length}
    if "decode" in operation:
        shape |= {"new_tokens": 1, "ragged": False, "cache": "native"}
        figures["state"] = Figure(float(batch * (length + 64) * KV_BYTES[technique]))
    record = Record(
        case=case,
        study=operation.split(".")[0],
        operation=operation,
        model="v3",
        sizes=case.split("/")[-1],
        shape=shape,
        technique=technique,
        implementation=name,
        kind=KINDS.get(name, ("library", 0))[0],
        status="passed",
        figures=figures,
        layout="pages of 64" if name == "split_kv" else "contiguous",
        verification={
            "error": 0.0031,
            "limit": 0.0064,
            "worst": 0.04,
            "precision": "float32",
            "checked": ["output", "written cache.k"],
        },
        timing={
            "clock": "events",
            "caches": "cold",
            "pairing": "paired",
            "rounds": 120,
            "samples": int(samples.size),
            "outliers": 4,
            "suspect": False,
            "stopped": "narrow",
        },
        samples={"file": f"samples/{slug(case)}.npz", "key": contender, "count": int(samples.size)},
        source={"file": f"impls/attention/decode/{name}.py", "digest": "0123456789ab"},
        doc=EVIL if name == "split_kv" else f"{name} of {technique}: reads the cache once.",
        telemetry={
            "sm_clock_mhz": {"median": 1755, "min": 1590, "max": 1980},
            "power_w": {"median": 512.5, "min": 380, "max": 640},
            "temperature_c": {"median": 51, "min": 47, "max": 55},
            "throttle": [],
            "energy_j": 812.0,
            "other_processes": 1,
            "host": {"others": 0.31, "steal": 0.0, "switches": 4.5, "waits": 120.0},
        },
    )
    return record, samples, rounds.astype(float)


def failed(record: Record, status: str, reason: str) -> Record:
    """The same contender, without a result."""
    return replace(
        record, status=status, reason=reason, figures={}, samples=None, timing={}, verification={}, telemetry=None
    )


def without(name: str, record: Record) -> Record:
    """The record without the figures, series and sizes whose names begin like this."""
    parts: dict[str, Any] = {
        field: {key: value for key, value in getattr(record, field).items() if not key.startswith(name)}
        for field in ("figures", "series", "shape")
    }
    return replace(record, **parts)


def odd(record: Record, operation: str, length: int) -> Record:
    """The failures and cautions of the made-up run, by contender and size."""
    name, timing = record.contender, dict(record.timing)
    if name == "mla/flash_mla" and "decode" not in operation:
        return failed(record, "unavailable", "decode only: it has no causal mask over new keys")
    if record.kind == "compiled" and length != 4096:
        return failed(
            record,
            "unavailable",
            "compiling costs 20 s and more: compiled references take part in a few marked cases only",
        )
    if name == "mha/reference" and length >= 65536:
        return failed(record, "oom", "OutOfMemoryError: tried to allocate 64.00 GiB <on> device 0")
    if name == "mqa/split_kv" and length == 1024:
        return failed(record, "incorrect", "output differs: error 0.31, limit 0.0064")
    if name == "mqa/sdpa" and length == 16384:
        return replace(record, timing={**timing, "suspect": True})
    if name == "gqa/reference":
        return replace(record, timing={**timing, "clock": "host-bound"})
    if name == "mha/sdpa" and length == 65536:
        return replace(record, timing={**timing, "pairing": "unpaired"})
    return record


def write_case(writer: RunWriter, operation: str, batch: int, length: int) -> None:
    """All contenders of one case, with ratios against mha/sdpa."""
    case = f"{operation}/v3/b{batch}-s{length}"
    rng = np.random.default_rng(length + batch)
    arrays: dict[str, np.ndarray] = {}
    found = []
    for contender in CONTENDERS:
        record, samples, rounds = passed(case, operation, contender, batch, length, rng)
        record = odd(record, operation, length)
        if record.status == "passed":
            arrays[contender], arrays[f"{contender}:round"] = samples, rounds
        found.append(record)
    base = arrays["mha/sdpa"]
    for record in found:
        if record.status == "passed":
            ratio = ratio_estimate(arrays[record.contender], base)
            figures = {**record.figures, "ratio": Figure(ratio.value, ratio.low, ratio.high)}
            record = replace(record, figures=figures, baseline="mha/sdpa")
        writer.record(record, METRICS)
    writer.samples(case, arrays)


def gpu_run(folder: Path) -> Path:
    """Decode sweeps of two batches, the inner kernel, prefill and training on a GPU."""
    writer = RunWriter(folder)
    writer.header(header())
    for length in (512, 1024, 4096, 16384, 65536):
        write_case(writer, "attention.decode", 16, length)
    for length in (1024, 4096, 16384):
        write_case(writer, "attention.decode", 1, length)
        write_case(writer, "attention.decode_kernel", 16, length)
    for length in (1024, 4096):
        write_case(writer, "attention.prefill", 1, length)
    write_case(writer, "attention.train", 1, 2048)
    made_machine.profiles(folder, "attention.decode/v3/b16-s4096")
    made_machine.lanes(writer, "attention.decode/v3/b16-s4096")
    return folder


def cpu_run(folder: Path) -> Path:
    """A run with few lengths, no GPU and no telemetry."""
    writer = RunWriter(folder)
    writer.header(header("2026-03-02T09-00-00-cpu", "cpu", started="2026-03-02T09:00:00+00:00"))
    for length in (512, 2048):
        write_case(writer, "attention.decode", 1, length)
    return folder


def toy_run(folder: Path) -> Path:
    """A study, operation and metric that no page knows by name."""
    metrics = {**COMMON, "wobble": Metric("wobble", "wobbles", "lower", "How much it wobbles.")}
    writer = RunWriter(folder)
    writer.header(header("toy-run", "cpu", started="2026-02-01T09:00:00+00:00", metrics=metrics))
    for i, name in enumerate(("reference", "quick")):
        record = Record(
            case="toy.sum/tiny/n8",
            study="toy",
            operation="toy.sum",
            model="tiny",
            sizes="n8",
            shape={"n": 8},
            technique="plain",
            implementation=name,
            kind="reference" if i == 0 else "optimized",
            status="passed",
            figures={"latency": Figure(900.0 - 400 * i), "wobble": Figure(3.5)},
            baseline="plain/reference",
        )
        if i:
            record = replace(record, figures={**record.figures, "ratio": Figure(0.56, 0.5, 0.6)})
        writer.record(record, metrics)
    writer.record(failed(replace(record, implementation="broken"), "error", "ValueError: <no>"), metrics)
    return folder
