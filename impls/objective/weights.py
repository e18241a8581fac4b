"""Weights of whole models: drawn for a training step, trained for generation, here or in a run that is recorded.

Generation needs a model that has learnt something: drafts of random weights never stand. `recorded.safetensors` holds
one, trained by `python -m impls.objective.weights`, rounded to BF16 to be small; its metadata says from what data and
by what recipe. Any other model is trained when it is first asked for, once a process. Every record of
`objective.generate` names the digest of its weights in its layout.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..model import tensors
from ..model.corpus import Corpus, read_corpus, windows
from ..model.decoder import Decoder
from ..model.shape import ModelShape, small_shape
from ..model.training import Recipe, Training
from .shape import GenerateShape, StepShape, in_double

Weights = dict[str, Tensor]
RECORDED = Path(__file__).with_name("recorded.safetensors")
MODEL = small_shape(hidden=96, layers=3, head_dim=24, width=48, feed="dense", objective="mtp")
RECIPE = Recipe(1000, batch=8, length=96, rate=4e-3, warm_up=50)
MADE_OF, FURTHER = "made_of", "ahead."


@dataclass(frozen=True)
class Trained:
    """Weights by name, and their origin: digest of the bytes, and whether they were recorded or trained here."""

    weights: Weights
    digest: str
    origin: str

    @property
    def told(self) -> str:
        """For the record."""
        return f"weights {self.digest[:12]} ({self.origin})"


class Undrawn(TorchFunctionMode):
    """Inside the block `torch.randn` leaves memory as it is: for weights that are replaced at once, where drawing them
    would take longer than anything else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        words = dict(kwargs or {})
        if func is torch.randn:
            words.pop("generator", None)
            return torch.empty(*args, **words)
        return func(*args, **words)


@lru_cache(maxsize=1)
def corpus() -> Corpus:
    """The standard library's text, read once a process."""
    return read_corpus()


def model_of(weights: Weights, shape: ModelShape, form: str | None = None, product: str = "reference") -> Decoder:
    """A decoder on these very tensors, computing in FP64 where they are FP64; `form` and `product` as in `Decoder`."""
    shape = in_double(shape) if weights["embedding_VD"].dtype == torch.float64 else shape
    with Undrawn():
        model = Decoder(shape, form=form, product=product)
    model.load_state_dict(weights, strict=True, assign=True)
    return model


def draw_step(shape: StepShape, technique: str, generator: torch.Generator) -> Weights:
    """Random weights; those that predict the next symbol are the same for every technique."""
    model = Decoder(shape.of(technique), generator.initial_seed())
    return {name: tensor.detach().to(generator.device) for name, tensor in model.state_dict().items()}


def draw_trained(shape: GenerateShape, technique: str, generator: torch.Generator) -> Weights:
    """Trained weights; for plain decoding without what predicts further symbols."""
    found = trained(shape.model, shape.recipe, str(generator.device)).weights
    further = technique != "ntp"
    return {name: tensor.clone() for name, tensor in found.items() if further or not name.startswith(FURTHER)}


@lru_cache(maxsize=16)  # a study that composes ideas has eight models a recipe
def trained(shape: ModelShape, recipe: Recipe, device: str) -> Trained:
    """The recorded weights where they are of this model and recipe, or newly trained ones; by a recipe of no steps
    those that a training would begin with."""
    if RECORDED.is_file():
        found, metadata = tensors.load(RECORDED)
        if json.loads(metadata[MADE_OF]) == _made_of(shape, recipe):
            wide = {name: tensor.to(device, torch.float32) for name, tensor in found.items()}
            return Trained(wide, metadata[tensors.DIGEST], "recorded")
    training = Training(Decoder(shape, recipe.seed), corpus().train_N, recipe, device=device)
    for _ in range(recipe.steps):
        training.advance()
    state = {name: tensor.detach() for name, tensor in training.model.state_dict().items()}
    digest = tensors.digest_of([tensor.cpu().numpy().tobytes() for tensor in state.values()])
    return Trained(state, digest, "trained" if recipe.steps else "drawn")


def _made_of(shape: ModelShape, recipe: Recipe) -> dict[str, object]:
    made_of: dict[str, object] = json.loads(json.dumps({"shape": asdict(shape), "recipe": asdict(recipe)}))
    return made_of


def record() -> None:
    """Train `MODEL` by `RECIPE` and write it; a few minutes."""
    text = corpus()
    training = Training(Decoder(MODEL, RECIPE.seed), text.train_N, RECIPE)
    begun = time.monotonic()
    for step in range(1, RECIPE.steps + 1):
        found = training.advance()
        if step % 100 == 0:
            left = (time.monotonic() - begun) / step * (RECIPE.steps - step)
            print(f"[{step}/{RECIPE.steps}] {found.bits:.3f} bits/byte, {left:.0f} s left", file=sys.stderr, flush=True)
    rounded = {name: tensor.detach().to(torch.bfloat16) for name, tensor in training.model.state_dict().items()}
    bits = training.evaluate(windows(text.validation_N, 256, RECIPE.length))
    metadata = {
        MADE_OF: json.dumps(_made_of(MODEL, RECIPE)),
        "command": "python -m impls.objective.weights",
        "data": f"{text.label}, digest {text.digest}",
        "validation_bits": " ".join(f"{value:.4f}" for value in (bits.bits, *bits.ahead)),
        "torch": torch.__version__,
    }
    digest = tensors.save(RECORDED, rounded, metadata)
    print(
        f"{RECORDED.name}: {RECORDED.stat().st_size:,} bytes, digest {digest}, {metadata['validation_bits']} bits/byte"
    )


if __name__ == "__main__":
    record()
