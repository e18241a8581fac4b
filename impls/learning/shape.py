"""Sizes of the learning operations: the model, the task, questions and responses, and what an update is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..model.shape import ModelShape
from .objective import Rule
from .tasks import Task

TECHNIQUES = ("ppo", "grpo")


@dataclass(frozen=True)
class RolloutShape:
    """`group` responses of up to `count` symbols to each of `questions` prompts of `task`."""

    model: ModelShape
    task: Task
    questions: int
    group: int
    count: int

    @property
    def responses(self) -> int:
        """Of all questions together."""
        return self.questions * self.group

    @property
    def length(self) -> int:
        """Symbols of a prompt and a response that are as long as they may be."""
        return self.task.prompt + self.count


@dataclass(frozen=True)
class UpdateShape(RolloutShape):
    """One update on so many responses by a rule."""

    rule: Rule = field(default_factory=Rule)


@dataclass(frozen=True)
class LogShape:
    """Log-probabilities of `rows` symbols out of `symbols`, by a head of `hidden`, computed in `dtype`."""

    rows: int
    hidden: int
    symbols: int
    dtype: str = "float32"


@dataclass(frozen=True)
class Recipe:
    """How a policy learns: `steps` times a rollout, then `epochs` passes over it in `minibatches` updates each.

    questions, group, count  as in `RolloutShape`
    rate      AdamW's, after `warm_up` steps; it falls evenly to `last` of it at the end
    clip      largest norm of all gradients together
    micro     responses whose gradients are computed at once; 0: those of a minibatch. Bounds activations
    context   the most symbols of a prompt and a response; 0: as many as there may be. A longer prompt is not asked
    renewed   the reference is replaced by the policy after so many steps (R1-Zero: 400); 0: never
    Raises ValueError for sizes that do not fit together.
    """

    steps: int
    questions: int = 32
    group: int = 16
    count: int = 5
    rate: float = 1e-3
    warm_up: int = 20
    last: float = 1.0
    clip: float = 1.0
    epochs: int = 1
    minibatches: int = 2
    micro: int = 0
    context: int = 0
    renewed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "questions", "group", "count", "epochs", "minibatches"), 1)
        for name, bound in {**least, "micro": 0, "renewed": 0, "warm_up": 0, "context": 0}.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {bound}")
        if 0 < self.context <= self.count:
            raise ValueError(f"context is {self.context}: it has no room for a prompt before {self.count} symbols")
        if self.minibatches > self.questions * self.group:
            raise ValueError(f"{self.minibatches} minibatches of {self.questions * self.group} responses: too many")

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        fallen = 1 - (1 - self.last) * step / self.steps
        return self.rate * fallen * min(1.0, (step + 1) / max(1, self.warm_up))


@dataclass(frozen=True)
class StepShape:
    """A course of learning: which model, on what, by which rule and recipe, and what it begins with.

    start       one of `start.STARTS`: "zero" or "cold-start"
    enough      share of held-out problems right at which the supervised training before it ends
    stops       how often held-out problems are asked, at most, and how many: `validation`
    """

    model: ModelShape
    task: Task
    rule: Rule
    recipe: Recipe
    start: str = "zero"
    enough: float = 0.2
    stops: int = 5
    validation: int = 200

    @property
    def room(self) -> int:
        """The most symbols of a prompt."""
        most = self.task.prompt
        return min(most, self.recipe.context - self.recipe.count) if self.recipe.context else most
