"""The learning operations with what they share computed once: prompts, log-probabilities, logits a chunk at a time.

`shared` samples a group from one pass over its prompt (`rollout.py`), `graph` replays its step from a CUDA graph;
`chunked` never holds the logits of all positions (`logs.py`); `table` judges all responses at once, on their device:
the format by a table of states that each symbol moves on, the answer by comparison. Wins where the reference repeats
itself. Loses where a task has more than one right answer: there `table` knows none. Nothing here has run on
a GPU yet.
Shape suffixes: B responses, N response symbols, S states, V symbols.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import Prepared, implementation

from ..model.generation import captured
from ..objective.weights import model_of
from .inputs import Answers, Weights
from .logs import chunked_logs
from .reference import logging, updating
from .rollout import Sampling
from .shape import TECHNIQUES, RolloutShape

BEGUN, WORK, WORKED, ANSWER, ANSWERED, DONE, FAILED = range(7)


def rolling(graph: bool) -> Callable[[Weights, RolloutShape], Prepared]:
    """learning.rollout with caches."""

    def setup(weights: Weights, shape: RolloutShape) -> Prepared:
        with torch.no_grad():
            model = model_of(weights["policy"], shape.model)
            sampling = Sampling(model, shape.questions, shape.group, shape.task.prompt, shape.count)
        if graph:
            captured(sampling)
        layout = f"caches of {sampling.server.slots} slots a response and {sampling.first.slots} a prompt"
        return Prepared(lambda questions: sampling.sample(questions), layout=layout)

    setup.__doc__ = f"Each prompt once, then all responses as one batch{', from a CUDA graph' if graph else ''}."
    return setup


implementation("learning.rollout", technique="grpo", kind="optimized", name="shared")(rolling(False))
implementation("learning.rollout", technique="grpo", kind="optimized", name="graph", needs=("cuda",))(rolling(True))


def states(device: torch.device, symbols: int = 256) -> Tensor:
    """The format as a table: the state after each symbol in each state, int64 [S, V]."""
    open_, close, begin, end = (ord(one) for one in "()[]")
    table_SV = torch.full((FAILED + 1, symbols), FAILED, dtype=torch.int64)
    table_SV[BEGUN, open_], table_SV[BEGUN, begin] = WORK, ANSWER
    table_SV[WORK], table_SV[ANSWER], table_SV[ANSWERED] = WORK, ANSWERED, ANSWERED
    for state in (WORK, ANSWER, ANSWERED):
        table_SV[state, [open_, close, begin, end]] = FAILED
    table_SV[WORK, close], table_SV[WORKED, begin], table_SV[ANSWERED, end] = WORKED, ANSWER, DONE
    table_SV[DONE] = DONE  # what follows the end is no part of the response
    return table_SV.to(device)


def by_table(table_SV: Tensor, symbols_BN: Tensor, right_BN: Tensor) -> Tensor:
    """Rewards FP32 [B] of responses without work."""
    state_B = torch.full_like(symbols_BN[:, 0], BEGUN)
    for symbol_B in symbols_BN.clamp_max(table_SV.shape[1] - 1).unbind(1):
        state_B = table_SV[state_B, symbol_B]
    formatted_B = state_B == DONE
    ended_BN = (right_BN != 0).to(torch.int64)
    correct_B = ((symbols_BN == right_BN) | (ended_BN == 0)).all(1)  # what is right has the format
    return 0.5 * formatted_B.float() + 0.5 * correct_B.float()


def _one_answer(shape: RolloutShape) -> str | None:
    return f"{shape.task.kind} has many right answers; the table knows one" if shape.task.kind == "countdown" else None


@implementation("learning.reward", technique="grpo", kind="optimized", name="table", supports=_one_answer)
def reward(weights: None, shape: RolloutShape) -> Callable[[Answers], Tensor]:
    """All responses at once, on the device they are on."""
    tables: dict[torch.device, Tensor] = {}

    def call(answers: Answers) -> Tensor:
        device = answers.symbols_BN.device
        if device not in tables:
            tables[device] = states(device)
        return by_table(tables[device], answers.symbols_BN, answers.right_BN)

    return call


for _technique in TECHNIQUES:
    implementation("learning.update", technique=_technique, kind="optimized", name="chunked")(
        updating(_technique, "chunked")
    )
implementation("learning.logprob", technique="grpo", kind="optimized", name="chunked")(logging(chunked_logs))
