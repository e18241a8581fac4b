"""Generation with caches: symbol by symbol, or several a step, drafted by the model's own further predictions.

Speculative decoding (Leviathan et al., arXiv 2211.17192) with the MTP modules as drafters (DeepSeek-V3 report, §5.4.3).
With n symbols of a sequence known, of which the model has processed all but the last, a step

    1. runs the model on the last known symbol and the K drafted ones, at positions n - 1 to n - 1 + K;
    2. accepts drafts as long as they stand, a of them, and takes one more symbol from the model's own logits there;
    3. runs each module on the positions whose symbols have become known, and drafts from the last.

Going back on rejection is setting n to n + a + 1: slots beyond are written again before they are read. A module of
depth k needs the symbol k after its position, which was a draft for the last k - 1 positions, so these are run again.
Sequences of one batch differ in length and in acceptance; one that has all its symbols stands still until all have.
A step yields 1 + p symbols for K = 1, and costs 1 + c of a plain one: the gain is (1 + p) / (1 + c). Wins at small
batches, where a forward of K + 1 symbols reads the same weights as one of 1. Loses where arithmetic binds, or where
drafts are refused.
Shape suffixes: B sequences, T positions, P prompt symbols, N new symbols, S slots, D hidden, K depths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .choosing import Chooser, Greedy
from .decoder import Decoder
from .serving import Server, capacity, pieces


@dataclass(frozen=True)
class Outcome:
    """New symbols, int64 [B, N], and how they came about.

    steps       steps the batch took after the prompts
    sequences   steps of all sequences together, those in which one stood still left out
    accepted_K  in how many of these the first 1, 2, ..., K drafts stood; [0] for plain decoding
    """

    symbols_BN: Tensor
    steps: int
    sequences: int = 0
    accepted_K: tuple[int, ...] = ()

    @property
    def acceptance(self) -> tuple[float, ...]:
        """By depth: how often a draft stood whose predecessors stood."""
        tried = (self.sequences, *self.accepted_K[:-1])
        return tuple(stood / max(1, before) for stood, before in zip(self.accepted_K, tried, strict=True))

    @property
    def symbols_a_step(self) -> float:
        """New symbols of a sequence a step, as its drafts would have it without an end."""
        return 1 + sum(self.accepted_K) / max(1, self.sequences)


class Plain:
    """One symbol a step. State is in tensors that stay where they are, so that a step can be captured."""

    depth = 0

    def __init__(self, model: Decoder, batch: int, prompt: int, count: int, chooser: Chooser | None = None) -> None:
        self.server = Server(model, batch, capacity(prompt, count, self.depth))
        self.model, self.prompt, self.count, self.chooser = model, prompt, count, chooser or Greedy()
        device = self.server.device
        self.symbols_BS = torch.zeros(batch, self.server.slots, dtype=torch.int64, device=device)
        self.known_B = torch.ones(batch, dtype=torch.int64, device=device)
        self.end_B = self.known_B + count
        self.steps_T = torch.arange(self.depth + 1, device=device)
        self.replay: Callable[[], None] | None = None
        self.prompts = batch

    @torch.no_grad()
    def run(self, prompts_BP: Tensor, lengths_B: Tensor) -> Outcome:
        """`count` new symbols after each prompt int64 [B, P], of which `lengths` symbols count; lengths int64, >= 1.

        Raises ValueError for prompts of more sequences or symbols than there is room for.
        """
        room = self.server.batch, self.prompt
        if prompts_BP.shape[0] != room[0] or prompts_BP.shape[1] > room[1]:
            raise ValueError(f"prompts are {list(prompts_BP.shape)}, there is room for {room[0]} of up to {room[1]}")
        self.begin(prompts_BP, lengths_B)
        steps, least = 0, -(-(self.count - 1) // (self.depth + 1))
        while steps < least or bool((self.known_B < self.end_B).any()):
            (self.replay or self.step)()
            steps += 1
        at_BN = lengths_B[:, None] + torch.arange(self.count, device=lengths_B.device)
        return self.outcome(self.symbols_BS.gather(1, at_BN), steps)

    def outcome(self, symbols_BN: Tensor, steps: int) -> Outcome:
        """What `run` returns."""
        return Outcome(symbols_BN, steps, steps * len(symbols_BN))

    def begin(self, prompts_BP: Tensor, lengths_B: Tensor) -> None:
        """Process the prompts and choose the first symbol after each."""
        self.symbols_BS[:, : prompts_BP.shape[1]] = prompts_BP
        positions_BP = torch.arange(prompts_BP.shape[1], device=prompts_BP.device).expand_as(prompts_BP)
        parts = [self.server.stream(prompts_BP[:, a:b], positions_BP[:, a:b]) for a, b in pieces(prompts_BP.shape[1])]
        x_BPD, before_BPD = (torch.cat(side, 1) for side in zip(*parts, strict=True))
        first_B = self.chooser.choose(self.model.head(rows_of(x_BPD, lengths_B[:, None] - 1))[:, 0])
        self.symbols_BS.scatter_(1, lengths_B[:, None], first_B[:, None])
        self.known_B.copy_(lengths_B + 1)
        self.end_B.copy_(lengths_B + self.count)
        self.begun(x_BPD, before_BPD, positions_BP)

    def begun(self, x_BPD: Tensor, before_BPD: Tensor, positions_BP: Tensor) -> None:
        """What else a prompt leaves behind; nothing here."""

    def step(self) -> None:
        """One more symbol of each sequence that is not done."""
        positions_B1 = self.known_B[:, None] - 1
        x_B1D, _ = self.server.stream(self.symbols_BS.gather(1, positions_B1), positions_B1)
        chosen_B = self.chooser.choose(self.model.head(x_B1D)[:, 0])
        self.symbols_BS.scatter_(1, self.known_B[:, None], chosen_B[:, None])
        self.known_B.copy_(torch.minimum(self.known_B + 1, self.end_B))


class Speculative(Plain):
    """Up to 1 + K symbols a step. Raises ValueError for a model that predicts the next symbol only."""

    def __init__(self, model: Decoder, batch: int, prompt: int, count: int, chooser: Chooser | None = None) -> None:
        if not model.ahead:
            raise ValueError(f"objective {model.shape.objective} predicts the next symbol only: nothing can draft")
        self.depth, self.chained = len(model.ahead), model.shape.objective == "mtp"
        super().__init__(model, batch, prompt, count, chooser)
        server = self.server
        sizes = self.depth + 1, batch, server.slots, model.shape.hidden
        self.streams = torch.zeros(sizes, dtype=server.dtype, device=server.device)  # by depth, 0 the model's own
        self.stood_K = torch.zeros(self.depth, dtype=torch.int64, device=server.device)
        self.tried = torch.zeros((), dtype=torch.int64, device=server.device)

    def begun(self, x_BPD: Tensor, before_BPD: Tensor, positions_BP: Tensor) -> None:
        """Run the modules over the prompts and draft."""
        self.stood_K.zero_()
        self.tried.zero_()
        put_rows(self.streams[0], positions_BP, x_BPD if self.chained else before_BPD)
        for depth in range(1, self.depth + 1):
            for start, end in pieces(positions_BP.shape[1]):
                self.follow(depth, positions_BP[:, start:end])
            self.draft(depth)

    def outcome(self, symbols_BN: Tensor, steps: int) -> Outcome:
        """What `run` returns."""
        return Outcome(symbols_BN, steps, int(self.tried), tuple(self.stood_K.tolist()))

    def step(self) -> None:
        """Verify the drafts, take what stands and one more, and draft again."""
        known_B = self.known_B.clone()
        positions_BT = known_B[:, None] - 1 + self.steps_T
        given_BT = self.symbols_BS.gather(1, positions_BT)
        x_BTD, before_BTD = self.server.stream(given_BT, positions_BT)
        found_BT, accepted_B = self.chooser.verify(self.model.head(x_BTD), given_BT[:, 1:])
        self.symbols_BS.scatter_(1, positions_BT + 1, found_BT)
        self.known_B.copy_(torch.minimum(known_B + accepted_B + 1, self.end_B))
        going_B1 = (known_B < self.end_B)[:, None]
        self.stood_K.add_((going_B1 & (accepted_B[:, None] > self.steps_T[:-1])).sum(0))
        self.tried.add_(going_B1.sum())
        put_rows(self.streams[0], positions_BT, x_BTD if self.chained else before_BTD)
        for depth in range(1, self.depth + 1):
            back = depth if self.chained else 1
            window_T = torch.arange(-back, self.depth, device=known_B.device)
            self.follow(depth, (known_B[:, None] + window_T).clamp_min(0))
            self.draft(depth)

    def follow(self, depth: int, positions_BT: Tensor) -> None:
        """Run what predicts `depth` symbols after the next one at these positions."""
        x_BTD = rows_of(self.streams[depth - 1 if self.chained else 0], positions_BT)
        if self.chained:
            symbols_BT = self.symbols_BS.gather(1, positions_BT + depth)
            x_BTD = self.model.ahead[depth - 1].joined(x_BTD, self.model.embed(symbols_BT))
        put_rows(self.streams[depth], positions_BT, self.server.further[depth - 1](x_BTD, positions_BT))

    def draft(self, depth: int) -> None:
        """Draft the symbol `depth` places after the last known one, from the position before that."""
        x_B1D = rows_of(self.streams[depth], self.known_B[:, None] - 2)
        logits_BV = self.model.head(x_B1D, self.model.ahead[depth - 1].norm)[:, 0]
        drafted_B1 = self.chooser.draft(logits_BV, depth)[:, None]
        self.symbols_BS.scatter_(1, self.known_B[:, None] + (depth - 1), drafted_B1)


def rows_of(x_BSD: Tensor, positions_BT: Tensor) -> Tensor:
    """The rows [B, T, D] at each sequence's own positions."""
    return x_BSD.gather(1, positions_BT[..., None].expand(-1, -1, x_BSD.shape[-1]))


def put_rows(x_BSD: Tensor, positions_BT: Tensor, rows_BTD: Tensor) -> None:
    """Write them there."""
    x_BSD.scatter_(1, positions_BT[..., None].expand_as(rows_BTD), rows_BTD)


def captured(generation: Plain) -> Plain:
    """The same with its step replayed from a CUDA graph: one launch instead of hundreds. Needs a GPU and a model whose
    layers do not ask the host anything, such as the mixture "grouped-mm"; the choice must keep no state on the host."""
    device = generation.server.device
    first_BP = torch.zeros(generation.prompts, 1, dtype=torch.int64, device=device)
    generation.begin(first_BP, torch.ones_like(first_BP[:, 0]))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(2):
            generation.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        generation.step()
    generation.replay = graph.replay
    return generation
