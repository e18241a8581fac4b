"""Whole models made of what the studies measure as optimized or as a library's.

A step computes logits a chunk of rows at a time (`objective/chunked.py`), a prefill only those it returns, and
generation keeps caches, MLA its latents, with the model's own modules as drafters (`objective/cached.py`). Mixtures are
sorted by expert, or one grouped product on a GPU; FP8 is multiplied by whole dequantized matrices, or by a library or
our kernels on Hopper. A mixture in FP8 goes through its experts one by one, whoever multiplies, and FP8 generation is
emulated: nothing faster can be put in there yet. Wins over the references wherever logits, experts or a context are
many. Loses on tiny models, where it is the same work in other words. On a GPU a training step and a
prefill have run, and the library's FP8 product failed in one combination; generation has not, and none is recorded.
Shape suffixes: B sequences, T symbols, V symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Prepared, implementation

from ..ffn import grouped_mm
from ..linear import dequantized
from ..linear.loss_trial import KINDS
from ..model.decoder import Decoder
from ..objective import cached, chunked
from ..objective.inputs import Stepped, Windows
from ..objective.weights import Weights, model_of
from .combination import Combination, combinations
from .inputs import Prefilled, Texts
from .shape import GenerateShape, TextShape, refusing


def logits_of(state_BD: Tensor, head_VD: Tensor) -> Tensor:
    """Logits [B, V] in FP32 or wider."""
    logits_BV = F.linear(state_BD, head_VD.to(state_BD.dtype))
    return logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))


class Parts(NamedTuple):
    """What a model is made of, `form` and `product` as in `Decoder`; `word` follows the contender's name."""

    word: str
    form: str | None
    product: str
    kind: str
    needs: tuple[str, ...]

    def of(self, weights: Weights, shape: TextShape, one: Combination) -> Decoder:
        """The combination's model."""
        return model_of(weights, shape.of(one.name), self.form, self.product)


def parts(one: Combination) -> Iterator[Parts]:
    """What a combination can be made of, plain PyTorch first."""
    if one.linear == "bf16":
        yield Parts("", None, "reference", "optimized", ())
        if one.ffn == "moe":
            yield Parts(f"-{grouped_mm.NAME}", grouped_mm.NAME, "reference", "library", ("cuda",))
        return
    yield Parts("", None, dequantized.NAME, "optimized", ())
    for product, (kind, needs) in KINDS.items():
        if needs:  # with CUDA Triton is there; who names it is rehearsed without a GPU, which experts' loops forbid
            rest = tuple(need for need in needs if need != "triton")
            yield Parts(f"-{product}", None, product, kind, rest)


def stepping(one: Combination, made: Parts) -> Callable[[Weights, TextShape], Callable[[Windows], Stepped]]:
    """model.train_step of a combination."""
    form = chunked.stepping(one.objective, made.form, made.product)
    return lambda weights, shape: form(weights, shape.windows(one.name))


def prefilling(one: Combination, made: Parts) -> Callable[[Weights, TextShape], Callable[[Texts], Prefilled]]:
    """model.prefill of a combination."""

    def setup(weights: Weights, shape: TextShape) -> Callable[[Texts], Prefilled]:
        model = made.of(weights, shape, one)

        @torch.no_grad()
        def call(texts: Texts) -> Prefilled:
            streams, _ = model.streams(texts.symbols_BT)
            states = tuple(norm(x_BTD) for x_BTD, norm in zip(streams, model.norms, strict=True))
            return Prefilled(states, tuple(logits_of(state_BTD[:, -1], model.head_VD) for state_BTD in states))

        return call

    return setup


def generating(one: Combination, graph: bool = False) -> Callable[[Weights, GenerateShape], Prepared]:
    """model.generate of a combination."""
    product = dequantized.NAME if one.linear == "fp8" else "reference"
    form = cached.generating(one.objective, graph=graph, product=product)
    return lambda weights, shape: form(weights, shape.generation(one.name))


def _declare(name: str, one: Combination, setup: Any, doc: str, contender: str, made: Parts) -> None:
    setup.__doc__ = f"{doc}: {one.told}."
    words = {"kind": made.kind, "name": contender, "needs": made.needs, "supports": refusing(one.name)}
    implementation(f"model.{name}", technique=one.name, **words)(setup)


for _one in combinations():
    for _made in parts(_one):
        _who = f", {_made.word[1:]}" if _made.word else ""
        _doc = f"Forward and backward, logits a chunk of rows at a time{_who}"
        _declare("train_step", _one, stepping(_one, _made), _doc, f"chunked{_made.word}", _made)
        _doc = f"The head after the last symbol alone{_who}"
        _declare("prefill", _one, prefilling(_one, _made), _doc, f"last{_made.word}", _made)
    _made = next(parts(_one))
    _declare("generate", _one, generating(_one), "Caches for all symbols there will be", "cached", _made)
    if _one.linear == "bf16":
        _made = _made._replace(needs=("cuda",))
        _doc = "The same, each step replayed from a CUDA graph (untested)"
        _declare("generate", _one, generating(_one, graph=True), _doc, "graph", _made)
