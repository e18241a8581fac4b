"""Responses sampled from a policy, each prompt processed once for its whole group, log-probabilities kept.

A group's responses follow one prompt, so its keys and values are computed once and copied to every response's cache;
then all responses of all questions are one batch, a symbol a step. The log-probability of each symbol is known when it
is chosen: kept, it stands for what a further pass over policy and response would compute, as long as temperature is 1
and the weights have not changed. What is sampled follows from numbers drawn beforehand, one a symbol: the symbol is the
first whose cumulated probability passes the number, so two right implementations choose alike. Ends when all responses
have. Wins with many responses a prompt. Loses where one response is much longer than the others: all wait for it.
Shape suffixes: Q questions, B responses, P prompt symbols, N new symbols, V symbols, T symbols of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.choosing import Greedy
from ..model.decoder import Decoder
from ..model.generation import Plain, rows_of
from ..model.serving import Server, pieces
from .tasks import END, Problem

END_SYMBOL = ord(END)


@dataclass(frozen=True)
class Questions:
    """Prompts int64 [Q, P], of which the first `lengths` symbols count, int64 [Q], and for each response a number in
    [0, 1) for each symbol, [N, B]."""

    symbols_QP: Tensor
    lengths_Q: Tensor
    uniforms_NB: Tensor


@dataclass(frozen=True)
class Responses:
    """Symbols int64 [B, N] up to the end's and 0 after it, and their log-probabilities [B, N], 0 after it."""

    symbols_BN: Tensor
    logs_BN: Tensor


class Drawn(Greedy):
    """The symbol that a number points to; its log-probability is kept. State stays where it is, for a CUDA graph."""

    def __init__(self, count: int, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        self.uniforms_NB = torch.zeros(count, batch, device=device, dtype=dtype)
        self.logs_NB = torch.zeros(count, batch, device=device, dtype=dtype)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)

    def begin(self, uniforms_NB: Tensor) -> None:
        """Take new numbers."""
        self.uniforms_NB.copy_(uniforms_NB)
        self.logs_NB.zero_()
        self.at.zero_()

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The symbols pointed to, int64 [B]."""
        logs_BV = logits_BV.log_softmax(-1)
        chosen_B = pointed(logs_BV.exp(), self.uniforms_NB.index_select(0, self.at)[0])
        self.logs_NB.index_copy_(0, self.at, logs_BV.gather(1, chosen_B[:, None]).T)
        self.at.add_(1).remainder_(len(self.uniforms_NB))
        return chosen_B


def pointed(p_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The first symbol whose cumulated probability is more than the number, int64 [B]."""
    passed_BV = p_BV.cumsum(-1) <= uniform_B[:, None].to(p_BV.dtype)
    return passed_BV.sum(-1).clamp_max(p_BV.shape[1] - 1)


class Sampling(Plain):
    """`group` responses of up to `count` symbols to each prompt; weights must not change between set-up and use."""

    def __init__(
        self, model: Decoder, questions: int, group: int, prompt: int, count: int, chooser: Drawn | None = None
    ) -> None:
        wide = torch.promote_types(model.shape.attention.torch_dtype, torch.float32)
        drawn = chooser or Drawn(count, questions * group, model.head_VD.device, wide)
        super().__init__(model, questions * group, prompt, count, drawn)
        self.group, self.drawn, self.prompts = group, drawn, questions
        self.first = Server(model, questions, prompt)

    @torch.no_grad()
    def sample(self, questions: Questions) -> Responses:
        """All responses. Raises ValueError for prompts of more symbols than there is room for."""
        if questions.symbols_QP.shape[1] > self.prompt:
            raise ValueError(f"prompts have {questions.symbols_QP.shape[1]} symbols, there is room for {self.prompt}")
        self.drawn.begin(questions.uniforms_NB)
        self.begin(questions.symbols_QP, questions.lengths_Q)
        for _ in range(self.count - 1):
            if bool(self.ended().all()):
                break
            (self.replay or self.step)()
        return cut(self.new_symbols(), self.drawn.logs_NB.T)

    def begin(self, prompts_QP: Tensor, lengths_Q: Tensor) -> None:
        """Process each prompt once, hand its keys and values to its group, and choose the first symbols."""
        positions_QP = torch.arange(prompts_QP.shape[1], device=prompts_QP.device).expand_as(prompts_QP)
        parts = [self.first.stream(prompts_QP[:, a:b], positions_QP[:, a:b])[0] for a, b in pieces(prompts_QP.shape[1])]
        self.server.follow(self.first)
        logits_QV = self.model.head(rows_of(torch.cat(parts, 1), lengths_Q[:, None] - 1))[:, 0]
        lengths_B = lengths_Q.repeat_interleave(self.group)
        self.symbols_BS.zero_()
        self.symbols_BS[:, : prompts_QP.shape[1]] = prompts_QP.repeat_interleave(self.group, 0)
        first_B = self.chooser.choose(logits_QV.repeat_interleave(self.group, 0))
        self.symbols_BS.scatter_(1, lengths_B[:, None], first_B[:, None])
        self.known_B.copy_(lengths_B + 1)
        self.end_B.copy_(lengths_B + self.count)

    def new_symbols(self) -> Tensor:
        """What has been chosen so far, int64 [B, N]; what has not is 0 or what a prompt was filled up with."""
        start_B1 = self.end_B[:, None] - self.count
        at_BN = start_B1 + torch.arange(self.count, device=start_B1.device)
        return self.symbols_BS.gather(1, at_BN) * (at_BN < self.known_B[:, None])

    def ended(self) -> Tensor:
        """Which responses hold their end, bool [B]."""
        return (self.new_symbols() == END_SYMBOL).any(1)


def counted(symbols_BN: Tensor) -> Tensor:
    """Which symbols are of a response: those before its end and the end's own, bool [B, N]."""
    ended_BN = (symbols_BN == END_SYMBOL).to(torch.int64)
    return ended_BN.cumsum(1) - ended_BN == 0


def cut(symbols_BN: Tensor, logs_BN: Tensor) -> Responses:
    """Without what follows the end."""
    counts_BN = counted(symbols_BN)
    return Responses(symbols_BN * counts_BN, logs_BN * counts_BN)


def encoded(texts: Sequence[str], room: int) -> tuple[Tensor, Tensor]:
    """Texts as symbols int64 [Q, room] filled up with 0, and their lengths int64 [Q].

    Raises ValueError for a text that is longer than the room or empty, or not in ASCII.
    """
    symbols_QP = torch.zeros(len(texts), room, dtype=torch.int64)
    for row, text in enumerate(texts):
        if not 0 < len(text) <= room or not text.isascii():
            raise ValueError(f"prompt {text!r} has {len(text)} symbols, expected 1 to {room}, in ASCII")
        symbols_QP[row, : len(text)] = torch.tensor(list(text.encode()))
    return symbols_QP, torch.tensor([len(text) for text in texts])


def decoded(symbols_BN: Tensor) -> list[str]:
    """Responses as text, up to their end; symbols beyond ASCII become a question mark."""
    lengths = counted(symbols_BN).sum(1).tolist()
    rows = symbols_BN.clamp_max(255).tolist()
    return ["".join(chr(one) if one < 128 else "?" for one in row[:n]) for row, n in zip(rows, lengths, strict=True)]


def plain_text(symbols_QP: Tensor) -> list[str]:
    """What `encoded` made symbols of."""
    return [bytes(row).rstrip(b"\0").decode("ascii") for row in symbols_QP.tolist()]


def joined(symbols_QP: Tensor, lengths_Q: Tensor, symbols_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Each response behind its prompt, int64 [B, P + N] with 0 after it, and the prompts' lengths int64 [B]."""
    group = len(symbols_BN) // len(lengths_Q)
    lengths_B = lengths_Q.repeat_interleave(group)
    whole_BT = torch.cat((symbols_QP.repeat_interleave(group, 0), torch.zeros_like(symbols_BN)), 1)
    at_BN = lengths_B[:, None] + torch.arange(symbols_BN.shape[1], device=lengths_B.device)
    return whole_BT.scatter_(1, at_BN, symbols_BN), lengths_B


def questions_of(problems: Sequence[Problem], room: int, uniforms_NB: Tensor) -> Questions:
    """Problems as prompts, on the numbers' device."""
    symbols_QP, lengths_Q = encoded([one.prompt for one in problems], room)
    return Questions(symbols_QP.to(uniforms_NB.device), lengths_Q.to(uniforms_NB.device), uniforms_NB)
