"""Can a policy learn sums from verdicts alone, and what does a critic add? PPO and GRPO side by side.

`python -m benches.learn` (`make learn`) trains a small policy until it answers some held-out problems right, then lets
each arm go on from there by reinforcement learning, one step each in turn, and writes a run: one record an arm and
seed, its curves as series. By default GRPO alone, from one seed; ARMS= and SEEDS= take more, START=cold-start begins
with worked solutions, TASK= and DIFFICULTY= ask something else, REWARD= is a file with a `reward(problem, response)` of
your own. What was stopped goes on with RESUME=, to the same curves. A small policy that learns sums says nothing of how
a frontier model comes to reason.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benches.balance import Refused
from benches.learn_plan import BUDGET, METRICS, PLANS, Plan
from harness.folder import new_folder
from harness.machine import fingerprint
from harness.metrics import COMMON
from harness.record import Figure, Header, Record, RunWriter, read_run
from harness.statistics import median_estimate
from harness.terminal import aligned
from harness.units import duration, plain, show
from impls.learning.learner import Learner
from impls.learning.start import STARTS
from impls.learning.tasks import KINDS, Task, reward_by_rule
from impls.learning.trial import ARMS, NAME, figures, series
from impls.learning.verdicts import Judge, RewardFunction
from impls.model import checkpoint
from impls.model.loop import fit, points, resume

ROOT = Path(__file__).parents[1]
KEPT = ("preset", "arms", "seeds", "device", "budget", "threads", "reward")
TOLD = (
    "start_accuracy",
    "accuracy",
    "reward",
    "length",
    "truncated",
    "kl",
    "without_signal",
    "owned_bytes",
    "step_time",
)


class Study:
    """A run of a plan. `begin` starts one and `again` opens one to finish it; both raise Refused for a request that
    cannot be met."""

    def __init__(self, plan: Plan, folder: Path, header: Header) -> None:
        self.plan, self.folder, self.header = plan, folder, header
        self.writer, self.judges, self.short = RunWriter(folder), {}, False
        self.reward = loaded(plan.reward)
        self.until = time.monotonic() + plan.budget

    @classmethod
    def begin(cls, plan: Plan, runs: Path) -> Study:
        """A new run."""
        if plan.device == "cuda" and not torch.cuda.is_available():
            raise Refused("DEVICE=cuda: PyTorch finds no GPU here")
        loaded(plan.reward)
        folder = new_folder(runs, "learning-learn", ROOT)
        kept = {name: getattr(plan, name) for name in KEPT} | {"steps": plan.shape.recipe.steps}
        kept |= {"start": plan.shape.start, "task": asdict(plan.shape.task)}
        tier = "gpu" if plan.device == "cuda" else "cpu"
        options = {"study": "learning", "device": plan.device, "tier": tier, "model": plan.model}
        options |= {"budget": plan.budget, "command": plan.command, "learn": kept}
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        header = Header(folder.name, started, fingerprint(ROOT), {}, options, {**COMMON, **METRICS})
        study = cls(plan, folder, header)
        study.writer.header(header)
        return study

    @classmethod
    def again(cls, folder: Path) -> Study:
        """A run to finish: what reached the last step is kept, others go on from their checkpoints."""
        try:
            run = read_run(folder)
            kept = dict(run.header.options["learn"])
            plan = PLANS[kept["preset"]]()
            shape = replace(plan.shape, start=kept["start"], task=Task(**kept["task"]))
            shape = replace(shape, recipe=replace(shape.recipe, steps=kept["steps"]))
            found = {name: tuple(kept[name]) if name in ("arms", "seeds") else kept[name] for name in KEPT}
            plan = replace(plan, shape=shape, **found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"RESUME={folder}: this is no run of make learn that can be finished: {error}") from error
        return cls(plan, folder, run.header)

    def run(self, say: Callable[[str], None] = print) -> list[Record]:
        """Train what has not reached its last step, and record each as it stands; those that have are in the run."""
        plan, checkpoints = self.plan, self.folder / "checkpoints"
        torch.set_num_threads(plan.threads or torch.get_num_threads())
        learners = self.begun(checkpoints, say)
        problems = plan.shape.task.validation(plan.shape.validation)
        for learner in learners.values():
            if not learner.curves:
                learner.note(learner.evaluate(problems))
        stops = points(plan.shape.recipe.steps, plan.shape.stops)

        def reached(stop: int, left: float) -> bool:
            right = [f"{100 * one.curves['accuracy'][-1]:.1f}" for one in learners.values()]
            say(f"[{stop:>4}/{stops[-1]}] held-out problems right: {', '.join(right)} % · {duration(left)} left")
            stretch = left / max(1, sum(later > stop for later in stops))
            self.short = stop < stops[-1] and time.monotonic() + stretch > self.until
            return self.short

        failed = fit(learners, problems, stops, checkpoints, reached=reached)
        for arm, seed in plan.learners:
            name = f"{arm}-seed{seed}"
            if name in learners:
                self.record(arm, seed, learners[name], failed.get(name))
                if learners[name].done == plan.shape.recipe.steps:
                    (checkpoints / f"{name}{checkpoint.SUFFIX}").unlink(missing_ok=True)
        return [r for r in read_run(self.folder).records if r.operation == NAME]

    def begun(self, checkpoints: Path, say: Callable[[str], None]) -> dict[str, Learner]:
        """Those that have not reached the last step, where they were left. Raises Refused for a wrong checkpoint."""
        done = {(r.implementation, r.shape["recipe"]["seed"]) for r in read_run(self.folder).records if self.whole(r)}
        learners: dict[str, Learner] = {}
        for arm, seed in self.plan.learners:
            if (arm, seed) not in done:
                name = f"{arm}-seed{seed}"
                self.judges[name] = Judge(self.reward)
                try:
                    learners[name] = self.plan.learner(arm, seed, self.judges[name])
                except ValueError as error:
                    raise Refused(str(error)) from error
                say(f"{name}: begins with {self.plan.begun(seed).told}")
        try:
            for name in resume(learners, checkpoints):
                say(f"{name}: goes on from step {learners[name].done}")
        except ValueError as error:
            raise Refused(f"RESUME={self.folder}: {error}") from error
        return learners

    def whole(self, record: Record) -> bool:
        """Whether a record is of a course that reached its last step."""
        return record.timing.get("steps") == self.plan.shape.recipe.steps

    def record(self, arm: str, seed: int, learner: Learner, why: str | None) -> None:
        """Write one as it stands; `why` it was given up, with what it had reached."""
        plan, sizes = self.plan, self.plan.sizes(seed)
        faults, stretch = learner.judge.faults, {"steps": learner.done, "planned": plan.shape.recipe.steps}
        told = f" {faults.count} responses got no reward; the first: {faults.first}" if faults.count else ""
        record = Record(
            f"{NAME}/{plan.model}/{sizes}",
            "learning",
            NAME,
            plan.model,
            sizes,
            asdict(plan.of(arm, seed)),
            technique=ARMS[arm].technique,
            implementation=arm,
            kind="optimized",
            status="error" if why else "passed",
            reason=why,
            figures={} if why or not learner.done else self.figures(learner, seed),
            series=series(learner),
            timing={**stretch, "clock": "wall", "pairing": "interleaved", "threads": plan.threads},
            verification={"data": plan.begun(seed).told},
            doc=f"{ARMS[arm].told}{told}",
        )
        self.writer.record(record, self.header.metrics)

    def figures(self, learner: Learner, seed: int) -> dict[str, Figure]:
        """What a learner came to."""
        found = figures(learner) | {"start_accuracy": self.plan.begun(seed).accuracy, "steps": learner.done}
        found["best_accuracy"] = max(learner.curves["accuracy"])
        times = median_estimate(np.array(learner.times, dtype=np.float64))
        known = math.isfinite(times.low) and math.isfinite(times.high)
        told = Figure(times.value, times.low, times.high) if known else Figure(times.value)
        return {**{name: Figure(float(value)) for name, value in found.items()}, "step_time": told}


def loaded(file: str | None) -> RewardFunction:
    """The function `reward` of a file, or the rule. Raises Refused where there is none."""
    if file is None:
        return reward_by_rule
    spec = importlib.util.spec_from_file_location("whalebench_reward", file)
    try:
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found: Any = module.reward
    except Exception as error:
        raise Refused(f"REWARD={file}: it gives no function `reward(problem, response)`: {error!r}") from error
    if not callable(found):
        raise Refused(f"REWARD={file}: its `reward` is no function")
    reward: RewardFunction = found
    return reward


def table(records: Iterable[Record]) -> list[str]:
    """The closing table."""
    rows, lines = [("arm", "", *TOLD)], []
    for record in records:
        name = f"{record.contender}, seed {record.shape['recipe']['seed']}"
        if record.status != "passed":
            lines.append(f"  {name}: {record.status.upper()}: {record.reason}")
            continue
        rows.append((name, "", *(plain(show(record.value(one), METRICS[one].unit)) for one in TOLD)))
    return [*aligned(rows), *lines]


def parsed(words: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benches.learn", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arms", help=f"some of {','.join(ARMS)}, with commas between")
    parser.add_argument("--seeds", help="whole numbers with commas between; default: 0")
    parser.add_argument("--steps", type=int, help="steps of each")
    parser.add_argument("--budget", type=float, help=f"seconds in all; {BUDGET:g} by default")
    parser.add_argument("--start", choices=STARTS, help="what the policy is trained on before; default: zero")
    parser.add_argument("--task", choices=tuple(KINDS), help="default: addition")
    parser.add_argument("--difficulty", type=int, help="digits of an operand, letters of a word, numbers of Countdown")
    parser.add_argument("--reward", help="a file with a function reward(problem, response)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cpu, which small policies do not leave idle"
    )
    parser.add_argument("--resume", help="a run to finish: its folder or name")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    parser.add_argument("--preset", choices=tuple(PLANS), default="cpu", help="sizes")
    return parser.parse_args(words)


def opened(asked: argparse.Namespace) -> Study:
    """The study that was asked for. Raises Refused where it cannot be."""
    if asked.resume is not None:
        return Study.again(Path(asked.resume) if Path(asked.resume).is_dir() else asked.runs / asked.resume)
    plan = PLANS[asked.preset]()
    arms = tuple(asked.arms.split(",")) if asked.arms else plan.arms
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise Refused(f"ARMS has {', '.join(unknown)}, expected some of {', '.join(ARMS)}")
    try:
        seeds = tuple(int(seed) for seed in asked.seeds.split(",")) if asked.seeds else plan.seeds
    except ValueError:
        raise Refused(f"SEEDS={asked.seeds}: expected whole numbers with commas between") from None
    try:
        task = plan.shape.task
        if asked.task or asked.difficulty is not None:
            task = Task(asked.task or task.kind, task.difficulty if asked.difficulty is None else asked.difficulty)
        start = asked.start or plan.shape.start
        room = task.answer + (task.work if start == "cold-start" else 0)
        recipe = replace(plan.shape.recipe, count=room, steps=asked.steps or plan.shape.recipe.steps)
        shape = replace(plan.shape, task=task, start=start, recipe=recipe)
    except ValueError as error:
        raise Refused(str(error)) from error
    if asked.steps is not None and asked.steps < 1:
        raise Refused(f"STEPS={asked.steps}: at least 1 is needed")
    budget = plan.budget if asked.budget is None else asked.budget
    device = asked.device or plan.device
    plan = replace(plan, shape=shape, arms=arms, seeds=seeds, budget=budget, device=device, reward=asked.reward)
    return Study.begin(plan, asked.runs)


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 all went on to the end or the budget's; 1 one was given up; 2 the request could not be met; 130
    stopped."""
    asked = parsed(words)
    study = None
    try:
        study = opened(asked)
        recipe = study.plan.shape.recipe
        print(f"{study.plan.shape.task.label}: {recipe.steps} steps of {recipe.questions} x {recipe.group} responses")
        records = study.run(lambda line: print(line, flush=True))
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was written before is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f"; continue with RESUME={study.folder.name}" if study else ""
        print(f"\nstopped{hint}", file=sys.stderr)
        return 130
    print("\n".join(["", *table(records)]))
    for name, judge in study.judges.items():
        if judge.faults.count:
            print(f"  {name}: {judge.faults.count} responses got no reward; the first: {judge.faults.first}")
    if study.short:
        print(f"  the time was up before the last step; finish with RESUME={study.folder.name}")
    print(f"{len(records)} records: {study.folder}")
    return 1 if any(record.status != "passed" for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
