"""Training of one model: a step, a validation, and everything that must be kept to go on later as if nothing happened.

AdamW (0.9, 0.95; no decay of norms), linear warm-up and a cosine to a tenth, gradients clipped by their norm. The batch
of a step follows from seed and step, so a step needs no position in the data but its own number. On a CPU PyTorch's
deterministic algorithms are on during a step: without them several threads add up the gradients of gathered rows in any
order (18 of 30 backward passes of one gather differed from the first). Bits are equal between runs with the same number
of threads.
Shape suffixes: B sequences, T tokens, L mixtures, E experts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ffn.balance import coefficient_of_variation, max_violation
from .balancing import Balancing, dropped, loads, violation
from .corpus import batch
from .decoder import Decoder, Output

NATS = math.log(2)


@dataclass(frozen=True)
class Recipe:
    """How to train: `steps` of `batch` sequences of `length` tokens.

    rate      highest learning rate, after `warm_up` steps; at the end `last` of it
    decay     AdamW's weight decay, of matrices only
    clip      largest norm of all gradients together
    ahead     weight of the loss of the symbols after the next one; `ahead_late` after `ahead_until`, a share of all
              steps (DeepSeek-V3 §4.2: 0.3 for the first 10 of 14.8 trillion tokens, then 0.1)
    """

    steps: int
    batch: int = 8
    length: int = 128
    rate: float = 2e-3
    last: float = 0.1
    warm_up: int = 20
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    ahead: float = 0.3
    ahead_late: float = 0.1
    ahead_until: float = 10 / 14.8

    def ahead_at(self, step: int) -> float:
        """Weight of the loss of further symbols at a step, counted from 0."""
        return self.ahead if step < self.ahead_until * self.steps else self.ahead_late

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        along = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))


@dataclass(frozen=True)
class Step:
    """One step: loss of the next byte in bits, MaxVio averaged over the mixtures, wall time, share of pairs dropped."""

    bits: float
    violation: float
    nanoseconds: int
    dropped: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """Bits a byte over the validation windows, tokens of each expert in each mixture, int64 [L, E], and bits a byte of
    the symbols after the next one, depth 1 first."""

    bits: float
    loads_LE: Tensor
    ahead: tuple[float, ...] = ()


class Training:
    """A model with its optimizer, on `device`, at step `done`; `curves` holds what was noted, by name.

    Raises ValueError in `advance` and `evaluate` for router scores that are not finite, naming layer and step.
    """

    def __init__(
        self, model: Decoder, data_N: Tensor, recipe: Recipe, balancing: Balancing | None = None, device: str = "cpu"
    ) -> None:
        self.model, self.data_N, self.recipe = model.to(device), data_N, recipe
        self.balancing, self.device = balancing or Balancing(), torch.device(device)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.95))
        self.done = 0
        self.curves: dict[str, list[float]] = {}
        self.loads_LE = torch.zeros(0, 0, dtype=torch.int64)
        self.stretch: list[Step] = []
        self.times: list[int] = []

    def advance(self) -> Step:
        """One step. Raises ValueError where scores or loss are not finite; the model is as before then."""
        begun = time.perf_counter_ns()
        with reproducible(self.device):
            step = self._advance(begun)
        self.stretch.append(step)
        self.times.append(step.nanoseconds)
        return step

    def _advance(self, begun: int) -> Step:
        recipe = self.recipe
        given_BT = batch(self.data_N, recipe.batch, recipe.length, recipe.seed, self.done).to(self.device)
        rule = self.model.shape.rule
        keep = self.balancing.keep(rule, recipe.batch, recipe.seed, self.done)
        output = self.model(given_BT[:, :-1], keep, further=True)
        check(output, self.done)
        loss = language_loss(output, given_BT)
        if not loss.isfinite():
            raise ValueError(f"step {self.done}: the training loss is {loss.item()}; a lower rate may help")
        extra = self.balancing.loss(output.routed, rule, recipe.batch)
        whole = loss + further_loss(output, given_BT, self.model.shape.objective, recipe.ahead_at(self.done))
        self.optimizer.zero_grad()
        (whole if extra is None else whole + extra).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate_at(self.done)
        self.optimizer.step()
        loads_LE = loads(output.routed)
        self.balancing.update(self.model.mixtures, loads_LE)
        self.done += 1
        found = loss.item() / NATS, violation(loads_LE.cpu())
        left_out = dropped(output.routed)
        return Step(*found, time.perf_counter_ns() - begun, left_out)

    @torch.no_grad()
    def evaluate(self, windows_BT: Tensor) -> Evaluation:
        """Mean over all positions of windows int64 [B, T + 1]; nothing is trained or dropped and no bias is moved."""
        total, loads_LE = 0.0, torch.zeros(0, 0, dtype=torch.int64)
        further = [0.0] * self.model.shape.ahead
        with reproducible(self.device):
            for given_BT in windows_BT.split(2 * self.recipe.batch):
                given_BT = given_BT.to(self.device)
                output = self.model(given_BT[:, :-1], further=True)
                check(output, self.done)
                total += language_loss(output, given_BT).item() * len(given_BT)
                found = (loss.item() * len(given_BT) for loss in depth_losses(output, given_BT))
                further = [before + more for before, more in zip(further, found, strict=True)]
                found_LE = loads(output.routed).cpu()
                loads_LE = loads_LE + found_LE if loads_LE.numel() else found_LE
        scale = len(windows_BT) * NATS
        return Evaluation(total / scale, loads_LE, tuple(bits / scale for bits in further))

    def note(self, evaluation: Evaluation) -> None:
        """Put an evaluation on the curves, with the means of the steps since the last one."""
        steps = self.stretch or [Step(math.nan, math.nan, 0)]
        found = {
            "step": float(self.done),
            "train_loss": sum(step.bits for step in steps) / len(steps),
            "validation_bits": evaluation.bits,
        }
        found |= {f"validation_bits_{depth}": bits for depth, bits in enumerate(evaluation.ahead, 1)}
        loads_LE = evaluation.loads_LE.double()
        if len(loads_LE):
            devices_LD = loads_LE.unflatten(1, (self.model.shape.rule.groups, -1)).sum(-1)
            found["max_violation"] = sum(step.violation for step in steps) / len(steps)
            found["dropped_share"] = sum(step.dropped for step in steps) / len(steps)
            found["max_violation_global"] = violation(loads_LE)
            found["load_variation"] = sum(map(coefficient_of_variation, loads_LE)) / len(loads_LE)
            found["device_violation"] = sum(map(max_violation, devices_LD)) / len(devices_LD)
        for name, value in found.items():
            self.curves.setdefault(name, []).append(value)
        self.loads_LE, self.stretch = evaluation.loads_LE, []

    def state(self) -> dict[str, Any]:
        """All that a later `restore` needs, of tensors and plain values only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "done": self.done,
            "curves": {name: list(values) for name, values in self.curves.items()},
            "loads": self.loads_LE,
            "stretch": [list(astuple(step)) for step in self.stretch],
            "times": list(self.times),
            "made_of": self._made_of(),
        }

    def _made_of(self) -> dict[str, Any]:
        return {name: asdict(getattr(self, name)) for name in ("recipe", "balancing")} | {
            "shape": asdict(self.model.shape)
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises ValueError where it is of another model, recipe or balancing, or of
        something else altogether."""
        mine = self._made_of()
        if missing := sorted({*self.state(), *(f"made_of.{part}" for part in mine)} - _parts(state)):
            raise ValueError(f"the checkpoint is of something else: it has no {', '.join(missing)}")
        for part, values in state["made_of"].items():
            if values != mine[part]:
                raise ValueError(f"the checkpoint was made with another {part}: {values}, here it is {mine[part]}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.done, self.loads_LE, self.times = state["done"], state["loads"], list(state["times"])
        self.curves = {name: list(values) for name, values in state["curves"].items()}
        self.stretch = [Step(*values) for values in state["stretch"]]


def _parts(state: dict[str, Any]) -> set[str]:
    made_of = state.get("made_of")
    return {*state, *(f"made_of.{part}" for part in made_of)} if isinstance(made_of, dict) else {*state}


def language_loss(output: Output, given_BT: Tensor) -> Tensor:
    """Cross-entropy of the next byte in nats, mean over the batch; `given` has one byte more than the output."""
    return F.cross_entropy(output.logits_BTV.flatten(0, 1), given_BT[:, 1:].flatten())


def depth_losses(output: Output, given_BT: Tensor) -> list[Tensor]:
    """Cross-entropy in nats of the symbols k = 1, 2, ... after the next one, each a mean over those there are."""
    return [
        F.cross_entropy(logits_BTV.flatten(0, 1), given_BT[:, depth + 1 :].flatten())
        for depth, logits_BTV in enumerate(output.ahead, 1)
    ]


def further_loss(output: Output, given_BT: Tensor, objective: str, weight: float) -> Tensor | float:
    """What predicting further symbols adds to the loss; 0.0 where none are predicted.

    "mtp": weight / K times the sum over the depths of L^k, which divides by all T positions although only T - k have
    such a symbol (DeepSeek-V3 report, eqs 24-25). "mtp-parallel": the sum alone, for Gloeckle et al. weigh all heads
    alike (arXiv 2404.19737, eq 2), each a mean over its own positions.
    """
    losses = depth_losses(output, given_BT)
    if not losses:
        return 0.0
    if objective == "mtp-parallel":
        return torch.stack(losses).sum()
    length = given_BT.shape[1] - 1
    parts = [loss * ((length - depth) / length) for depth, loss in enumerate(losses, 1)]
    return torch.stack(parts).sum() * (weight / len(parts))


def check(output: Output, step: int) -> None:
    """Raises ValueError for router scores that are not finite: the choice of experts would mean nothing."""
    for routed in output.routed:
        if not routed.s_ME.isfinite().all():
            bad = int((~routed.s_ME.isfinite()).any(-1).sum())
            raise ValueError(
                f"layer {routed.layer}, step {step}: the router's scores of {bad} of {len(routed.s_ME)} tokens are not "
                "finite; look for a rate that is too high or for weights that were damaged"
            )


@contextlib.contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic algorithms on a CPU; on a GPU nothing changes, for several operations have none there."""
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
