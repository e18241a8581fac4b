"""What a policy begins reinforcement learning with: a format, and hardly a skill.

A policy of random weights never hits the format, so all groups are without signal. `zero` is trained on solutions until
it answers some held-out problems right, and no more than `MOST`: R1-Zero's start in miniature, a base model that can
follow a template. `cold-start` is trained on worked solutions, as R1 is on examples of reasoning, until the same. Both
see only problems that are not held out. Wins: every group has a chance of signal. Loses: unlike a base model's, the
little skill comes from the very task, so this says nothing of what a frontier model's pre-training brings.
Shape suffixes: B responses, T symbols, N response symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..model.decoder import Decoder
from ..model.training import reproducible
from .measures import accuracy
from .objective import Rule
from .rollout import encoded, joined
from .shape import StepShape
from .tasks import Problem, Task
from .update import chunked, mask_of

STARTS = ("zero", "cold-start")
MOST = 0.30  # of held-out problems right at the end
STEPS, EVERY, BATCH, PROBLEMS = 2000, 10, 64, 400


@dataclass(frozen=True)
class Start:
    """Weights by name, the steps of supervised training they took, and the share of held-out problems then right."""

    weights: dict[str, Tensor]
    steps: int
    accuracy: float

    @property
    def told(self) -> str:
        """For the record."""
        return f"{self.steps} steps of supervised training, {self.accuracy:.1%} of held-out problems right"


def solutions(problems: list[Problem], task: Task, count: int, worked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Right responses behind their prompts: whole int64 [B, P + N], lengths int64 [B], symbols int64 [B, N].

    Raises ValueError where a solution is longer than `count`.
    """
    symbols_BP, lengths_B = encoded([one.prompt for one in problems], task.prompt)
    symbols_BN, _ = encoded([one.solution(worked) for one in problems], count)
    whole_BT, lengths_B = joined(symbols_BP, lengths_B, symbols_BN)
    return whole_BT, lengths_B, symbols_BN


def supervised(model: Decoder, shape: StepShape, device: str) -> Start:
    """Train on solutions until enough held-out problems are right, at most `STEPS` steps, checking now and then.

    Where a check finds more than `MOST` right, the weights are those of the check before. Raises ValueError for an
    unknown start.
    """
    start, task, count = shape.start, shape.task, shape.recipe.count
    if start not in STARTS:
        raise ValueError(f"start is {start!r}, expected one of {', '.join(STARTS)}")
    model, worked = model.to(device), start == "cold-start"
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
    held_out, right = task.validation(PROBLEMS), 0.0
    kept = Start(_copied(model), 0, 0.0)
    for step in range(1, STEPS + 1):
        problems = task.draw(BATCH, f"{shape.recipe.seed}:{start}:{step}")
        whole_BT, lengths_B, symbols_BN = (one.to(device) for one in solutions(problems, task, count, worked))
        at_BN = lengths_B[:, None] - 1 + torch.arange(count, device=device)
        with reproducible(torch.device(device)):
            logs_BN = chunked(model, whole_BT, at_BN, symbols_BN)
            mask_BN = mask_of(symbols_BN, logs_BN)
            loss = -(logs_BN * mask_BN).sum() / mask_BN.sum()
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step < EVERY or step % EVERY == 0:  # large policies learn short words in a few steps
            right = accuracy(model, task, held_out, count).correct
            if right > MOST:
                return kept
            kept = Start(_copied(model), step, right)
            if right >= shape.enough:
                break
    return kept


def _copied(model: Decoder) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@lru_cache(maxsize=8)
def begun(shape: StepShape, device: str) -> Start:
    """What a course begins with, whatever it does then; trained once a process."""
    return supervised(Decoder(shape.model, shape.recipe.seed), shape, device)


def start_of(shape: StepShape, device: str) -> Start:
    """The same, for courses that differ in nothing that this depends on."""
    kept = replace(
        shape.recipe, steps=1, questions=1, group=1, epochs=1, minibatches=1, micro=0, renewed=0, warm_up=0, last=1.0
    )
    return begun(replace(shape, rule=Rule(), recipe=kept, stops=1, validation=1), device)


def draw_start(shape: StepShape, technique: str, generator: torch.Generator) -> Start:
    """The trial's weights; a copy, for they are trained."""
    found = start_of(shape, str(generator.device))
    return replace(found, weights={name: tensor.clone() for name, tensor in found.weights.items()})
