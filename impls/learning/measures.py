"""How well a policy does on problems it has not seen: greedy responses, judged by rule.

Shape suffixes: Q problems, N response symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.choosing import Greedy
from ..model.decoder import Decoder
from ..model.generation import Plain
from .rollout import END_SYMBOL, counted, decoded, encoded
from .tasks import Problem, Task, judged

BATCH = 500


@dataclass(frozen=True)
class Measured:
    """Shares of problems answered right, in the right format, and cut off; mean symbols of a response."""

    correct: float
    formatted: float
    truncated: float
    length: float


@torch.no_grad()
def accuracy(model: Decoder, task: Task, problems: Sequence[Problem], count: int) -> Measured:
    """Of greedy responses of up to `count` symbols."""
    device = model.head_VD.device
    found: list[Tensor] = []
    for at in range(0, len(problems), BATCH):
        some = problems[at : at + BATCH]
        symbols_QP, lengths_Q = (one.to(device) for one in encoded([one.prompt for one in some], task.prompt))
        plain = Plain(model, len(some), task.prompt, count, Greedy())
        found.append(plain.run(symbols_QP, lengths_Q).symbols_BN)
    symbols_QN = torch.cat(found)
    verdicts = [judged(*pair) for pair in zip(problems, decoded(symbols_QN), strict=True)]
    return Measured(
        sum(one.correct for one in verdicts) / len(verdicts),
        sum(one.formatted for one in verdicts) / len(verdicts),
        truncated(symbols_QN),
        float(counted(symbols_QN).sum(1).double().mean()),
    )


def truncated(symbols_BN: Tensor) -> float:
    """Share of responses that have no end."""
    return float((symbols_BN != END_SYMBOL).all(1).double().mean())
