"""What the learning operations take and return, and how inputs are drawn.

A choice that hangs on a rounding can be made either way by right implementations, and what follows differs then, so the
number that chooses a symbol is moved to the middle of the interval that chooses it, and a symbol rarer than `RARE` is
replaced by the most probable. Updates are drawn away from the two places where the clipped objective has a kink.
Weights follow from the shape alone, for inputs are drawn with them.
Shape suffixes: B responses, N response symbols, M rows, D hidden, V symbols.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..model.decoder import Decoder
from ..model.shape import ModelShape
from ..objective.weights import model_of
from .objective import Rule
from .rollout import Drawn, Questions, Sampling, encoded, joined, pointed, questions_of
from .shape import LogShape, RolloutShape, UpdateShape
from .tasks import Problem
from .update import Batch, Critic, chunked, known, mask_of

RARE = 1e-3
Weights = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Rows:
    """Rows [M, D] before the head, the symbols they are to predict, int64 [M], and what comes back to each, [M]."""

    x_MD: Tensor
    targets_M: Tensor
    d_M: Tensor


@dataclass(frozen=True)
class Logged:
    """Log-probabilities [M], and the gradients of rows and head."""

    logs_M: Tensor
    dx_MD: Tensor
    dw_VD: Tensor


@dataclass(frozen=True)
class Answers:
    """Responses and right ones, int64 [B, N] with 0 after them, and the prompts, int64 [B, P]."""

    symbols_BN: Tensor
    right_BN: Tensor
    prompts_BP: Tensor


@dataclass(frozen=True)
class Updated:
    """What an update lowers, a scalar, and gradients by name, those of the critic after "critic.".

    The mean size of advantages is added to the loss: its terms have either sign and nearly cancel in GRPO, where a
    group's advantages sum to 0, so that the rounding of a term is many times the loss's own.
    """

    loss: Tensor
    gradients: dict[str, Tensor]


class Settled(Drawn):
    """Moves each number to the middle of the interval it lies in."""

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The symbol pointed to, or the most probable where that is rare."""
        p_BV = logits_BV.double().softmax(-1)
        chosen_B1 = pointed(p_BV, self.uniforms_NB.index_select(0, self.at)[0])[:, None]
        chosen_B1 = torch.where(p_BV.gather(1, chosen_B1) < RARE, p_BV.argmax(-1, keepdim=True), chosen_B1)
        middle_B = (p_BV.cumsum(-1) - p_BV / 2).gather(1, chosen_B1)[:, 0]
        self.uniforms_NB.index_copy_(0, self.at, middle_B[None].to(self.uniforms_NB.dtype))
        self.at.add_(1).remainder_(len(self.uniforms_NB))
        return chosen_B1[:, 0]


@lru_cache(maxsize=4)
def _policy(model: ModelShape, device: str) -> dict[str, Tensor]:
    state = Decoder(model, 0).state_dict()
    return {name: tensor.detach().to(device) for name, tensor in state.items()}


def draw_policy(shape: RolloutShape, technique: str, generator: torch.Generator) -> Weights:
    """The policy, and for PPO a critic with its blocks and small random values."""
    found = {"policy": dict(_policy(shape.model, str(generator.device)))}
    if technique == "ppo":
        critic = {f"body.{name}": one.clone() for name, one in found["policy"].items() if name != "head_VD"}
        value_D = torch.randn(shape.model.hidden, generator=torch.Generator().manual_seed(1))
        found["critic"] = {**critic, "value_D": value_D.to(generator.device) * shape.model.hidden**-0.5}
    return found


def critic_of(weights: Weights, model: ModelShape) -> Critic:
    """A critic on these very tensors."""
    value_D = weights["critic"]["value_D"]
    body = {name.removeprefix("body."): one for name, one in weights["critic"].items() if name != "value_D"}
    critic = Critic.__new__(Critic)
    torch.nn.Module.__init__(critic)
    critic.body = model_of({**body, "head_VD": body["embedding_VD"]}, model)
    del critic.body.head_VD
    critic.value_D = torch.nn.Parameter(value_D)
    return critic


def draw_questions(shape: RolloutShape, technique: str, generator: torch.Generator) -> Questions:
    """Problems of either side, and numbers that choose clearly."""
    questions, _ = _rolled(shape, generator)
    return questions


def _rolled(shape: RolloutShape, generator: torch.Generator) -> tuple[Questions, Tensor]:
    """Questions and the responses int64 [B, N] that their numbers choose."""
    device = generator.device
    model = model_of(_policy(shape.model, str(device)), shape.model)
    sizes = shape.count, shape.responses
    uniforms_NB = torch.rand(sizes, generator=generator, device=device)
    problems = _problems(shape, generator)
    given = questions_of(problems, shape.task.prompt, uniforms_NB)
    settled = Settled(shape.count, shape.responses, torch.device(device), torch.float32)
    with torch.no_grad():
        sampling = Sampling(model, shape.questions, shape.group, shape.task.prompt, shape.count, settled)
    responses = sampling.sample(given)
    return replace(given, uniforms_NB=settled.uniforms_NB), responses.symbols_BN


def _problems(shape: RolloutShape, generator: torch.Generator) -> list[Problem]:
    draws = random.Random(int(torch.randint(2**31, (1,), generator=generator, device=generator.device)))
    return [shape.task.problem(draws) for _ in range(shape.questions)]


def draw_batch(shape: UpdateShape, technique: str, generator: torch.Generator) -> Batch:
    """Responses of the policy, as long as random weights make them, sampled by a policy a little away, with rewards
    0, 0.5 and 1; what is known before an update is computed from the weights."""
    questions, symbols_BN = _rolled(shape, generator)
    weights = draw_policy(shape, technique, generator)
    policy = model_of(weights["policy"], shape.model)
    whole_BT, lengths_B = joined(questions.symbols_QP, questions.lengths_Q, symbols_BN)
    empty_BN = torch.zeros(symbols_BN.shape, device=symbols_BN.device)
    batch = Batch(whole_BT, lengths_B, symbols_BN, mask_of(symbols_BN, empty_BN), empty_BN, empty_BN)
    with torch.no_grad():
        logs_BN = chunked(policy, whole_BT, batch.at_BN, symbols_BN)
    batch = replace(batch, old_BN=(logs_BN + _away(shape.rule, logs_BN, generator)) * batch.mask_BN)
    size = (shape.responses,)
    rewards_B = torch.randint(3, size, generator=generator, device=generator.device) / 2
    noise_BN = 0.1 * torch.randn(logs_BN.shape, generator=generator, device=generator.device)
    critic = critic_of(weights, shape.model) if technique == "ppo" else None
    return known(technique, shape.rule, batch, rewards_B, shape.group, lambda _: logs_BN + noise_BN, critic)


def _away(rule: Rule, logs_BN: Tensor, generator: torch.Generator) -> Tensor:
    """Differences of log-probabilities of which most are within the clip and some beyond, none near it.

    In the form "sequence" they add up over a response, so all are small there, but those of some responses.
    """
    device, size = generator.device, logs_BN.shape
    small_BN, coin_BN = (torch.rand(size, generator=generator, device=device) for _ in range(2))
    sign_BN = torch.where(torch.rand(size, generator=generator, device=device) < 0.5, -1.0, 1.0)
    edge = torch.tensor(1 + rule.clip).log()
    if rule.form == "sequence":
        large_B1 = (coin_BN[:, :1] < 0.3) * 2 * edge * sign_BN[:, :1]
        return (small_BN - 0.5) * edge / size[1] + large_B1 * (torch.arange(size[1], device=device) == 0)
    return sign_BN * torch.where(coin_BN < 0.3, 1.5 + small_BN, 0.6 * small_BN) * edge


def draw_answers(shape: RolloutShape, technique: str, generator: torch.Generator) -> Answers:
    """Responses of which about a third are right, a third wrong in the right format, and a third in none."""
    problems = [one for one in _problems(shape, generator) for _ in range(shape.group)]
    draws = random.Random(int(torch.randint(2**31, (1,), generator=generator, device=generator.device)))
    texts = [_spoilt(one.solution(), draws) for one in problems]
    right_BN, _ = encoded([one.solution() for one in problems], shape.count)
    symbols_BN, _ = encoded([text[: shape.count] for text in texts], shape.count)
    prompts_BP, _ = encoded([one.prompt for one in problems], shape.task.prompt)
    return Answers(*(one.to(generator.device) for one in (symbols_BN, right_BN, prompts_BP)))


def _spoilt(text: str, draws: random.Random) -> str:
    kind, at = draws.randrange(3), draws.randrange(len(text))
    if kind == 0:
        return text
    if kind == 1:
        inner = draws.randrange(1, len(text) - 1)
        return text[:inner] + draws.choice("0123456789") + text[inner + 1 :]
    return text[:at] + draws.choice("[]()1a") + text[at + 1 :]


def draw_rows(shape: LogShape, technique: str, generator: torch.Generator) -> Rows:
    """Random."""
    dtype, device = getattr(torch, shape.dtype), generator.device
    x_MD = torch.randn(shape.rows, shape.hidden, generator=generator, device=device)
    targets_M = torch.randint(shape.symbols, (shape.rows,), generator=generator, device=device)
    d_M = torch.randn(shape.rows, generator=generator, device=device)
    return Rows(x_MD.to(dtype), targets_M, d_M)


def draw_head(shape: LogShape, technique: str, generator: torch.Generator) -> Tensor:
    """A random head [V, D]."""
    w_VD = torch.randn(shape.symbols, shape.hidden, generator=generator, device=generator.device)
    return (w_VD * shape.hidden**-0.5).to(getattr(torch, shape.dtype))
