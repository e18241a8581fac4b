"""Generation with caches: plain, and with the model's own modules as drafters (`model/generation.py`).

"refused" is no way to serve: it drafts and verifies like "cached" and then keeps no draft. Its tokens are right, and
its time over that of plain decoding is 1 + c, the cost of a speculative step, measured in the same rounds; so (1 + p) /
(1 + c) stands beside the speed-up that was measured. In a batch the slowest sequence decides, so there 1 + p is the
plain steps over `generation_steps`. "graph" replays each step from a CUDA graph, plain and speculative
alike. Wins with a small batch, where reading the weights is what a step costs.
Loses where it is arithmetic: on a CPU K + 1 symbols cost nearly K + 1 times one.
Shape suffixes: B sequences, N new symbols, T symbols of a step, K drafts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from harness import Prepared, implementation

from ..model.choosing import Chooser, Greedy
from ..model.generation import Outcome, Plain, Speculative, captured
from .inputs import timed
from .shape import GenerateShape
from .weights import Weights, draw_trained, model_of, trained

MIXTURE = "grouped-mm"  # asks the host nothing, so that a step can be captured


class Refusing(Greedy):
    """The argmax, whatever was drafted."""

    def verify(self, logits_BTV: Tensor, drafts_BK: Tensor) -> tuple[Tensor, Tensor]:
        """No draft stands."""
        best_BT, accepted_B = super().verify(logits_BTV, drafts_BK)
        return best_BT, accepted_B * 0


def generating(
    technique: str, chooser: type[Chooser] = Greedy, graph: bool = False, product: str = "reference"
) -> Callable[[Weights, GenerateShape], Prepared]:
    """objective.generate by the generation of a technique; `product` as in `Decoder`."""

    def setup(weights: Weights, shape: GenerateShape) -> Prepared:
        model = model_of(weights, shape.of(technique), MIXTURE if graph else None, product)
        kind = Speculative if technique == "mtp" else Plain
        generation = kind(model, shape.batch, shape.prompt, shape.count, chooser())
        generation = captured(generation) if graph else generation
        origin = trained(shape.model, shape.recipe, str(generation.server.device)).told
        layout = f"caches of {generation.server.slots} slots a sequence; {origin}"
        return Prepared(lambda inputs: generation.run(inputs.symbols_BP, inputs.lengths_B).symbols_BN, layout=layout)

    what = "the modules draft" if technique == "mtp" else "one symbol a step"
    setup.__doc__ = f"Caches for all symbols there will be; {what}{', from a CUDA graph' if graph else ''}."
    return setup


@lru_cache(maxsize=8)
def speculation(shape: GenerateShape) -> Outcome:
    """How drafts fare on the prompts that are timed."""
    prompts = timed(shape)
    generator = torch.Generator(device=prompts.lengths_B.device)
    model = model_of(draw_trained(shape, "mtp", generator), shape.of("mtp"))
    return Speculative(model, shape.batch, shape.prompt, shape.count).run(prompts.symbols_BP, prompts.lengths_B)


for _graph in (False, True):
    _needs = ("cuda",) if _graph else ()
    for _technique, _name, _chooser in (
        ("ntp", "cached", Greedy),
        ("mtp", "cached", Greedy),
        ("mtp", "refused", Refusing),
    ):
        _word = {"cached": "graph", "refused": "refused-graph"}[_name] if _graph else _name
        implementation("objective.generate", technique=_technique, kind="optimized", name=_word, needs=_needs)(
            generating(_technique, _chooser, _graph)
        )
