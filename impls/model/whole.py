"""The model over whole sequences as it generates: what a generation with caches must agree with.

That is the model itself but for MLA in FP8: generation attends in the latent with up-projections in the model's dtype,
as DeepSeek-V3 is served, while training multiplies by them in FP8. `Whole` computes as generation does, from empty
caches each time. Wins by saying what must come out. Loses in time.
Shape suffixes: B sequences, T symbols, V symbols.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .decoder import Decoder, Output
from .serving import Server


class Whole:
    """A model fed all symbols at once into caches that were empty."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.ahead = model, model.ahead

    def __call__(self, symbols_BT: Tensor, further: bool = False) -> Output:
        """Logits as the decoder returns them; what routers did is left out."""
        model = self.model
        server = Server(model, *symbols_BT.shape)
        positions_BT = torch.arange(symbols_BT.shape[1], device=symbols_BT.device).expand_as(symbols_BT)
        x_BTD, before_BTD = server.stream(symbols_BT, positions_BT)
        logits_BTV, ahead = model.head(x_BTD), []
        for depth, (one, block) in enumerate(zip(model.ahead, server.further, strict=True), 1):
            if further:
                chained = model.shape.objective == "mtp"
                x_BTD = x_BTD[:, :-1] if chained else before_BTD[:, :-depth]
                x_BTD = one.joined(x_BTD, model.embed(symbols_BT[:, depth:])) if chained else x_BTD
                x_BTD = block(x_BTD, positions_BT[:, :-depth])
                ahead.append(model.head(x_BTD, one.norm))
        return Output(logits_BTV, (), tuple(ahead))


def whole(model: Decoder) -> Callable[..., Output]:
    """The model as it generates, over whole sequences."""
    return Whole(model) if model.shape.in_fp8 and model.shape.technique == "mla" else model
