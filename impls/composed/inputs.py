"""What the operations on whole models take and return, and how weights and inputs are drawn.

Weights of a step and of a prefill are those of one seed in every run, for inputs must suit them: sequences in which a
router of the technique's model chooses by less than `model/margins.py` has it are passed over, where the model computes
in FP32 or wider. In 16 bits they are not, and a mixture's limits are then as wide as the experts that turn make them.
Generation takes weights and prompts from the objective study.
Shape suffixes: B sequences, T symbols, D hidden, V symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import margins
from ..model.decoder import Decoder
from ..objective import inputs as objective
from ..objective.inputs import Prompts, Windows
from ..objective.weights import Weights, draw_trained, model_of
from .combination import Combination
from .shape import GenerateShape, TextShape

SEED = 0
TRIES, CANDIDATES = 40, 128


@dataclass(frozen=True)
class Texts:
    """Symbols to prefill, int64 [B, T]."""

    symbols_BT: Tensor


@dataclass(frozen=True)
class Prefilled:
    """The model's states [B, T, D] before the head, then those of each module k, [B, T - k, D], in the dtype computed
    in; and the logits of the last position of each, FP32 [B, V]."""

    states: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]


def draw_weights(shape: TextShape, technique: str, generator: torch.Generator) -> Weights:
    """Random weights in FP32."""
    model = Decoder(shape.of(technique), SEED)
    return {name: tensor.detach().to(generator.device) for name, tensor in model.state_dict().items()}


def draw_windows(shape: TextShape, technique: str, generator: torch.Generator) -> Windows:
    """Random symbols, one more than a step is fed."""
    return Windows(_clear(shape, technique, generator, shape.length + 1))


def draw_texts(shape: TextShape, technique: str, generator: torch.Generator) -> Texts:
    """Random symbols."""
    return Texts(_clear(shape, technique, generator, shape.length))


def _clear(shape: TextShape, technique: str, generator: torch.Generator, length: int) -> Tensor:
    """Random sequences int64 [B, length] whose first `shape.length` symbols no router is near a tie at.

    Raises ValueError where too few can be found.
    """
    model_shape, device = shape.of(technique), generator.device
    rows = max(shape.batch, CANDIDATES) if model_shape.in_fp8 else shape.batch
    model, found = None, 0
    if margins.watches(model_shape) and model_shape.mixtures:
        model = model_of(draw_weights(shape, technique, generator), model_shape)
    kept: list[Tensor] = []
    for _ in range(TRIES):
        symbols_BT = torch.randint(model_shape.symbols, (rows, length), generator=generator, device=device)
        if model is not None:
            fed_BT = symbols_BT[:, : shape.length]
            least_B = margins.of_routers(model, model.streams, fed_BT, torch.full((rows,), shape.length, device=device))
            symbols_BT = symbols_BT[least_B > margins.LEAST[model_shape.in_fp8][1]]
        kept, found = [*kept, symbols_BT], found + len(symbols_BT)
        if found >= shape.batch:
            return torch.cat(kept)[: shape.batch].clone()
    raise ValueError(
        f"of {TRIES * rows} sequences of {shape.length} symbols {found} have routers clear of a tie, "
        f"{shape.batch} are needed"
    )


def draw_trained_weights(shape: GenerateShape, technique: str, generator: torch.Generator) -> Weights:
    """Of the technique's model, trained; without what predicts further symbols for "ntp"."""
    return draw_trained(shape.generation(technique), Combination.named(technique).objective, generator)


def draw_prompts(shape: GenerateShape, technique: str, generator: torch.Generator) -> Prompts:
    """Stretches of text on whose way no choice of the technique's model is near a tie, with MTP and without."""
    return objective.draw_prompts(shape.generation(technique), Combination.named(technique).objective, generator)
