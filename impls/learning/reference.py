"""The learning operations by definition: whole sequences, whole logits, one response and one rule at a time.

Sampling runs the policy over all symbols so far for each new one; an update computes the logits of every position and
lets autograd do the rest; rewards are told by the task's rule. Wins by saying what must come out. Loses in time and in
memory, with the vocabulary above all.
Shape suffixes: Q questions, B responses, N response symbols, T symbols, M rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from ..model.decoder import Decoder
from ..objective.weights import model_of
from .inputs import Answers, Logged, Rows, Updated, Weights, critic_of
from .logs import whole_logs
from .rollout import Questions, Responses, cut, decoded, plain_text, pointed
from .shape import TECHNIQUES, LogShape, RolloutShape, UpdateShape
from .tasks import judged
from .update import LOGS, Batch, losses

Logarithm = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def sampled_anew(model: Decoder, questions: Questions, group: int, count: int) -> Responses:
    """Each response from its own copy of the prompt, all symbols so far processed for each new one."""
    lengths_B = questions.lengths_Q.repeat_interleave(group)
    prompts_BP = questions.symbols_QP.repeat_interleave(group, 0)
    rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
    whole_BT = torch.cat((prompts_BP, prompts_BP.new_zeros(len(rows_B), count)), 1)
    symbols, logs = [], []
    for step in range(count):
        last_B = lengths_B + step - 1
        logits_BV = model(whole_BT[:, : int(last_B.max()) + 1]).logits_BTV[rows_B, last_B]
        logs_BV = logits_BV.log_softmax(-1)
        chosen_B = pointed(logs_BV.exp(), questions.uniforms_NB[step])
        whole_BT[rows_B, last_B + 1] = chosen_B
        symbols.append(chosen_B)
        logs.append(logs_BV[rows_B, chosen_B])
    return cut(torch.stack(symbols, 1), torch.stack(logs, 1))


@implementation("learning.rollout", technique="grpo", kind="reference")
def rollout(weights: Weights, shape: RolloutShape) -> Callable[[Questions], Responses]:
    """Every response on its own, without caches."""
    model = model_of(weights["policy"], shape.model)
    return lambda questions: sampled_anew(model, questions, shape.group, shape.count)


@implementation("learning.reward", technique="grpo", kind="reference")
def reward(weights: None, shape: RolloutShape) -> Callable[[Answers], Tensor]:
    """The task's rule on each response's text; FP32 [B] of 0, 0.5 and 1."""

    def call(answers: Answers) -> Tensor:
        problems = [shape.task.read(prompt) for prompt in plain_text(answers.prompts_BP)]
        found = [judged(*pair).reward for pair in zip(problems, decoded(answers.symbols_BN), strict=True)]
        return torch.tensor(found, device=answers.symbols_BN.device)

    return call


def updating(technique: str, logs: str) -> Callable[[Weights, UpdateShape], Callable[[Batch], Updated]]:
    """learning.update of a technique; `logs` is one of `update.LOGS`."""

    def setup(weights: Weights, shape: UpdateShape) -> Callable[[Batch], Updated]:
        policy = model_of(weights["policy"], shape.model)
        critic = critic_of(weights, shape.model) if technique == "ppo" else None
        named = dict(policy.named_parameters())
        named |= {f"critic.{name}": one for name, one in critic.named_parameters()} if critic else {}

        def call(batch: Batch) -> Updated:
            with torch.enable_grad():
                found = losses(technique, shape.rule, LOGS[logs], policy, critic, batch)
                gradients = torch.autograd.grad(found.whole, list(named.values()))
            raised = found.whole.detach() + batch.advantages_BN.abs().mean()
            return Updated(raised, dict(zip(named, gradients, strict=True)))

        return call

    setup.__doc__ = f"Forward and backward of {technique}'s objective; log-probabilities {logs}."
    return setup


def logging(function: Logarithm) -> Callable[[Tensor, LogShape], Callable[[Rows], Logged]]:
    """learning.logprob by a function of rows, head and targets."""

    def setup(w_VD: Tensor, shape: LogShape) -> Callable[[Rows], Logged]:
        head_VD = w_VD.detach().requires_grad_()

        def call(rows: Rows) -> Logged:
            with torch.enable_grad():
                x_MD = rows.x_MD.detach().requires_grad_()
                logs_M = function(x_MD, head_VD, rows.targets_M)
                dx_MD, dw_VD = torch.autograd.grad(logs_M, (x_MD, head_VD), rows.d_M.to(logs_M.dtype))
            return Logged(logs_M.detach(), dx_MD, dw_VD)

        return call

    setup.__doc__ = f"Forward and backward by {function.__name__}."
    return setup


for _technique in TECHNIQUES:
    implementation("learning.update", technique=_technique, kind="reference")(updating(_technique, "whole"))
implementation("learning.logprob", technique="grpo", kind="reference")(logging(whole_logs))
