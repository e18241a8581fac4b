"""What the objective operations take and return, and how inputs are drawn.

Prompts are stretches of the standard library's validation part, which training has not seen. Two symbols whose logits
differ by less than rounding may be ordered either way by right implementations, and experts be chosen either way, so
prompts on whose way a choice is closer than `model/margins.py` has it are passed over: tokens must be equal to the last
one.
Shape suffixes: B sequences, T symbols, P prompt symbols, N new symbols, V symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import margins
from ..model.choosing import Greedy
from ..model.decoder import Decoder
from ..model.generation import Plain
from ..model.whole import whole
from .shape import GenerateShape, StepShape
from .weights import corpus, model_of, trained

TRIES, CANDIDATES = 20, 64


@dataclass(frozen=True)
class Windows:
    """Symbols to train on, int64 [B, T + 1]."""

    given_BT: Tensor


@dataclass(frozen=True)
class Stepped:
    """Loss of the next symbol and of each depth in nats, FP32 scalars, and the gradients of the whole by name."""

    loss: Tensor
    further: tuple[Tensor, ...]
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Prompts:
    """Prompts int64 [B, P], of which the first `lengths` symbols count, int64 [B]."""

    symbols_BP: Tensor
    lengths_B: Tensor


_timed: dict[GenerateShape, Prompts] = {}


class Watched(Greedy):
    """The argmax, and how close the second came in each sequence."""

    def __init__(self) -> None:
        self.least_B: Tensor | None = None

    def choose(self, logits_BV: Tensor) -> Tensor:
        """The argmax."""
        best_B2 = logits_BV.topk(2).values
        gap_B = best_B2[:, 0] - best_B2[:, 1]
        self.least_B = gap_B if self.least_B is None else torch.minimum(self.least_B, gap_B)
        return logits_BV.argmax(-1)


def draw_windows(shape: StepShape, technique: str, generator: torch.Generator) -> Windows:
    """Random symbols: what they are decides neither time nor memory."""
    sizes = shape.batch, shape.length + 1
    return Windows(torch.randint(shape.model.symbols, sizes, generator=generator, device=generator.device))


def draw_prompts(shape: GenerateShape, technique: str, generator: torch.Generator) -> Prompts:
    """The same for every technique; a case's first draw, which is what is timed, is kept for `timed`.

    Raises ValueError where nothing but near ties can be found.
    """
    device = generator.device
    weights = trained(shape.model, shape.recipe, str(device)).weights
    plain = {name: tensor for name, tensor in weights.items() if not name.startswith("ahead.")}
    model = model_of(plain, shape.of("ntp"))
    text_N, rows = corpus().validation_N, max(shape.batch, CANDIDATES if _rare(shape) else 0)
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(TRIES):
        starts_B = torch.randint(len(text_N) - shape.prompt, (rows,), generator=generator, device=device)
        lengths_B = torch.randint(-(-shape.prompt // 2), shape.prompt + 1, (rows,), generator=generator, device=device)
        at_BP = starts_B.cpu()[:, None] + torch.arange(shape.prompt)
        symbols_BP = text_N[at_BP].long().to(device)
        clear_B = _clear(model, symbols_BP, lengths_B, shape.count)
        found += [(symbols_BP[row], lengths_B[row]) for row in clear_B.nonzero().flatten().tolist()]
        if len(found) >= shape.batch:
            symbols, lengths = zip(*found[: shape.batch], strict=True)
            prompts = Prompts(torch.stack(symbols), torch.stack(lengths))
            _timed.setdefault(shape, Prompts(prompts.symbols_BP.clone(), prompts.lengths_B.clone()))
            return prompts
    raise ValueError(f"of {TRIES * rows} prompts {len(found)} have no near tie, {shape.batch} are needed")


def _rare(shape: GenerateShape) -> bool:
    """Whether many prompts have to be tried for one that is clear."""
    return shape.model.in_fp8 or bool(shape.model.mixtures)


def _clear(model: Decoder, symbols_BP: Tensor, lengths_B: Tensor, count: int) -> Tensor:
    """Whether all choices on the way of a prompt and its `count` new symbols are clear of roundings, bool [B]."""
    of_logits, of_scores = margins.LEAST[model.shape.in_fp8]
    watched = Watched()
    generation = Plain(model, *symbols_BP.shape, count, watched)
    generation.run(symbols_BP, lengths_B)
    assert watched.least_B is not None
    clear_B = watched.least_B > of_logits
    if model.mixtures:
        texts_BT = generation.symbols_BS[:, : symbols_BP.shape[1] + count]
        clear_B &= margins.of_routers(model, whole(model), texts_BT, lengths_B + count - 1) > of_scores
    return clear_B


def timed(shape: GenerateShape) -> Prompts:
    """The first prompts drawn for a shape in this process, or prompts of seed 0 where none were."""
    if shape not in _timed:
        draw_prompts(shape, "ntp", torch.Generator().manual_seed(0))
    return _timed[shape]
