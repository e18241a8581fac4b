"""PPO and GRPO over a course of steps: what a step costs, who holds the memory, and where the policy ends.

A case is one seed: all begin with the same policy, are asked the same questions in the same order, and return the mean
reward of a step, which must rise. So the first step's reward is one, up to symbols that rounding turns. `ARMS` are the
settings that `make learn` compares; in a contest each technique runs the rule of the case, by definition and optimized.
DeepSeek-R1 (arXiv 2501.12948 v2, A.3) finds PPO with lambda 0.95 considerably worse than GRPO and with 1.0 near it, on
one task and a model of 16 billion parameters. Wins: the direction, and memory that is read off the tensors. Loses:
small models and sums say nothing of how a frontier model comes to reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from harness import Course, Metric, Operation, Trial, implementation, operation

from ..model.loop import points
from ..model.shape import parameters
from . import memory
from .learner import FORMS, PARTS, Learner
from .shape import TECHNIQUES, StepShape
from .start import Start, draw_start

NAME = "learning.step"
METRICS = (
    Metric("accuracy", "share", "higher", "Held-out problems answered right, greedily, at the end."),
    Metric("start_accuracy", "share", "neither", "The same before the first step."),
    Metric("reward", "share", "higher", "Mean reward of sampled responses since the validation before the last."),
    Metric("length", "tokens", "neither", "Mean symbols of a sampled response, over the same steps."),
    Metric("truncated", "share", "lower", "Sampled responses that had no end."),
    Metric("kl", "count", "neither", "Mean over sampled symbols of the k3 estimate of the KL to the reference, nats."),
    Metric("without_signal", "share", "lower", "Groups whose rewards were all equal."),
    Metric("clipped", "share", "neither", "Symbols whose ratio was beyond the clip, in the last update of a step."),
    Metric("faults", "count", "lower", "Responses that got no reward, a step."),
    *(Metric(f"{part}_time", "ns", "lower", f"Median time of a step's {part}.") for part in PARTS),
    *(
        Metric(f"{owner}_bytes", "bytes", "lower", f"Parameters, gradients and optimizer states of the {owner}.")
        for owner in memory.OWNERS
    ),
    Metric("owned_bytes", "bytes", "lower", "The same of all, as they stand in an update."),
    Metric("arithmetic_bytes", "bytes", "neither", "16 bytes a trained parameter, and the frozen reference's."),
    Metric("model_parameters", "count", "neither", "Entries of the policy's matrices."),
)


@dataclass(frozen=True)
class Arm:
    """A technique with settings of its own, and what they are in words."""

    technique: str
    changes: Mapping[str, object]
    told: str

    def of(self, shape: StepShape) -> StepShape:
        """The course with these settings."""
        return replace(shape, rule=replace(shape.rule, **self.changes))


NORMALISED = {"by_length": True, "by_deviation": True}
ARMS = {
    "normalised": Arm("grpo", NORMALISED, "GRPO as DeepSeekMath prints it: by length and by deviation."),
    "plain": Arm("grpo", {"by_length": False, "by_deviation": False}, "GRPO without both normalisations."),
    "sequence": Arm("grpo", {**NORMALISED, "form": "sequence"}, "GRPO as V3 and R1 print it: one ratio a response."),
    "lambda-1": Arm("ppo", {"by_length": True, "trace": 1.0}, "PPO with lambda 1: the advantage is return less value."),
    "lambda-0.95": Arm("ppo", {"by_length": True, "trace": 0.95}, "PPO with the common lambda of 0.95."),
}


class StepCourse(Course):
    """A learner as a trial's course; held-out problems are asked at stops; `start` is what was right before."""

    def __init__(self, learner: Learner, start: float) -> None:
        self.learner, shape = learner, learner.shape
        self._problems = shape.task.validation(shape.validation)
        self._stops = set(points(shape.recipe.steps, shape.stops))
        self._start = start

    def advance(self) -> float:
        """One step; its mean reward. Raises ValueError for a loss that is not finite."""
        return self.learner.advance().reward

    def note(self) -> None:
        """Ask at a stop."""
        if self.learner.done in self._stops:
            self.learner.note(self.learner.evaluate(self._problems))

    def figures(self) -> Mapping[str, float]:
        """Where it ended."""
        if self.learner.stretch:
            self.learner.note(self.learner.evaluate(self._problems))
        return {**figures(self.learner), "start_accuracy": self._start}

    def series(self) -> Mapping[str, Sequence[float]]:
        """Curves over the stops, and bytes of each owner by kind."""
        return series(self.learner)


def figures(learner: Learner) -> dict[str, float]:
    """The ends of the curves, times of a step's parts, and bytes by owner; metrics of `METRICS` but for the start's."""
    names = {metric.name for metric in METRICS}
    found = {name: values[-1] for name, values in learner.curves.items() if name in names}
    parts = np.array(learner.parts, dtype=np.float64)
    found |= {f"{part}_time": float(np.median(parts[:, place])) for place, part in enumerate(PARTS)}
    found |= {f"{owner}_bytes": float(sum(kinds)) for owner, kinds in learner.owned.items()}
    trained, frozen = count(learner.policy) + count(learner.critic), count(learner.reference)
    size = 0 if learner.reference is None else learner.reference.head_VD.element_size()
    found["owned_bytes"] = float(sum(sum(kinds) for kinds in learner.owned.values()))
    found["arithmetic_bytes"] = float(memory.by_arithmetic(trained, frozen, size))
    return {**found, "model_parameters": float(parameters(learner.policy.shape))}


def count(model: nn.Module | None) -> int:
    """Entries of all parameters."""
    return 0 if model is None else sum(one.numel() for one in model.parameters())


def series(learner: Learner) -> dict[str, list[float]]:
    """Curves over the stops; `owned_<owner>` holds bytes of parameters, gradients and optimizer states."""
    owned = {f"owned_{owner}": [float(one) for one in kinds] for owner, kinds in learner.owned.items()}
    return {**{name: list(values) for name, values in learner.curves.items()}, **owned}


def learning(technique: str, form: str) -> Callable[[Start, StepShape], StepCourse]:
    """learning.step of a technique."""

    def setup(start: Start, shape: StepShape) -> StepCourse:
        return StepCourse(Learner(start.weights, shape, technique, form), start.accuracy)

    setup.__doc__ = f"{technique.upper()}, a step computed in the {form} way; see `learner.FORMS`."
    return setup


operation(
    Operation(
        NAME,
        weights=draw_start,
        tokens=lambda shape: shape.recipe.questions * shape.recipe.group * shape.recipe.count,
        baseline=("ppo/optimized", "ppo/reference"),
        metrics=METRICS,
        trial=Trial(
            steps=lambda shape: shape.recipe.steps,
            better="higher",
            alike=0.1,  # a rounding may turn a symbol, and with it a response
            data=lambda start: start.told,
        ),
    )
)
for _technique in TECHNIQUES:
    for _form in FORMS:
        implementation(NAME, technique=_technique, kind=_form, name=_form)(learning(_technique, _form))
