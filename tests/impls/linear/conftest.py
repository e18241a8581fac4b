"""A seeded generator for what is drawn."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def draw_generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
