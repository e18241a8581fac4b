"""A tiny model and a tiny corpus: seconds on one core."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from impls.ffn.shape import Router
from impls.model.balancing import Balancing
from impls.model.decoder import Decoder
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe, Training

TEXT = b"def f(x):\n    return x + 1\n\n\nclass C:\n    value = 2\n\n" * 200


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on two busy cores spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> ModelShape:
    rule = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True)
    return small_shape(hidden=32, layers=3, head_dim=8, width=16, router=rule)


@pytest.fixture
def text_N() -> torch.Tensor:
    return torch.frombuffer(bytearray(TEXT), dtype=torch.uint8)


@pytest.fixture
def train(tiny, text_N) -> Callable[..., Training]:
    """A training of the tiny model, 12 steps of 4 x 32 bytes."""

    def made(balancing: Balancing | None = None, **more) -> Training:
        recipe = Recipe(**{"steps": 12, "batch": 4, "length": 32, "rate": 1e-2, "warm_up": 3, **more})
        return Training(Decoder(tiny, seed=1), text_N, recipe, balancing)

    return made
