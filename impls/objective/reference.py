"""Next-token and multi-token prediction by definition: whole sequences, no caches, one symbol or one draft at a time.

A step of training is the loss of the next symbol, plus, for MTP, the weighted mean of the losses of later ones, and the
gradient of the whole (`model/training.py`); the optimizer's update is not in it. Greedy generation appends the argmax;
speculative generation appends drafts, keeps those that are what would have been appended anyway, and one more symbol.
Wins by saying what must come out. Loses in time: every new symbol computes all before it again.
Shape suffixes: B sequences, T symbols, P prompt symbols, N new symbols.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness import implementation

from ..model.decoder import Decoder, Output
from ..model.training import depth_losses, further_loss, language_loss
from ..model.whole import Whole
from .inputs import Prompts, Stepped, Windows
from .shape import GenerateShape, StepShape
from .weights import Weights, model_of

OBJECTIVES = ("ntp", "mtp", "mtp-parallel")
Forward = Callable[..., Output]
Drafting = Decoder | Whole
WEIGHT = 0.3


def stepping(technique: str, form: str | None = None) -> Callable[[Weights, StepShape], Callable[[Windows], Stepped]]:
    """objective.train_step of a technique; `form` as in `Decoder`."""

    def setup(weights: Weights, shape: StepShape) -> Callable[[Windows], Stepped]:
        model = model_of(weights, shape.of(technique), form)
        names, values = zip(*model.named_parameters(), strict=True)

        def call(inputs: Windows) -> Stepped:
            with torch.enable_grad():
                output = model(inputs.given_BT[:, :-1], further=True)
                loss, further = language_loss(output, inputs.given_BT), depth_losses(output, inputs.given_BT)
                whole = loss + further_loss(output, inputs.given_BT, technique, WEIGHT)
                gradients = torch.autograd.grad(whole, values)
            losses = tuple(one.detach() for one in further)
            return Stepped(loss.detach(), losses, dict(zip(names, gradients, strict=True)))

        return call

    setup.__doc__ = f"Forward and backward, the loss of {technique}, by autograd through whole logits."
    return setup


for _technique in OBJECTIVES:
    implementation("objective.train_step", technique=_technique, kind="reference")(stepping(_technique))


class Texts:
    """Prompts and what has been appended to them; `known` symbols of each sequence count, those after it are drafts."""

    def __init__(self, prompts: Prompts, count: int, room: int) -> None:
        blank = prompts.symbols_BP.new_zeros(len(prompts.lengths_B), count + room)
        self.symbols_BT = torch.cat((prompts.symbols_BP, blank), 1)
        self.known_B, self.lengths_B = prompts.lengths_B.clone(), prompts.lengths_B
        self.end_B, self.rows_B = prompts.lengths_B + count, torch.arange(len(blank), device=blank.device)

    def head(self, more: int = 0) -> Tensor:
        """All known symbols and `more` after them; what follows shorter sequences is not seen by them."""
        return self.symbols_BT[:, : int(self.known_B.max()) + more]

    def put(self, symbol_B: Tensor, after: int = 0) -> None:
        """Write the symbol that follows the known ones and `after` more."""
        self.symbols_BT[self.rows_B, self.known_B + after] = symbol_B

    def new(self, count: int) -> Tensor:
        """The new symbols [B, N]."""
        return self.symbols_BT.gather(1, self.lengths_B[:, None] + torch.arange(count, device=self.rows_B.device))


@implementation("objective.generate", technique="ntp", kind="reference")
def plain(weights: Weights, shape: GenerateShape) -> Callable[[Prompts], Tensor]:
    """The argmax after all symbols so far, appended, again and again."""
    return plainly(model_of(weights, shape.of("ntp")), shape.count)


def plainly(model: Forward, count: int) -> Callable[[Prompts], Tensor]:
    """`count` new symbols after each prompt, one by one."""

    @torch.no_grad()
    def call(prompts: Prompts) -> Tensor:
        texts = Texts(prompts, count, 0)
        for _ in range(count):
            logits_BTV = model(texts.head()).logits_BTV
            texts.put(logits_BTV[texts.rows_B, texts.known_B - 1].argmax(-1))
            texts.known_B += 1
        return texts.new(count)

    return call


@implementation("objective.generate", technique="mtp", kind="reference")
def speculative(weights: Weights, shape: GenerateShape) -> Callable[[Prompts], Tensor]:
    """Drafts by the modules from all symbols so far, verified by one forward of all symbols and drafts."""
    return speculatively(model_of(weights, shape.of("mtp")), shape.count)


def speculatively(model: Drafting, count: int) -> Callable[[Prompts], Tensor]:
    """The same symbols, several at once where the modules' drafts stand."""
    depth = len(model.ahead)

    @torch.no_grad()
    def call(prompts: Prompts) -> Tensor:
        texts = Texts(prompts, count, depth + 1)
        right_B = model(texts.head()).logits_BTV[texts.rows_B, texts.known_B - 1].argmax(-1)
        while bool((texts.known_B < texts.end_B).any()):
            stand_B, right_B = verify(model, texts, draft(model, texts, right_B))
            texts.known_B = torch.minimum(texts.known_B + stand_B, texts.end_B)
        return texts.new(count)

    return call


def draft(model: Drafting, texts: Texts, right_B: Tensor) -> list[Tensor]:
    """Write the right next symbol and a guess of each further one; all of them, [B] each, the right one first."""
    texts.put(right_B)
    found = [right_B]
    for depth in range(1, len(model.ahead) + 1):
        logits_BTV = model(texts.head(depth), further=True).ahead[depth - 1]
        found.append(logits_BTV[texts.rows_B, texts.known_B - 1].argmax(-1))
        texts.put(found[-1], depth)
    return found


def verify(model: Drafting, texts: Texts, drafts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How many of them stand, the right one included, and the right symbol after those, int64 [B] each."""
    best_BT = model(texts.head(len(drafts))).logits_BTV.argmax(-1)
    stands_B = torch.ones_like(texts.known_B)
    count_B = stands_B.clone()
    for depth, draft_B in enumerate(drafts[1:]):
        stands_B = stands_B * (best_BT[texts.rows_B, texts.known_B + depth] == draft_B)
        count_B += stands_B
    return count_B, best_BT[texts.rows_B, texts.known_B + count_B - 1]
