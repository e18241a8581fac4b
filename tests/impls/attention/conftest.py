"""Small attention shapes."""

from __future__ import annotations

import pytest

from impls.attention.shape import AttentionShape


@pytest.fixture
def model() -> AttentionShape:
    """Every size different, so that swapped axes show."""
    return AttentionShape(
        hidden=40,
        heads=6,
        kv_heads=3,
        layers=2,
        head_dim=16,
        latent=32,
        query_latent=24,
        nope_dim=12,
        rope_dim=8,
        value_dim=10,
        dtype="float32",
    )
