"""Runs of the ffn study made up in code: layers by a plain cost model, skewed loads, training arms, ranks."""

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

METRICS = {
    **COMMON,
    **{
        name: Metric(name, unit, "lower", f"The {name}.")
        for name, unit in (
            ("parameters", "count"),
            ("active_parameters", "count"),
            ("max_violation", "ratio"),
            ("load_variation", "ratio"),
            ("rank_max_over_mean", "ratio"),
            ("simulated_rank_max_over_mean", "ratio"),
            ("token_max_over_mean", "ratio"),
        )
    },
}
ROUTER = {"experts": 32, "top_k": 8, "score": "sigmoid", "groups": 1, "top_groups": 1, "normalise": True, "scale": 2.5}
V3_SLICE = {"hidden": 7168, "width": 2048, "shared": 1, "router": ROUTER, "dtype": "bfloat16"}
V2_LITE = {**V3_SLICE, "hidden": 2048, "width": 1408, "shared": 2, "router": {**ROUTER, "experts": 64, "top_k": 6}}
MODELS = {"v3-ep8": V3_SLICE, "v2-lite": V2_LITE, "v3": {**V3_SLICE, "router": {**ROUTER, "experts": 256}}}
KINDS = {"reference": ("reference", 2.4), "compiled": ("compiled", 1.7), "grouped-mm": ("library", 1.3),
         "sorted": ("optimized", 1.6), "triton": ("optimized", 1.15)}  # fmt: skip
CONTENDERS = [
    "dense/reference", "dense/compiled", "dense-total/reference", "moe/reference", "moe/grouped-mm", "moe/sorted",
    "moe/triton", "moe-coarse/reference", "moe-coarse/grouped-mm",
]  # fmt: skip
ARMS = {"none": (3.2, 1.412), "expert-loss": (0.55, 1.431), "device-loss": (1.1, 1.420), "bias": (0.24, 1.409),
        "bias-sequence": (0.21, 1.410)}  # fmt: skip
PLACEMENTS = {"contiguous": 1.92, "eplb-hierarchical": 1.18, "eplb-global": 1.04}


def header(run: str = "2026-04-01T10-00-00-ffn", device: str = "cuda", **changes: object) -> Header:
    """A header of an ffn run."""
    found = made.header(run, device, started="2026-04-01T10:00:00+00:00", metrics=METRICS)
    return replace(found, options={**found.options, "study": "ffn"}, **changes)  # type: ignore[arg-type]


def loads(experts: int, top_k: int, tokens: int, skew: float) -> list[int]:
    """Tokens of each expert in proportion to rank^-skew, in a fixed disorder; never more than there are tokens."""
    wanted = np.arange(1, experts + 1, dtype=float) ** -skew
    counts = np.minimum(np.round(wanted / wanted.sum() * tokens * top_k), tokens)
    ripple = np.arange(experts) % 3 if tokens >= 64 else np.arange(experts) % 2
    return [int(v) for v in np.random.default_rng(experts).permutation(counts + ripple)]


def work(model: str, technique: str, operation: str, tokens: int) -> float:
    """The floor in nanoseconds: weights read once, or arithmetic."""
    sizes = MODELS[model]
    router = sizes["router"]
    one = 3.0 * sizes["hidden"] * sizes["width"]  # type: ignore[operator]
    active, total = router["top_k"] + sizes["shared"], router["experts"] + sizes["shared"]  # type: ignore[index,operator]
    touched = {"dense": active, "dense-total": total}.get(technique, min(total, active * tokens))
    used = total if technique == "dense-total" else active
    floor = 1e9 * max(touched * one * 2 / 4.1e12, used * one * 2 * tokens / 6.9e14)
    part = {"ffn.route": 0.02, "ffn.select": 0.01, "ffn.permute": 0.09, "ffn.experts": 0.74, "ffn.train": 3.0}
    return floor * part.get(operation, 1.0)


def record(operation: str, model: str, tokens: int, skew: float, contender: str) -> tuple[Record, np.ndarray]:
    """A record that passed and the medians of its rounds."""
    technique, name = contender.split("/")
    kind, factor = KINDS[name]
    sizes = MODELS[model]
    floor = work(model, technique, operation, tokens)
    even = not skew or technique.startswith("dense")
    latency = floor * factor * (1.0 if even else 1 + 0.25 * skew * factor) + 9000 * len(name)
    rng = np.random.default_rng(tokens + len(contender))
    samples = latency * (1 + 0.01 * rng.random(60))
    estimate = median_estimate(samples)
    words = f"t{tokens}" + (f"-zipf{skew:g}" if skew else "")
    figures = {
        "latency": Figure(estimate.value, estimate.low, estimate.high),
        "floor": Figure(floor),
        "floor_share": Figure(floor / estimate.value),
        "throughput": Figure(tokens / estimate.value * 1e9),
        "resident": Figure(1e9),
        "parameters": Figure(1e9),
    }
    series: dict[str, Sequence[float]] = {}
    if not technique.startswith("dense"):
        router = sizes["router"] if technique == "moe" else {"experts": 8, "top_k": 2}
        counts = loads(router["experts"], router["top_k"], tokens, skew)  # type: ignore[index]
        series["expert_load"] = counts
        figures["max_violation"] = Figure(max(counts) / (sum(counts) / len(counts)) - 1)
        figures["simulated_rank_max_over_mean"] = Figure(1 + figures["max_violation"].value / 3)
    case = f"{operation}/{model}/{words}"
    found = Record(
        case=case,
        study="ffn",
        operation=operation,
        model=model,
        sizes=words,
        shape={"model": sizes, "tokens": tokens, "skew": skew},
        technique=technique,
        implementation=name,
        kind=kind,
        status="passed",
        figures=figures,
        series=series,
        verification={"error": 0.0031, "limit": 0.0064, "precision": "float32", "checked": ["output"]},
        timing={"clock": "events", "pairing": "paired", "rounds": 60},
        samples={"file": f"samples/{slug(case)}.npz", "key": contender, "count": 60},
        doc=f"{name} of {technique}.",
    )
    return found, samples


def write_case(
    writer: RunWriter,
    operation: str,
    model: str,
    tokens: int,
    skew: float = 0.0,
    contenders: Sequence[str] = CONTENDERS,
) -> None:
    """All contenders of one case; compiled ones could not run, the coarse reference is wrong."""
    inner = operation in ("ffn.route", "ffn.select", "ffn.permute", "ffn.experts")
    names = [name for name in contenders if name.startswith("moe/")] if inner else contenders
    found, arrays = [], {}
    for contender in names:
        one, samples = record(operation, model, tokens, skew, contender)
        if one.implementation == "compiled":
            one = made.failed(one, "unavailable", "compiling costs 20 s and more")
        elif contender == "moe-coarse/reference":
            one = made.failed(one, "incorrect", "output differs: error 0.31 > limit 0.01")
        else:
            arrays[contender], arrays[f"{contender}:round"] = samples, np.arange(60.0)
        found.append(one)
    base = "moe/grouped-mm" if inner else "dense/reference"
    for one in found:
        if one.status == "passed" and base in arrays:
            ratio = ratio_estimate(arrays[one.contender], arrays[base])
            figures = {**one.figures, "ratio": Figure(ratio.value, ratio.low, ratio.high)}
            one = replace(one, figures=figures, baseline=base)
        writer.record(one, METRICS)
    writer.samples(found[0].case, arrays)


def decode(writer: RunWriter) -> None:
    """Decode of one rank's slice, even and skewed."""
    for tokens in (1, 16, 128):
        write_case(writer, "ffn.decode", "v3-ep8", tokens)
    write_case(writer, "ffn.decode", "v3-ep8", 128, 1.0)


def layers(writer: RunWriter) -> None:
    """What `make bench` measures."""
    decode(writer)
    for tokens in (1024, 4096):
        write_case(writer, "ffn.prefill", "v3-ep8", tokens)
    write_case(writer, "ffn.prefill", "v3-ep8", 4096, 1.0)
    write_case(writer, "ffn.train", "v3-ep8", 4096)
    for tokens in (1, 128):
        write_case(writer, "ffn.decode", "v2-lite", tokens)
    write_case(writer, "ffn.prefill", "v2-lite", 8192)
    for tokens in (128, 4096):
        write_case(writer, "ffn.route", "v3", tokens)
    write_case(writer, "ffn.select", "v3", 128)
    write_case(writer, "ffn.permute", "v3-ep8", 4096)
    for skew in (0.0, 1.0):
        write_case(writer, "ffn.experts", "v3-ep8", 4096, skew)
    write_case(writer, "ffn.experts", "v2-lite", 512)


def arm(name: str, layers: int = 3, experts: int = 16, steps: int = 301) -> Record:
    """One arm of a training run: no latency, loads of its last step by layer."""
    level, bits = ARMS.get(name, (1.0, 1.5))
    at = [10 * i for i in range(steps)]
    series: dict[str, Sequence[float]] = {
        "step": at,
        "train_loss": [5.0 * math.exp(-s / 900) + 1.0 for s in at],
        "validation_bits": [bits + 2.1 * math.exp(-s / 500) for s in at],
        "max_violation": [level * (1 + 0.2 * math.sin(s / 70)) + 1.5 * math.exp(-s / 300) for s in at],
        "max_violation_global": [0.6 * level + math.exp(-s / 300) for s in at],
    }
    for layer in range(layers):
        counts = np.arange(1, experts + 1, dtype=float) ** -min(1.0, level / 3)
        series[f"load_layer_{layer}"] = [
            round(v) for v in np.random.default_rng(layer).permutation(1000 * counts).tolist()
        ]
    return Record(
        case="ffn.balance/tiny/e16-k4",
        study="ffn",
        operation="ffn.balance",
        model="tiny",
        sizes="e16-k4",
        shape={"experts": experts},
        technique="moe",
        implementation=name,
        kind="optimized",
        status="passed",
        figures={"max_violation": Figure(level)},
        series=series,
        doc=f"The arm {name}.",
    )


def trial(name: str, taken: int = 60, planned: int = 60) -> Record:
    """An arm of the shortened form that `make bench` trains as a trial."""
    found = arm(name, layers=1, steps=7)
    bench = {"clock": "wall", "caches": "as left", "pairing": "paired", "stopped": "last step", "rounds": taken}
    told = {"checked": ["every step finite", "fell"], "start": 6.1, "end": 3.4, "first": 8.1, "again": 8.1,
            "limit": 0.001, "data": "some text"}  # fmt: skip
    return replace(
        found, case=f"ffn.balance/small/s{planned}", model="small", sizes=f"s{planned}", verification=told,
        figures={**found.figures, "latency": Figure(2e7, 1.9e7, 2.1e7), "steps": Figure(taken)},
        timing={**bench, "steps": taken, "planned": planned},
    )  # fmt: skip


def balance(writer: RunWriter) -> None:
    """What `make balance` records."""
    for name in ARMS:
        writer.record(arm(name), METRICS)


def parallel_record(name: str, ranks: int, tokens: int, skew: float) -> Record:
    """Ranks of one placement; a simulated one has no times."""
    simulated = name.startswith("simulated-")
    excess = (PLACEMENTS.get(name.removeprefix("simulated-"), 1.5) - 1) * (skew or 0.2) * ranks / 4
    shares = np.linspace(1 + excess, 1 - excess / 3, ranks) if ranks > 1 else np.ones(1)
    compute = 300_000 * np.maximum(shares, 0.1)
    series: dict[str, Sequence[float]] = {
        "local_ns": [20_000.0] * ranks,
        "compute_ns": compute.tolist(),
        "dispatch_ns": [45_000.0] * ranks,
        "combine_ns": [60_000.0] * ranks,
        "waiting_ns": (compute.max() - compute).tolist(),
        "tokens": [round(v) for v in (tokens * shares).tolist()],
    }
    latency = float(compute.max() + 125_000)
    figures = {"token_max_over_mean": Figure(1 + excess)}
    if not simulated:
        figures |= {"latency": Figure(latency, 0.98 * latency, 1.02 * latency)}
        figures["rank_max_over_mean"] = Figure(float(compute.max() / compute.mean()))
        figures["ratio"] = Figure(latency / 716_000)
    words = f"r{ranks}-t{tokens}" + (f"-zipf{skew:g}" if skew else "")
    return Record(
        case=f"ffn.parallel/v3-cut/{words}",
        study="ffn",
        operation="ffn.parallel",
        model="v3-cut",
        sizes=words,
        shape={"tokens": tokens, "skew": skew},
        technique="moe",
        implementation=name,
        kind="reference" if simulated else "optimized",
        status="passed",
        figures=figures,
        series={} if simulated else series,
        timing={"pairing": "simulated" if simulated else "paired"},
        baseline="moe/contiguous",
    )


def parallel(writer: RunWriter) -> None:
    """What `make bench-ep` records: four ranks measured, up to 32 simulated."""
    for skew in (0.0, 1.0):
        for name in PLACEMENTS:
            writer.record(parallel_record(name, 4, 128, skew), METRICS)
    for ranks in (4, 8, 16, 32):
        for name in PLACEMENTS:
            writer.record(parallel_record(f"simulated-{name}", ranks, 4096, 1.0), METRICS)


def played(record: Record) -> Record:
    """The same ranks where one device was all of them in turn: no exchange, no waiting, no time of the layer."""
    figures = {name: value for name, value in record.figures.items() if name not in ("latency", "ratio")}
    series = {name: record.series[name] for name in ("local_ns", "compute_ns", "tokens")}
    return replace(record, figures=figures, series=series, timing={"pairing": "simulated"})


PARTS = {"layers": layers, "decode": decode, "balance": balance, "parallel": parallel}


def run(folder: Path, *parts: str, name: str = "2026-04-01T10-00-00-ffn", device: str = "cuda") -> Path:
    """A run with these parts."""
    writer = RunWriter(folder)
    writer.header(header(name, device))
    for part in parts:
        PARTS[part](writer)
    return folder
