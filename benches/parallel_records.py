"""From what ranks reported to records: completion over ranks, balance, what waited, and how placements compare.

An iteration is complete when its last rank is, so its time is the largest over the ranks; placements are compared round
by round. With one device playing all ranks there is no completion, and no latency: only the slowest share of a round.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.parallel_plan import CONTIGUOUS, MOST_ROUNDS, OPERATION, PLACEMENTS, TECHNIQUE, Case, Plan
from harness import Metric
from harness.measurement import interval
from harness.record import Figure, Record, RunWriter
from harness.statistics import median_estimate, outliers, ratio_estimate
from impls.ffn.balance import coefficient_of_variation, max_violation
from impls.ffn.inputs import loads
from impls.ffn.operations import VARIATION, VIOLATION
from impls.ffn.shape import TokenShape

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "impls/ffn/expert_parallel.py"
PHASES = ("local", "dispatch", "compute", "combine", "waiting")
METRICS = {
    metric.name: metric
    for metric in (
        VIOLATION,
        VARIATION,
        Metric(
            "rank_max_over_mean",
            "ratio",
            "lower",
            "The slowest rank's time in its experts over the mean of all ranks, median of the iterations.",
        ),
        Metric("token_max_over_mean", "ratio", "lower", "Rows of the busiest rank over the mean of all ranks."),
        Metric("exchanged_bytes", "bytes", "lower", "Hidden states and results that one layer sends to other ranks."),
        Metric(
            "waiting_share",
            "share",
            "lower",
            "Mean over the ranks of the time before exchanges in which a rank waits for others, over completion.",
        ),
        Metric("compute_slowest", "ns", "lower", "The slowest rank's time in its experts, median of the iterations."),
        Metric(
            "compute_ratio",
            "ratio",
            "lower",
            "The slowest rank's time in its experts over that of the contiguous placement, from paired rounds.",
        ),
        Metric("replicas", "count", "neither", "Physical experts of the layer, copies included."),
    )
}


@dataclass
class Found:
    """What the ranks reported of one placement in one case."""

    verdicts: list[Mapping[str, Any]] = field(default_factory=list)
    rounds: dict[int, dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    def wrong(self) -> str | None:
        """Why the result is wrong, with the rank; None if it is right."""
        wrong = [v for v in self.verdicts if "reason" in v]
        return f"rank {wrong[0]['member']}, {wrong[0]['when']} timing: {wrong[0]['reason']}" if wrong else None

    def whole(self, ranks: int) -> list[int]:
        """Rounds that every rank reported."""
        return sorted(number for number, members in self.rounds.items() if len(members) == ranks)

    def times(self, name: str, rounds: list[int], ranks: int) -> NDArray[np.float64]:
        """Nanoseconds [rounds, ranks] of a phase or of `total`."""
        return np.array([[self.rounds[n][member]["ns"][name] for member in range(ranks)] for n in rounds])


class Book:
    """Collects events; a case's records are made when every rank is through with it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._found: dict[str, dict[str, Found]] = {c.id: {n: Found() for n in PLACEMENTS} for c in plan.cases()}
        self._through: dict[str, int] = {}
        self._barriers: dict[str, list[float]] = {}

    def add(self, event: Mapping[str, Any]) -> str | None:
        """Note an event; the case that is complete with it, if any."""
        case, kind = str(event["case"]), event["event"]
        if kind == "barrier":
            self._barriers.setdefault(case, []).append(float(event["ns"]))
        elif kind == "verdict":
            self._found[case][event["contender"]].verdicts.append(event)
        elif kind == "iteration":
            rounds = self._found[case][event["contender"]].rounds
            rounds.setdefault(int(event["round"]), {})[int(event["member"])] = event
        elif kind == "case":
            self._through[case] = self._through.get(case, 0) + 1
            if self._through[case] == (1 if self.plan.apart else self.plan.ranks):
                return case
        return None

    def records(self, case: Case, writer: RunWriter, telemetry: Mapping[str, Any] | None) -> list[Record]:
        """A record a placement; samples are written."""
        found = self._found[case.id]
        base = found[CONTIGUOUS] if found[CONTIGUOUS].wrong() is None else None
        arrays: dict[str, NDArray[np.float64]] = {}
        records = []
        for name in PLACEMENTS:
            wrong = found[name].wrong()
            if wrong is not None:
                records.append(identity(self.plan, case, name, status="incorrect", reason=wrong))
                continue
            records.append(self._passed(case, name, base, arrays, telemetry))
        if arrays:
            writer.samples(case.id, arrays)
        return records

    def lost(self, case: Case, status: str, reason: str) -> list[Record]:
        """Records of a case that the ranks did not finish: a wrong result is said first."""
        records = []
        for name in PLACEMENTS:
            wrong = self._found[case.id][name].wrong()
            how = ("incorrect", wrong) if wrong else (status, reason)
            records.append(identity(self.plan, case, name, status=how[0], reason=how[1]))
        return records

    def _passed(
        self,
        case: Case,
        name: str,
        base: Found | None,
        arrays: dict[str, NDArray[np.float64]],
        telemetry: Mapping[str, Any] | None,
    ) -> Record:
        plan, found = self.plan, self._found[case.id][name]
        rounds = found.whole(plan.ranks)
        shown = "compute" if plan.apart else "total"
        samples = found.times(shown, rounds, plan.ranks).max(1)
        contender = f"{TECHNIQUE}/{name}"
        if not plan.apart:
            arrays[contender], arrays[f"{contender}:round"] = samples, np.asarray(rounds, dtype=np.float64)
        judged = [v for v in found.verdicts if "error" in v]
        return identity(
            plan,
            case,
            name,
            status="passed",
            baseline=f"{TECHNIQUE}/{CONTIGUOUS}" if base else None,
            figures=self._figures(case, name, rounds, base),
            series=self._series(found, rounds) | expert_loads(case.shape),
            layout=f"{plan.placement(name, case).slots} experts a rank",
            verification={
                "error": max(v["error"] for v in judged),
                "worst": max(v["worst"] for v in judged),
                "limit": min(v["limit"] for v in judged),
                "precision": judged[0]["precision"],
                "checked": ["output"],
                "seeds": sorted({v["seed"] for v in judged}),
            },
            timing={
                "clock": "events" if plan.device == "cuda" else "wall",
                "caches": "cold",
                "pairing": "simulated" if plan.apart else "paired",
                "rounds": len(rounds),
                "samples": len(samples),
                "outliers": outliers(samples),
                "stopped": "rounds" if len(rounds) == MOST_ROUNDS else "budget",
                "barrier_ns": max(self._barriers[case.id]),
                "shared_cores": plan.device == "cpu" and not plan.apart and plan.ranks > cores(),
            },
            samples=None
            if plan.apart
            else {"file": RunWriter.sample_file(case.id), "key": contender, "count": len(samples)},
            telemetry=telemetry,
        )

    def _figures(self, case: Case, name: str, rounds: list[int], base: Found | None) -> dict[str, Figure]:
        plan, found = self.plan, self._found[case.id][name]
        compute = found.times("compute", rounds, plan.ranks)
        first = found.rounds[rounds[0]]
        tokens = np.array([first[member]["tokens"] for member in range(plan.ranks)], dtype=np.float64)
        figures = {
            "rank_max_over_mean": interval(median_estimate(compute.max(1) / compute.mean(1))),
            "token_max_over_mean": Figure(float(tokens.max() / tokens.mean())),
            "exchanged_bytes": Figure(float(sum(first[member]["bytes"] for member in range(plan.ranks)))),
            "compute_slowest": interval(median_estimate(compute.max(1))),
            "replicas": Figure(float(plan.placement(name, case).expert_LP.shape[1])),
            "error": Figure(max(v["error"] for v in found.verdicts)),
            **spread(case.shape),
        }
        if base is not None:
            paired = base.times("compute", rounds, plan.ranks)
            figures["compute_ratio"] = interval(ratio_estimate(compute.max(1), paired.max(1)))
        if plan.apart:
            return figures
        completion = found.times("total", rounds, plan.ranks).max(1)
        waiting = found.times("waiting", rounds, plan.ranks).mean(1)
        figures["latency"] = interval(median_estimate(completion))
        figures["throughput"] = Figure(plan.ranks * plan.tokens / figures["latency"].value * 1e9)
        figures["waiting_share"] = interval(median_estimate(waiting / completion))
        if base is not None:
            paired = base.times("total", rounds, plan.ranks)
            figures["ratio"] = interval(ratio_estimate(completion, paired.max(1)))
        return figures

    def _series(self, found: Found, rounds: list[int]) -> dict[str, list[float]]:
        """Medians of each rank by phase, and the rows each was sent."""
        ranks = self.plan.ranks
        known = [phase for phase in PHASES if phase in found.rounds[rounds[0]][0]["ns"]]
        series = {f"{phase}_ns": np.median(found.times(phase, rounds, ranks), 0).tolist() for phase in known}
        first = found.rounds[rounds[0]]
        return series | {"tokens": [float(first[member]["tokens"]) for member in range(ranks)]}


def spread(shape: TokenShape) -> dict[str, Figure]:
    """How evenly one rank's tokens choose experts, whatever their placement."""
    loads_E = loads(shape, TECHNIQUE).double()
    found = {VIOLATION.name: max_violation(loads_E), VARIATION.name: coefficient_of_variation(loads_E)}
    return {name: Figure(value) for name, value in found.items()}


def expert_loads(shape: TokenShape) -> dict[str, list[float]]:
    """Tokens of each expert, of one rank's tokens."""
    return {"expert_load": [float(load) for load in loads(shape, TECHNIQUE).tolist()]}


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def identity(plan: Plan, case: Case, name: str, **found: Any) -> Record:
    """A record with everything but what was found."""
    return Record(
        case=case.id,
        study=OPERATION.split(".")[0],
        operation=OPERATION,
        model=plan.model,
        sizes=case.sizes,
        shape={**dataclasses.asdict(case.shape), "ranks": plan.ranks, "nodes": plan.nodes, "groups": plan.groups},
        technique=TECHNIQUE,
        implementation=name,
        kind="optimized",
        source={
            "file": str(SOURCE.relative_to(ROOT)),
            "digest": hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12],
        },
        doc=(ast.get_docstring(ast.parse(SOURCE.read_text())) or "").split("\n\n")[0],
        **found,
    )
