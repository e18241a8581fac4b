"""A policy that learns from verdicts, step by step: rollout, reward, update; and all that must be kept to go on later.

A step asks questions that follow from seed and step, samples a group of responses to each, judges them, and makes
several updates on them, so that the ratio leaves 1 and clipping acts. Policy and critic have one optimizer, as common
PPO trainers do; taking turns would save the gradients of one and a share of PPO's memory. The reference is frozen and,
on a GPU, in BF16, for nothing is added to it. Two ways to do the same, `FORMS`: `reference` processes each response's
prompt anew, runs the policy again over what it sampled, and computes all logits; `optimized` does none of that. A
response without a reward, and all to a prompt that the context has no room for, are left out and told of. Nanoseconds
of each part are kept apart; on a GPU the device is waited for at each boundary.
Shape suffixes: Q questions, B responses, N response symbols, P prompt symbols, T symbols of both.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..model.decoder import Decoder
from ..model.training import reproducible
from ..objective.weights import model_of
from . import memory
from .measures import Measured, accuracy, truncated
from .objective import ALONE, k3, without_signal
from .reference import sampled_anew
from .rollout import Questions, Responses, Sampling, counted, decoded, joined, questions_of
from .shape import StepShape
from .tasks import Problem, reward_by_rule
from .update import LOGS, Batch, Critic, known, losses, mask_of
from .verdicts import Judge

PARTS = ("rollout", "reward", "update")
DEAF = 5  # steps in a row without a single reward, after which learning stops


@dataclass(frozen=True)
class Form:
    """How the same step is computed: responses from one pass over each prompt, log-probabilities kept from sampling,
    and how those of an update come about, one of `LOGS`."""

    shared: bool
    kept: bool
    logs: str


FORMS = {"reference": Form(False, False, "whole"), "optimized": Form(True, True, "chunked")}


@dataclass(frozen=True)
class Step:
    """One step: mean reward, symbols a response, share without an end, mean KL to the start (k3), share of groups
    without signal, share of tokens that were clipped, responses without a reward, and nanoseconds of each part."""

    reward: float
    length: float
    truncated: float
    kl: float
    without_signal: float
    clipped: float
    faults: float
    nanoseconds: tuple[int, ...]


class Learner:
    """A policy at step `done`, as `model/loop.py` trains it; `curves` holds what was noted, by name.

    Raises ValueError for a group of one that GRPO is to compare; in `advance` for a loss that is not finite, and after
    `DEAF` steps without any reward.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        shape: StepShape,
        technique: str,
        form: str = "optimized",
        judge: Judge | None = None,
    ) -> None:
        if technique == "grpo" and shape.recipe.group < 2:
            raise ValueError(ALONE.format(shape.recipe.group))
        self.device = weights["head_VD"].device
        self.shape, self.technique, self.form = shape, technique, FORMS[form]
        self.policy = model_of(weights, shape.model)
        self.reference = frozen(self.policy) if shape.rule.beta else None
        self.critic = Critic(shape.model).to(self.device).begin_as(self.policy) if technique == "ppo" else None
        trained = [*self.policy.parameters(), *(self.critic.parameters() if self.critic else ())]
        fused = self.device.type == "cuda"  # without the copies that other ways make of all parameters
        self.optimizer = torch.optim.AdamW(
            trained, lr=shape.recipe.rate, betas=(0.9, 0.95), weight_decay=0.0, fused=fused
        )
        self.judge = judge or Judge(reward_by_rule)
        self.done, self.deaf = 0, 0
        self.curves: dict[str, list[float]] = {}
        self.stretch: list[Step] = []
        self.parts: list[tuple[int, ...]] = []
        self.clock: dict[str, int] = {}
        self.owned: memory.Owned = {}

    def advance(self) -> Step:
        """One step. The policy is as before where it raises."""
        self.clock = dict.fromkeys(PARTS, 0)
        recipe = self.shape.recipe
        with reproducible(self.device):
            with self._timed("rollout"):
                problems, questions = self._asked()
                responses = self._sampled(questions)
            with self._timed("reward"):
                rewards_B = self._judged(problems, responses)
            with self._timed("update"):
                batch = self._known(questions, responses, rewards_B)
                share = self._updated(batch)
        self.done += 1
        if self.reference is not None and recipe.renewed and self.done % recipe.renewed == 0:
            self.reference = frozen(self.policy)
        step = self._step(responses, rewards_B, batch, share)
        self.stretch.append(step)
        self.parts.append(step.nanoseconds)
        return step

    @property
    def times(self) -> list[int]:
        """Nanoseconds of each step."""
        return [sum(one) for one in self.parts]

    def _asked(self) -> tuple[list[Problem], Questions]:
        recipe, seed = self.shape.recipe, f"{self.shape.recipe.seed}:{self.done}"
        problems = self.shape.task.draw(recipe.questions, seed)
        room = self.shape.room
        shown = [replace(one, prompt=one.prompt[:room]) for one in problems]
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.done)
        wide = torch.promote_types(self.shape.model.attention.torch_dtype, torch.float32)
        sizes = recipe.count, recipe.questions * recipe.group
        uniforms_NB = torch.rand(sizes, generator=generator, dtype=torch.float64).to(self.device, wide)
        return problems, questions_of(shown, room, uniforms_NB)

    def _sampled(self, questions: Questions) -> Responses:
        recipe = self.shape.recipe
        if not self.form.shared:
            return sampled_anew(self.policy, questions, recipe.group, recipe.count)
        with torch.no_grad():
            sizes = recipe.questions, recipe.group, self.shape.room, recipe.count
            return Sampling(self.policy, *sizes).sample(questions)

    def _judged(self, problems: Sequence[Problem], responses: Responses) -> Tensor:
        asked = [one for one in problems for _ in range(self.shape.recipe.group)]
        found = self.judge.rewards(asked, decoded(responses.symbols_BN), self.shape.room)
        rewards_B = torch.tensor(found, device=self.device, dtype=responses.logs_BN.dtype)
        self.deaf = 0 if bool(rewards_B.isfinite().any()) else self.deaf + 1
        if self.deaf >= DEAF:
            raise ValueError(f"step {self.done}: {DEAF} steps without any reward; {self.judge.faults.first}")
        return rewards_B

    def _known(self, questions: Questions, responses: Responses, rewards_B: Tensor) -> Batch:
        whole_BT, lengths_B = joined(questions.symbols_QP, questions.lengths_Q, responses.symbols_BN)
        mask_BN = mask_of(responses.symbols_BN, responses.logs_BN)
        batch = Batch(whole_BT, lengths_B, responses.symbols_BN, mask_BN, responses.logs_BN, responses.logs_BN)
        if not self.form.kept:
            batch = replace(batch, old_BN=self._logs(self.policy, batch) * mask_BN)
        reference = self.reference
        ask = None if reference is None else lambda given: self._logs(reference, given) * given.mask_BN
        return known(self.technique, self.shape.rule, batch, rewards_B, self.shape.recipe.group, ask, self.critic)

    @torch.no_grad()
    def _logs(self, model: Decoder, batch: Batch) -> Tensor:
        parts = batch.at_BN.split(self.shape.recipe.micro or len(batch.at_BN))
        at, found = 0, []
        for at_BN in parts:
            rows = slice(at, at + len(at_BN))
            found.append(LOGS[self.form.logs](model, batch.whole_BT[rows], at_BN, batch.symbols_BN[rows]))
            at += len(at_BN)
        return torch.cat(found)

    def _updated(self, batch: Batch) -> float:
        """All updates of a step; the share of tokens whose ratio was beyond the clip in the last one."""
        recipe = self.shape.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(self.done)
        beyond = 0.0
        for _ in range(recipe.epochs):
            order_B = torch.randperm(len(batch.mask_BN), generator=generator).to(self.device)
            for at in order_B.chunk(recipe.minibatches):
                beyond = self._one_update(batch.rows(at))
        return beyond

    def _one_update(self, batch: Batch) -> float:
        """Gradients of a minibatch, `micro` responses at a time, and the optimizer's step; share beyond the clip."""
        recipe, count = self.shape.recipe, len(batch.mask_BN)
        self.optimizer.zero_grad(set_to_none=True)
        size, total, beyond = recipe.micro or count, 0.0, 0.0
        for at in range(0, count, size):
            part = batch.rows(slice(at, at + size))
            logs = LOGS[self.form.logs]
            found = losses(self.technique, self.shape.rule, logs, self.policy, self.critic, part)
            share = len(part.mask_BN) / count
            (found.whole * share).backward()
            total, beyond = total + found.whole.item() * share, beyond + found.beyond.item() * share
        if not math.isfinite(total):
            self.optimizer.zero_grad(set_to_none=True)
            raise ValueError(f"step {self.done}: the loss is {total}; a lower rate may help")
        for model in (self.policy, self.critic):
            if model is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        self.optimizer.step()
        self.owned = memory.owned(self.policy, self.critic, self.reference, self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return beyond

    def _step(self, responses: Responses, rewards_B: Tensor, batch: Batch, share: float) -> Step:
        known_B = rewards_B.isfinite()
        kl = 0.0
        if batch.reference_BN is not None:
            each_BN = k3(batch.old_BN, batch.reference_BN) * batch.mask_BN
            kl = float(each_BN.sum() / batch.mask_BN.sum().clamp_min(1))
        return Step(
            float(rewards_B.nan_to_num(0.0).sum() / known_B.sum().clamp_min(1)),
            float(counted(responses.symbols_BN).sum(1).double().mean()),
            truncated(responses.symbols_BN),
            kl,
            without_signal(rewards_B.view(-1, self.shape.recipe.group)),
            share,
            float((~known_B).sum()),
            tuple(self.clock[part] for part in PARTS),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.perf_counter_ns()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.clock[part] += time.perf_counter_ns() - begun

    def evaluate(self, problems: Sequence[Problem]) -> Measured:
        """Greedy responses to held-out problems."""
        return accuracy(self.policy, self.shape.task, problems, self.shape.recipe.count)

    def note(self, measured: Measured) -> None:
        """Put an evaluation on the curves, with the means of the steps since the last one."""
        steps = self.stretch
        found = {"step": float(self.done), "seconds": sum(self.times) * 1e-9, "accuracy": measured.correct}
        found |= {"format": measured.formatted, "validation_length": measured.length}
        for name in ("reward", "length", "truncated", "kl", "without_signal", "clipped", "faults"):
            found[name] = sum(getattr(step, name) for step in steps) / max(1, len(steps))
        for place, part in enumerate(PARTS):
            found[f"{part}_seconds"] = sum(step.nanoseconds[place] for step in steps) * 1e-9 / max(1, len(steps))
        for name, value in found.items():
            self.curves.setdefault(name, []).append(value)
        self.stretch = []

    def state(self) -> dict[str, Any]:
        """All that a later `restore` needs, of tensors and plain values only."""
        models = {"policy": self.policy, "critic": self.critic, "reference": self.reference}
        return {
            "models": {name: model.state_dict() for name, model in models.items() if model is not None},
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "deaf": self.deaf,
            "curves": {name: list(values) for name, values in self.curves.items()},
            "stretch": [[*list(asdict(step).values())[:-1], list(step.nanoseconds)] for step in self.stretch],
            "parts": [list(one) for one in self.parts],
            "faults": [self.judge.faults.count, self.judge.faults.first],
            "made_of": self._made_of(),
        }

    def _made_of(self) -> dict[str, Any]:
        return {"technique": self.technique, "form": asdict(self.form), "shape": asdict(self.shape)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises ValueError where it is of something else."""
        if missing := sorted({*self.state()} - {*state}):
            raise ValueError(f"the checkpoint is of something else: it has no {', '.join(missing)}")
        for part, mine in self._made_of().items():
            if (its := state["made_of"].get(part)) != mine:
                raise ValueError(f"the checkpoint was made with another {part}: {its}, here it is {mine}")
        models = {"policy": self.policy, "critic": self.critic, "reference": self.reference}
        for name, model in models.items():
            if model is not None:
                model.load_state_dict(state["models"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.deaf, self.parts = state["done"], state["deaf"], [tuple(one) for one in state["parts"]]
        self.curves = {name: list(values) for name, values in state["curves"].items()}
        self.stretch = [Step(*values[:-1], tuple(values[-1])) for values in state["stretch"]]
        self.judge.faults.count, self.judge.faults.first = state["faults"]


def frozen(policy: Decoder) -> Decoder:
    """A copy that is not trained; on a GPU in the dtype computed in."""
    held = copy.deepcopy(policy).requires_grad_(False)
    dtype = policy.shape.attention.torch_dtype
    return held.to(dtype) if policy.head_VD.device.type == "cuda" and dtype.itemsize < 4 else held
