"""Models of some ten thousand parameters with four experts, as in the smoke tier."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from impls.composed.shape import GenerateShape, TextShape
from impls.ffn.shape import Router
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe

ROUTER = Router(4, 2, score="sigmoid", groups=2, top_groups=1, normalise=True)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def narrow(**more) -> ModelShape:
    return small_shape(**{"hidden": 32, "layers": 2, "head_dim": 8, "width": 16, "router": ROUTER, **more})


@pytest.fixture
def model() -> ModelShape:
    return narrow()


@pytest.fixture
def text_of(model) -> Callable[..., TextShape]:
    """Eight sequences of eight symbols for the combinations that are named, limits as tight as they allow."""

    def made(*names: str, batch: int = 8, length: int = 8, model: ModelShape = model) -> TextShape:
        return TextShape(model, names, batch, length)

    return made


@pytest.fixture
def generate_of(model) -> Callable[..., GenerateShape]:
    """Two prompts of up to eight symbols, five new ones, by models as drawn, whose symbols vary."""
    recipe = Recipe(0, batch=4, length=32)

    def made(*names: str, batch: int = 2, prompt: int = 8, count: int = 5) -> GenerateShape:
        return GenerateShape(model, names, recipe, batch, prompt, count)

    return made


@pytest.fixture
def narrow_of() -> Callable[..., ModelShape]:
    return narrow
