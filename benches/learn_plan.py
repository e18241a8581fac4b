"""What `make learn` trains: a policy, a task, a rule, the arms of the comparison, and how long.

The arms themselves and what they report: `impls/learning/trial.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benches.bench_learning import ascii_model
from harness import Metric
from impls.learning import trial
from impls.learning.learner import Learner
from impls.learning.objective import Rule
from impls.learning.shape import Recipe, StepShape
from impls.learning.start import Start, draw_start, start_of
from impls.learning.tasks import Task
from impls.learning.trial import ARMS
from impls.learning.verdicts import Judge

BUDGET = 640.0
METRICS = {
    metric.name: metric
    for metric in (
        *trial.METRICS,
        Metric("step_time", "ns", "lower", "Median wall time of a whole step."),
        Metric("best_accuracy", "share", "higher", "The highest point of the accuracy's curve."),
    )
}


@dataclass(frozen=True)
class Plan:
    """A course, which arms take it from which seeds, on what device, and for how many seconds at most.

    preset  the function of `PLANS` it began as, by which a resumed run finds its sizes again
    reward  a file with a `reward(problem, response)` of one's own; None: the task's rule
    """

    preset: str
    shape: StepShape
    arms: tuple[str, ...] = ("normalised",)
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"
    budget: float = BUDGET
    threads: int | None = 1
    reward: str | None = None

    @property
    def model(self) -> str:
        """The model's word in case ids."""
        return f"ascii-{self.shape.model.feed}-{self.shape.model.technique}-d{self.shape.model.hidden}"

    @property
    def command(self) -> str:
        """What repeats the run."""
        task, arms, seeds = self.shape.task, ",".join(self.arms), ",".join(map(str, self.seeds))
        words = {"ARMS": arms, "SEEDS": seeds, "STEPS": self.shape.recipe.steps, "START": self.shape.start}
        words |= {"TASK": task.kind, "DIFFICULTY": task.difficulty, "DEVICE": self.device, "BUDGET": f"{self.budget:g}"}
        words |= {"REWARD": f"'{self.reward}'"} if self.reward else {}
        return " ".join(["make learn", *(f"{name}={value}" for name, value in words.items())])

    def sizes(self, seed: int) -> str:
        """What is said after it."""
        return f"{self.shape.task.label}-{self.shape.start}-s{self.shape.recipe.steps}-seed{seed}"

    @property
    def learners(self) -> list[tuple[str, int]]:
        """Arm and seed of each."""
        return [(arm, seed) for seed in self.seeds for arm in self.arms]

    def of(self, arm: str, seed: int) -> StepShape:
        """The course of an arm from a seed."""
        shape = replace(self.shape, recipe=replace(self.shape.recipe, seed=seed))
        return ARMS[arm].of(shape)

    def learner(self, arm: str, seed: int, judge: Judge) -> Learner:
        """An arm at its first step; all of one seed begin with the same policy."""
        shape, technique = self.of(arm, seed), ARMS[arm].technique
        start = draw_start(shape, technique, torch.Generator(device=self.device))
        return Learner(start.weights, shape, technique, judge=judge)

    def begun(self, seed: int) -> Start:
        """What the arms of a seed begin with."""
        return start_of(self.of(self.arms[0], seed), self.device)


def cpu_plan() -> Plan:
    """A hundred thousand parameters, sums of numbers of one or two digits, 512 responses a step.

    The weight of the KL is DeepSeekMath's: without one, and at R1's 0.001, the policy is soon of one mind on what it
    gets wrong, and groups without signal reach nine in ten at 80 to 88 % right.
    """
    recipe = Recipe(1500, questions=64, group=8, count=5, rate=1e-3, warm_up=20, last=0.1, minibatches=2)
    shape = StepShape(
        ascii_model(64, 2, 16, 32), Task("addition", 2), Rule(beta=0.04), recipe, stops=25, validation=500
    )
    return Plan("cpu", shape)


PLANS = {"cpu": cpu_plan}
