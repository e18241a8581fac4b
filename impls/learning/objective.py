"""PPO's and GRPO's objectives as the papers print them: advantages, ratios, clipping, and the two places of the KL.

PPO (Schulman et al., arXiv 1707.06347; as DeepSeekMath, arXiv 2402.03300, eqs 1-2, writes it for language models): the
reward of a token is -beta log(pi/pi_ref), and that of the last one the verdict's on top; a critic predicts what is to
come, and generalised advantage estimation (arXiv 1506.02438) weighs what came against it. GRPO (DeepSeekMath §4.1): the
advantage of a response is its reward against those of its group, one number for all its tokens; no critic; the KL is a
term of the loss, by the estimator that is never negative ("k3"). Wins for GRPO: a model less in memory. Loses: one
number a response says nothing of which token earned it, and a group of equal rewards says nothing at all.
What the papers leave open: the guard under the deviation is `GUARD`, the deviation is the sample's (n - 1).
Shape suffixes: B responses, T tokens, Q questions, G responses of a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GUARD = 1e-4
ALONE = "a group has {} response: GRPO compares the responses to a question, at least 2 are needed"
FORMS = ("token", "sequence")


@dataclass(frozen=True)
class Rule:
    """Settings of both objectives; each technique reads its own.

    clip         how far from 1 a ratio may move an update (0.2)
    beta         weight of the KL to the reference: PPO in the reward, GRPO in the loss; 0 needs no reference
    discount     gamma of PPO's returns
    trace        lambda of generalised advantage estimation
    value_clip   how far a value may move from the one before the update
    value_weight of the critic's loss
    form         GRPO's ratio: "token" (DeepSeekMath), one a token, or "sequence" (DeepSeek-V2, V3, R1), one a response
    by_length    divide a response's loss by its own length (DeepSeekMath); off: by the longest there may be, so that
                 a token weighs the same in short and long responses (arXiv 2503.20783)
    by_deviation divide a group's advantages by the deviation of its rewards (DeepSeekMath); off: as above
    Raises ValueError for settings out of range.
    """

    clip: float = 0.2
    beta: float = 0.001
    discount: float = 1.0
    trace: float = 1.0
    value_clip: float = 0.2
    value_weight: float = 0.5
    form: str = "token"
    by_length: bool = False
    by_deviation: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form is {self.form!r}, expected one of {', '.join(FORMS)}")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("clip", "value_clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")
        if self.beta < 0 or self.value_weight < 0:
            raise ValueError(f"beta is {self.beta} and value_weight {self.value_weight}, expected at least 0")


def group_advantages(rewards_QG: Tensor, by_deviation: bool) -> Tensor:
    """Reward less the mean of its group, [Q, G]; NaN rewards are left out of the mean and get 0.

    Raises ValueError for a group of one, whose advantage is 0 whatever its reward.
    """
    if rewards_QG.shape[1] < 2:
        raise ValueError(ALONE.format(rewards_QG.shape[1]))
    counts_QG = rewards_QG.isfinite()
    kept_QG = rewards_QG.where(counts_QG, 0.0)
    number_Q1 = counts_QG.sum(1, keepdim=True).clamp_min(1)
    away_QG = (kept_QG - kept_QG.sum(1, keepdim=True) / number_Q1).where(counts_QG, 0.0)
    if by_deviation:
        variance_Q1 = away_QG.square().sum(1, keepdim=True) / (number_Q1 - 1).clamp_min(1)
        away_QG = away_QG / (variance_Q1.sqrt() + GUARD)
    equal_Q1 = kept_QG.where(counts_QG, -torch.inf).amax(1, True) == kept_QG.where(counts_QG, torch.inf).amin(1, True)
    return away_QG.masked_fill(equal_Q1, 0.0)


def without_signal(rewards_QG: Tensor) -> float:
    """Share of groups whose rewards are all equal, so that they teach nothing."""
    known = rewards_QG.isfinite()
    high_Q = rewards_QG.where(known, -torch.inf).amax(1)
    return float((high_Q <= rewards_QG.where(known, torch.inf).amin(1)).double().mean())


def shaped_rewards(rewards_B: Tensor, old_BT: Tensor, reference_BT: Tensor | None, mask_BT: Tensor, beta: float):
    """PPO's rewards of tokens [B, T]: the KL's share of each, and the verdict's on the last of a response."""
    found_BT = torch.zeros_like(old_BT)
    if reference_BT is not None:
        found_BT = -beta * (old_BT - reference_BT) * mask_BT
    places_BT = mask_BT * torch.arange(1, mask_BT.shape[1] + 1, device=mask_BT.device)
    last_B1 = places_BT.argmax(1, keepdim=True)
    return found_BT.scatter_add(1, last_B1, rewards_B[:, None].to(found_BT.dtype) * mask_BT.gather(1, last_B1))


def estimated_advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, and the returns it stands for (advantage + value); both [B, T], 0 outside."""
    after_B = values_BT.new_zeros(len(values_BT))
    sum_B, found = after_B, []
    for t in range(values_BT.shape[1] - 1, -1, -1):
        on_B = mask_BT[:, t]
        surprise_B = rewards_BT[:, t] + discount * after_B - values_BT[:, t]
        sum_B = torch.where(on_B > 0, surprise_B + discount * trace * sum_B, sum_B)
        after_B = torch.where(on_B > 0, values_BT[:, t], after_B)
        found.append(sum_B * on_B)
    advantages_BT = torch.stack(found[::-1], 1)
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def whitened(advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """To mean 0 and deviation 1 over all tokens, as PPO is run in practice."""
    count = mask_BT.sum().clamp_min(1)
    away_BT = (advantages_BT - (advantages_BT * mask_BT).sum() / count) * mask_BT
    return away_BT / ((away_BT.square().sum() / count).sqrt() + GUARD)


def k3(logs_BT: Tensor, reference_BT: Tensor) -> Tensor:
    """pi_ref / pi - log(pi_ref / pi) - 1 of each token, never negative, 0 where both agree (DeepSeekMath, eq 4)."""
    apart_BT = reference_BT - logs_BT
    return torch.expm1(apart_BT) - apart_BT


def ratios(logs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor, form: str) -> Tensor:
    """pi / pi_old of each token, or in the form "sequence" that of its whole response, [B, T]."""
    apart_BT = (logs_BT - old_BT) * mask_BT
    if form == "sequence":
        apart_BT = apart_BT.sum(1, keepdim=True).expand_as(apart_BT)
    return apart_BT.exp()


def clipped(ratios_BT: Tensor, advantages_BT: Tensor, clip: float) -> Tensor:
    """min(ratio A, clip(ratio) A), what is to be raised, [B, T]."""
    return torch.minimum(ratios_BT * advantages_BT, ratios_BT.clamp(1 - clip, 1 + clip) * advantages_BT)


def token_weights(mask_BT: Tensor, by_length: bool, form: str = "token") -> Tensor:
    """What each token counts for in a sum over a batch of responses, [B, T].

    A response counts 1 / B, spread over its tokens: by its own length, or so that a token of a response as long as
    there may be counts 1 / (B T). The sequence form has one term a response, which is spread over its tokens.
    """
    own_B1 = mask_BT.sum(1, keepdim=True).clamp_min(1)
    over = own_B1 if by_length or form == "sequence" else float(mask_BT.shape[1])
    return mask_BT / over / len(mask_BT)


def policy_loss(
    logs_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, weights_BT: Tensor, rule: Rule, form: str
) -> Tensor:
    """The clipped surrogate, negative for it is to be raised; `weights` from `token_weights`. A scalar."""
    ratios_BT = ratios(logs_BT, old_BT, mask_BT, form)
    return -(clipped(ratios_BT, advantages_BT, rule.clip) * weights_BT).sum()


def kl_loss(logs_BT: Tensor, reference_BT: Tensor | None, mask_BT: Tensor, weights_BT: Tensor, rule: Rule) -> Tensor:
    """GRPO's KL term, beta times the weighted sum of k3, in the form "sequence" that of whole responses. A scalar."""
    if reference_BT is None:
        return logs_BT.new_zeros(())
    if rule.form == "sequence":
        logs_BT, reference_BT = (
            (one_BT * mask_BT).sum(1, keepdim=True).expand_as(mask_BT) for one_BT in (logs_BT, reference_BT)
        )
    return rule.beta * (k3(logs_BT, reference_BT) * weights_BT).sum()


def value_loss(values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, weights_BT: Tensor, clip: float):
    """Half the larger of two squared errors, that of the value and that of one no farther than `clip` from the old."""
    near_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
    worse_BT = torch.maximum((values_BT - returns_BT).square(), (near_BT - returns_BT).square())
    return 0.5 * (worse_BT * weights_BT * mask_BT).sum()
