"""Models of a few thousand parameters, trained for seconds."""

from __future__ import annotations

import pytest
import torch

from impls.model.shape import small_shape
from impls.model.training import Recipe
from impls.objective.shape import GenerateShape, StepShape
from impls.objective.weights import MODEL, RECIPE

SIZES = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 16, "feed": "dense"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generate_shape() -> GenerateShape:
    """The recorded model."""
    return GenerateShape(MODEL, RECIPE, 3, 12, 16)


@pytest.fixture
def new_shape() -> GenerateShape:
    """A model that has to be trained."""
    model = small_shape(**SIZES, technique="gqa", objective="mtp")
    return GenerateShape(model, Recipe(2, batch=4, length=32, rate=1e-2, warm_up=1), 3, 12, 16)


@pytest.fixture
def step_shape() -> StepShape:
    return StepShape(small_shape(**SIZES, depth=2), 3, 100)
