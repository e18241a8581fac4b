"""Models of a few thousand parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.learning.objective import Rule
from impls.learning.shape import RolloutShape, UpdateShape
from impls.learning.tasks import Task
from impls.model.shape import ModelShape, small_shape


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> ModelShape:
    return replace(small_shape(hidden=32, layers=2, head_dim=8, width=8, technique="mha", feed="dense"), symbols=128)


@pytest.fixture
def rollout_shape(model) -> RolloutShape:
    return RolloutShape(model, Task("addition", 2), 3, 4, 6)


@pytest.fixture
def update_shape(model) -> UpdateShape:
    return UpdateShape(model, Task("addition", 2), 3, 4, 6, Rule(beta=0.05))
