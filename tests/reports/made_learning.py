"""Runs of the learning study made up in code: courses by seed and arm, operations beside their references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.metrics import COMMON
from harness.record import Header, Record, RunWriter
from impls.learning.trial import METRICS as OWN
from tests.reports import made, made_objective

METRICS = {**COMMON, **{metric.name: metric for metric in OWN}}
ARMS = {"grpo/normalised": 0.95, "grpo/plain": 0.9, "ppo/lambda-1": 0.93, "ppo/lambda-0.95": 0.7}
COUNT = 1.2e8


def header(run: str = "2026-06-01T10-00-00-learning", device: str = "cuda", **changes: object) -> Header:
    """A header of a learning run."""
    found = made.header(run, device, started="2026-06-01T10:00:00+00:00", metrics=METRICS)
    return replace(found, options={**found.options, "study": "learning"}, **changes)  # type: ignore[arg-type]


def owned(technique: str) -> dict[str, float]:
    """16 bytes a trained parameter, 2 for the reference's."""
    critic = 16 * COUNT if technique == "ppo" else 0.0
    found = {"policy_bytes": 16 * COUNT, "critic_bytes": critic, "reference_bytes": 2 * COUNT}
    total = sum(found.values())
    return {**found, "owned_bytes": total, "arithmetic_bytes": total, "model_parameters": COUNT}


def course(seed: int, contender: str, timed: bool = False) -> Record:
    """A course to its end; seeds differ by 0.01."""
    technique, name = contender.split("/")
    end, stops = ARMS.get(contender, 0.9) - 0.01 * seed, [0.0, *(float(100 * n) for n in range(1, 9))]
    rising = [0.2 + (end - 0.2) * (1 - math.exp(-s / 200)) for s in stops]
    slow = 2.0 if technique == "ppo" else 1.0
    series: dict[str, Sequence[float]] = {
        "step": stops,
        "accuracy": rising,
        "seconds": [0.2 * slow * s for s in stops],
        "reward": [0.5 + value / 2 for value in rising],
        "length": [4.5 + s / 1000 for s in stops],
        "truncated": [0.01 for _ in stops],
        "kl": [s / 2000 for s in stops],
        "without_signal": [0.5 + s / 2000 for s in stops],
        "clipped": [0.02 for _ in stops],
        "owned_policy": [4 * COUNT, 4 * COUNT, 8 * COUNT],
    }
    figures = {"accuracy": rising[-1], "start_accuracy": 0.2, "steps": 800.0, **owned(technique)}
    figures |= {"rollout_time": 4e7, "reward_time": 1e6, "update_time": 1.5e8 * slow}
    more: dict[str, object] = {"kind": "reference" if name == "reference" else "optimized"}
    if timed:
        figures |= {"resident": 14 * COUNT * slow, "peak": 9 * COUNT * slow}
    made_objective.KINDS.setdefault(name, ("optimized", 1.0))
    sizes = f"addition2-zero-s800-seed{seed}"
    found, _ = made_objective.record(
        "loss", sizes, contender, 2e8 * slow, figures, {"recipe": {"seed": seed}, "model": {"layers": 10}},
        series=series, samples=None, timing={"clock": "wall", "pairing": "paired", "steps": 800, "planned": 800},
        verification={"data": "480 steps of supervised training, 20% of held-out problems right"}, **more,
    )  # fmt: skip
    return placed(found, "step", "ascii-dense-mha-d1024")


def placed(record: Record, operation: str, model: str) -> Record:
    """The record as one of this study."""
    return replace(
        record,
        study="learning",
        operation=f"learning.{operation}",
        model=model,
        case=f"learning.{operation}/{model}/{record.sizes}",
    )


def beside(operation: str, model: str, names: Sequence[str]) -> list[tuple[Record, np.ndarray]]:
    """An operation by its reference, then twice as fast in a quarter of the memory."""
    found = []
    for place, contender in enumerate(names):
        made_objective.KINDS.setdefault(contender.split("/")[1], ("optimized", 1.0))
        figures = {"peak": 8e9 / 4**place, "resident": 1e9, "floor_share": 0.3 * (1 + place)}
        one, samples = made_objective.record("loss", "m4096", contender, 2e7 / 2**place, figures, {"rows": 4096})
        own = placed(one, operation, model)
        kept = {"file": f"samples/{operation}.npz", "key": contender, "count": 60}
        found.append((replace(own, samples=kept), samples))
    return found


def courses(writer: RunWriter, seeds: int = 3) -> None:
    """Every arm from each seed."""
    for seed in range(seeds):
        for contender in ARMS:
            writer.record(course(seed, contender, timed=True), METRICS)


def single(writer: RunWriter) -> None:
    """GRPO alone from one seed, as `make learn` writes it."""
    writer.record(course(0, "grpo/normalised"), METRICS)


def operations(writer: RunWriter) -> None:
    """Rollout, update and log-probabilities beside their references."""
    for operation, model, names in (
        ("rollout", "ascii-dense-mha-d1024", ("grpo/reference", "grpo/shared")),
        ("update", "ascii-dense-mha-d1024", ("ppo/reference", "ppo/chunked")),
        ("logprob", "head-d1024-v129280", ("grpo/reference", "grpo/chunked")),
    ):
        made_objective.write(writer, beside(operation, model, names), names[0])


PARTS = {"courses": courses, "single": single, "operations": operations}


def run(folder: Path, *parts: str, name: str = "2026-06-01T10-00-00-learning", device: str = "cuda") -> Path:
    """A run with these parts."""
    writer = RunWriter(folder)
    writer.header(header(name, device))
    for part in parts:
        PARTS[part](writer)
    return folder
