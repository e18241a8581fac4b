"""What do the ways of balancing experts cost and buy? One small mixture trained under each, side by side.

`python -m benches.balance` (`make balance`) trains the same model from the same seed on the same bytes in the same
order, one step of each arm in turn, and writes a run: one record an arm, its curves as series. To look for: without
balancing few experts take most tokens; losses and bias both even them out; the bias does not pull on the language loss.
A small model shows the direction, not the size: bits a byte here say nothing about a model of billions.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benches.arms import BUDGET, GPU_BUDGET, LEAST_STEPS, METRICS, PLANS, Plan
from harness.folder import new_folder
from harness.machine import fingerprint
from harness.metrics import COMMON
from harness.record import Figure, Header, Record, RunWriter, read_run
from harness.statistics import median_estimate
from harness.terminal import aligned
from harness.units import duration, plain, show
from impls.ffn.balance_trial import ARMS, figures, final_loads
from impls.model import checkpoint
from impls.model.corpus import Corpus, read_corpus, windows
from impls.model.loop import SAVING_SHARE, fit, points, resume
from impls.model.training import Training

ROOT = Path(__file__).parents[1]
OVERRUN = 40.0
TIMED = 5
MARGIN = 0.93  # of the time that steps are planned for: together arms are slower than one by one
KEPT = ("preset", "arms", "steps", "threads", "data", "stops", "windows", "form")


class Refused(Exception):
    """The request cannot be met; the text says why."""


class Study:
    """A run of a plan: its folder, its arms, their records.

    `begin` starts one and `again` opens one to finish it; both raise Refused for a request that cannot be met.
    """

    def __init__(self, plan: Plan, corpus: Corpus, folder: Path, header: Header, begun: float) -> None:
        self.plan, self.corpus, self.begun = plan, corpus, begun
        self.header, self.writer = header, RunWriter(folder)
        self.folder, self.records = folder, {}
        self.xz_bits, self.limit = corpus.xz_bits, float("inf")

    @classmethod
    def begin(cls, plan: Plan, runs: Path) -> Study:
        """A new run; where the plan leaves steps or threads open, they are set by timing a few steps."""
        begun, corpus = time.monotonic(), readied(plan)
        settled = settle(plan, corpus, begun, runs)
        folder = new_folder(runs, "ffn-balance", ROOT)
        tier = "gpu" if plan.device == "cuda" else "cpu"
        options = {"study": "ffn", "device": plan.device, "tier": tier, "model": plan.model, "budget": plan.budget}
        options["command"] = settled.command
        options["balance"] = {name: getattr(settled, name) for name in KEPT} | described(corpus)
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        study = cls(
            settled,
            corpus,
            folder,
            Header(folder.name, started, fingerprint(ROOT), {}, options, {**COMMON, **METRICS}),
            begun,
        )
        study.writer.header(study.header)
        study.limit = float("inf") if plan.steps else plan.budget + OVERRUN
        return study

    @classmethod
    def again(cls, folder: Path) -> Study:
        """A run to finish: arms that reached the last step are kept, others go on from their checkpoints."""
        begun = time.monotonic()
        try:
            run = read_run(folder)
            kept = dict(run.header.options["balance"])
            plan = replace(
                PLANS[kept["preset"]](), **{name: kept[name] for name in KEPT} | {"arms": tuple(kept["arms"])}
            )
        except (OSError, ValueError, KeyError) as error:
            raise Refused(f"RESUME={folder}: this is no balance run that can be finished: {error}") from error
        corpus = readied(plan)
        if corpus.digest != kept["digest"]:
            raise Refused(
                f"RESUME={folder}: it reads {kept['label']} with digest {kept['digest'][:12]}, here that is "
                f"{corpus.label} with {corpus.digest[:12]}; begin a new run"
            )
        study = cls(plan, corpus, folder, run.header, begun)
        study.records = {r.implementation: r for r in run.records if r.timing.get("steps") == plan.steps}
        return study

    def run(self, say: Callable[[str], None] = print) -> dict[str, Record]:
        """Train the arms that have no record yet. Records are on disk as soon as an arm is finished."""
        plan, checkpoints = self.plan, self.folder / "checkpoints"
        torch.set_num_threads(plan.threads or torch.get_num_threads())
        data_N = self.corpus.train_N
        models = {arm: plan.training(arm, data_N) for arm in plan.arms if arm not in self.records}
        try:
            for arm in resume(models, checkpoints):
                say(f"{arm}: goes on from step {models[arm].done}")
        except ValueError as error:
            raise Refused(f"RESUME={self.folder}: {error}") from error
        windows_BT = windows(self.corpus.validation_N, plan.windows, plan.recipe.length)

        def noted(arm: str, training: Training) -> None:
            if training.done == plan.steps:
                self._record(arm, training)
                (checkpoints / f"{arm}{checkpoint.SUFFIX}").unlink()

        def reached(stop: int, left: float) -> bool:
            say(progress(models, stop, plan.steps or 0, left))
            pace = left / max(1, len([s for s in stops if s > stop]))
            return stop < stops[-1] and time.monotonic() - self.begun + pace > self.limit

        stops = points(plan.steps or 0, plan.stops)
        failed = fit(models, windows_BT, stops, checkpoints, noted, reached)
        for arm, reason in failed.items():
            self._record(arm, models[arm], reason)
        for arm in models:
            if arm not in self.records:
                self._record(arm, models[arm])
        return {arm: self.records[arm] for arm in plan.arms}

    def _record(self, arm: str, training: Training, failed: str | None = None) -> None:
        """Write an arm's record as it stands; one that has not reached the last step says so in `timing`."""
        plan = self.plan
        case = f"ffn.balance/{plan.model}/s{plan.steps}"
        parts = {"shape": plan.shape, "recipe": training.recipe, "balancing": training.balancing}
        self.records[arm] = record = Record(
            case,
            "ffn",
            "ffn.balance",
            plan.model,
            f"s{plan.steps}",
            {**{name: asdict(part) for name, part in parts.items()}, "corpus": described(self.corpus)},
            technique="moe",
            implementation=arm,
            kind="reference",
            status="error" if failed else "passed",
            reason=failed,
            figures={} if failed else self._figures(training),
            series={**training.curves, **final_loads(training)},
            timing={"clock": "wall", "steps": training.done, "pairing": "interleaved", "threads": plan.threads},
            doc=ARMS[arm][1],
        )
        self.writer.record(record, self.header.metrics)

    def _figures(self, training: Training) -> dict[str, Figure]:
        found = {name: Figure(value) for name, value in figures(training).items()}
        found["xz_bits"], found["steps"] = Figure(self.xz_bits), Figure(training.done)
        times = median_estimate(np.array(training.times, dtype=np.float64))
        known = np.isfinite([times.low, times.high]).all()
        found["step_time"] = Figure(times.value, times.low, times.high) if known else Figure(times.value)
        return found


def readied(plan: Plan) -> Corpus:
    """The corpus to train on. Raises Refused where it or the device is not there."""
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise Refused("DEVICE=cuda: PyTorch finds no GPU here")
    try:
        return read_corpus(plan.data)
    except (OSError, ValueError) as error:
        raise Refused(f"DATA={plan.data or ''}: {error}") from error


def described(corpus: Corpus) -> dict[str, Any]:
    """What goes with every result."""
    sizes = {"train_bytes": len(corpus.train), "validation_bytes": len(corpus.validation)}
    return {"label": corpus.label, "digest": corpus.digest, "files": corpus.files, **sizes}


def settle(plan: Plan, corpus: Corpus, begun: float, runs: Path) -> Plan:
    """The plan with threads and steps set, by timing models that are thrown away: each arm has its own costs."""
    if plan.threads and plan.steps:
        return plan
    windows_BT = windows(corpus.validation_N, plan.windows, plan.recipe.length)
    given = corpus.train_N, windows_BT, runs
    counts = (plan.threads,) if plan.threads else sorted({1, torch.get_num_threads()})
    first = {threads: _cost(plan, plan.arms[0], *given, threads) for threads in counts}
    threads = min(first, key=lambda count: first[count])
    if plan.steps is None:
        costs = [first[threads], *(_cost(plan, arm, *given, threads) for arm in plan.arms[1:])]
        step, validation, saving = (sum(parts) for parts in zip(*costs, strict=True))
        seconds = MARGIN * (plan.budget - (time.monotonic() - begun)) - 2 * saving  # the first and the last
        seconds *= 1 - SAVING_SHARE
        plan = replace(plan, steps=max(LEAST_STEPS, int((seconds - plan.stops * validation) / step)))
    return replace(plan, threads=threads)


def _cost(plan: Plan, arm: str, data_N: Tensor, windows_BT: Tensor, runs: Path, threads: int) -> tuple[float, ...]:
    """Seconds of an arm's step, of its validation, and of its checkpoint, with so many threads."""
    torch.set_num_threads(threads)
    training = plan.training(arm, data_N)
    for _ in range(1 + TIMED):
        training.advance()
    begun = time.monotonic()
    training.evaluate(windows_BT)
    validated = time.monotonic()
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, prefix=".timing-") as folder:
        checkpoint.save(Path(folder) / f"timed{checkpoint.SUFFIX}", training.state())
    return float(np.mean(training.times[1:])) * 1e-9, validated - begun, time.monotonic() - validated


def progress(models: Mapping[str, Training], stop: int, steps: int, left: float) -> str:
    """One line: bits a byte and MaxVio of each arm, and the time still needed."""
    words = [
        f"{arm} {t.curves['validation_bits'][-1]:.3f}/{t.curves['max_violation'][-1]:.2f}"
        for arm, t in models.items()
        if t.curves
    ]
    return f"[{stop:>4}/{steps}] bits/byte and MaxVio: {', '.join(words)} · {duration(left)} left"


def table(records: Iterable[Record]) -> list[str]:
    """The closing table."""
    rows = [("arm", "", "validation bits/byte", "MaxVio first", "last", "global", "devices", "step time")]
    lines = []
    for record in records:
        if record.status != "passed":
            lines.append(f"  {record.implementation}: {record.status.upper()}: {record.reason}")
            continue
        names = ("max_violation_first", "max_violation", "max_violation_global", "device_violation")
        bits = f"{record.figures['validation_bits'].value:.3f}"
        violations = (f"{record.figures[name].value:.2f}" for name in names)
        rows.append((record.implementation, "", bits, *violations, plain(show(record.value("step_time"), "ns"))))
    return [*aligned(rows), *lines]


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benches.balance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", help=f"some of {','.join(ARMS)}, with commas between")
    parser.add_argument("--steps", type=int, help="steps of each arm; default: what the budget allows")
    parser.add_argument("--budget", type=float, help=f"seconds in all; {BUDGET:g}, on a GPU {GPU_BUDGET:g}, by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    parser.add_argument("--data", help="a file or a folder to train on instead of Python's standard library")
    parser.add_argument("--resume", help="a run to finish: its folder or name")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 all arms trained; 1 an arm failed; 2 the request could not be met; 130 stopped."""
    asked = arguments(words)
    study = None
    try:
        study = opened(asked)
        steps, threads = study.plan.steps, study.plan.threads
        print(f"{study.corpus.label}: {len(study.corpus.train):,} bytes; {steps} steps an arm, {threads} threads")
        records = study.run(lambda line: print(line, flush=True))
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was written before is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        name = study.folder.name if study else None
        print(f"\nstopped{f'; continue with RESUME={name}' if name else ''}", file=sys.stderr)
        return 130
    print("\n".join(["", *table(records.values())]))
    print(f"  xz -9e on the whole validation part: {study.xz_bits:.3f} bits/byte")
    short = [arm for arm, record in records.items() if record.timing["steps"] < (study.plan.steps or 0)]
    if short:
        print(f"the time was up before the last step; finish with RESUME={study.folder.name}")
    print(f"{len(records)} records: {study.folder}")
    return 1 if any(record.status != "passed" for record in records.values()) else 0


def opened(asked: argparse.Namespace) -> Study:
    """The study that was asked for. Raises Refused where it cannot be."""
    if asked.resume is not None:
        return Study.again(Path(asked.resume) if Path(asked.resume).is_dir() else asked.runs / asked.resume)
    device = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    plan = PLANS["gpu" if device == "cuda" else "cpu"]()
    arms = tuple(asked.arms.split(",")) if asked.arms else plan.arms
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise Refused(f"ARMS has {', '.join(unknown)}, expected some of {', '.join(ARMS)}")
    if asked.steps is not None and asked.steps < 1:
        raise Refused(f"STEPS={asked.steps}: at least 1 is needed")
    budget = plan.budget if asked.budget is None else asked.budget
    return Study.begin(replace(plan, arms=arms, steps=asked.steps, budget=budget, data=asked.data), asked.runs)


if __name__ == "__main__":
    sys.exit(main())
