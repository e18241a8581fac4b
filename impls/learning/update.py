"""One update: log-probabilities of what was sampled, the objective of a technique, gradients of policy and critic.

The critic is a model like the policy with a number in place of logits: what is still to come, before each symbol.
`whole` computes logits of every position, prompts included, as the papers' formulas read; `chunked` those of response
symbols alone, a few hundred rows at a time (`logs.py`). Wins for chunked: memory, and prompts' logits. Loses: a product
of the head more.
Shape suffixes: B responses, T symbols of prompt and response, N response symbols, D hidden, V symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..model.decoder import Decoder
from ..model.generation import rows_of
from ..model.shape import ModelShape
from . import objective
from .logs import chunked_logs
from .objective import Rule
from .rollout import counted


@dataclass(frozen=True)
class Batch:
    """Responses to learn from; [B, N] in FP32 or wider unless said otherwise, 0 after a response's end.

    whole_BT      prompt and response, int64 [B, P + N]; lengths_B of the prompts, int64 [B]
    symbols_BN    the response, int64
    mask_BN       1 for its symbols, 0 after its end and for a response that does not count
    old_BN        log-probabilities under the policy that sampled it
    reference_BN  under the reference; None without a KL
    advantages_BN
    values_BN     of the critic before the updates, and returns_BN; None for GRPO
    """

    whole_BT: Tensor
    lengths_B: Tensor
    symbols_BN: Tensor
    mask_BN: Tensor
    old_BN: Tensor
    advantages_BN: Tensor
    reference_BN: Tensor | None = None
    values_BN: Tensor | None = None
    returns_BN: Tensor | None = None

    def rows(self, at: Tensor | slice) -> Batch:
        """Some of the responses."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return replace(self, **{name: None if one is None else one[at] for name, one in named.items()})

    @property
    def at_BN(self) -> Tensor:
        """The position that predicts each response symbol."""
        return self.lengths_B[:, None] - 1 + torch.arange(self.symbols_BN.shape[1], device=self.lengths_B.device)


Logs = Callable[[Decoder, Tensor, Tensor, Tensor], Tensor]


def whole(model: Decoder, whole_BT: Tensor, at_BN: Tensor, symbols_BN: Tensor) -> Tensor:
    """Log-probabilities [B, N] of response symbols, from all logits."""
    logs_BTV = model(whole_BT[:, :-1]).logits_BTV.log_softmax(-1)
    logs_BT = logs_BTV.gather(2, whole_BT[:, 1:, None])[..., 0]
    return logs_BT.gather(1, at_BN)


def chunked(model: Decoder, whole_BT: Tensor, at_BN: Tensor, symbols_BN: Tensor) -> Tensor:
    """The same from chunks of the logits that are needed."""
    x_BND = model.norm(rows_of(model.hidden(whole_BT[:, :-1])[0], at_BN))
    return chunked_logs(x_BND.flatten(0, 1), model.head_VD, symbols_BN.flatten()).view_as(at_BN)


LOGS: dict[str, Logs] = {"whole": whole, "chunked": chunked}


class Critic(nn.Module):
    """A decoder whose head is one row, at first 0, so that values are; drawn from `seed` or, better, like a policy."""

    def __init__(self, shape: ModelShape, seed: int = 0) -> None:
        super().__init__()
        self.body = Decoder(shape, seed)
        del self.body.head_VD
        self.value_D = nn.Parameter(torch.zeros(shape.hidden))

    def begin_as(self, policy: Decoder) -> Critic:
        """Take over the policy's blocks, as critics of language models are begun."""
        state = {name: tensor for name, tensor in policy.state_dict().items() if name != "head_VD"}
        self.body.load_state_dict(state)
        return self

    def forward(self, whole_BT: Tensor, at_BN: Tensor) -> Tensor:
        """Values [B, N] in FP32 or wider."""
        x_BND = self.body.norm(rows_of(self.body.hidden(whole_BT[:, :-1])[0], at_BN))
        wide = torch.promote_types(x_BND.dtype, torch.float32)
        return x_BND.to(wide) @ self.value_D.to(wide)


@dataclass(frozen=True)
class Losses:
    """Scalars: what is lowered, its parts, and the share of symbols whose ratio is beyond the clip."""

    whole: Tensor
    policy: Tensor
    kl: Tensor
    value: Tensor
    beyond: Tensor


def losses(technique: str, rule: Rule, logs: Logs, policy: Decoder, critic: Critic | None, batch: Batch) -> Losses:
    """The objective of a batch. PPO's KL is in its rewards, so in its advantages; GRPO's is here."""
    at_BN, mask_BN = batch.at_BN, batch.mask_BN
    logs_BN = logs(policy, batch.whole_BT, at_BN, batch.symbols_BN)
    form = rule.form if technique == "grpo" else "token"
    weights_BN = objective.token_weights(mask_BN, rule.by_length, form)
    lowered = objective.policy_loss(logs_BN, batch.old_BN, batch.advantages_BN, mask_BN, weights_BN, rule, form)
    away_BN = objective.ratios(logs_BN.detach(), batch.old_BN, mask_BN, form) - 1
    beyond = ((away_BN.abs() > rule.clip) * mask_BN).sum() / mask_BN.sum().clamp_min(1)
    if technique == "grpo":
        kl = objective.kl_loss(logs_BN, batch.reference_BN, mask_BN, weights_BN, rule)
        return Losses(lowered + kl, lowered, kl, kl.new_zeros(()), beyond)
    assert critic is not None and batch.values_BN is not None and batch.returns_BN is not None
    values_BN = critic(batch.whole_BT, at_BN)
    value = objective.value_loss(values_BN, batch.values_BN, batch.returns_BN, mask_BN, weights_BN, rule.value_clip)
    return Losses(lowered + rule.value_weight * value, lowered, value.new_zeros(()), value, beyond)


@torch.no_grad()
def known(
    technique: str,
    rule: Rule,
    batch: Batch,
    rewards_B: Tensor,
    group: int,
    reference: Callable[[Batch], Tensor] | None,
    critic: Critic | None,
) -> Batch:
    """The batch with all that is fixed before the updates: reference, values, advantages and returns.

    rewards  [B]; NaN for a response that does not count, whose mask becomes 0
    """
    counts_B = rewards_B.isfinite()
    mask_BN = batch.mask_BN * counts_B[:, None]
    batch = replace(batch, mask_BN=mask_BN, reference_BN=reference(batch) if reference and rule.beta else None)
    if technique == "grpo":
        found_B = objective.group_advantages(rewards_B.view(-1, group), rule.by_deviation).flatten()
        return replace(batch, advantages_BN=found_B[:, None].to(mask_BN.dtype) * mask_BN)
    assert critic is not None
    values_BN = critic(batch.whole_BT, batch.at_BN) * mask_BN
    each_BN = objective.shaped_rewards(rewards_B.nan_to_num(0.0), batch.old_BN, batch.reference_BN, mask_BN, rule.beta)
    advantages_BN, returns_BN = objective.estimated_advantages(each_BN, values_BN, mask_BN, rule.discount, rule.trace)
    white_BN = objective.whitened(advantages_BN, mask_BN)
    return replace(batch, advantages_BN=white_BN, values_BN=values_BN, returns_BN=returns_BN)


def mask_of(symbols_BN: Tensor, like: Tensor) -> Tensor:
    """1 for the symbols of responses, in the dtype of `like`."""
    return counted(symbols_BN).to(like.dtype)
