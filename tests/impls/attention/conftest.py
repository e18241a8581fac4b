"""Small attention shapes, and a judge that holds an implementation to the harness' own rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness import Operation
from harness.registry import Registry, load
from harness.tree import clone
from harness.verify import (
    calling,
    check,
    check_unchanged,
    check_written,
    compute_truth,
    digest,
    poison_written,
)
from impls.attention.shape import AttentionShape


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load("impls")


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


def drawn(operation: Operation, shape: Any, technique: str, seed: int = 0) -> tuple[Any, Any]:
    """Weights and inputs of one seed."""
    weights = operation.weights(shape, technique, torch.Generator().manual_seed(seed))
    return weights, operation.inputs(shape, technique, torch.Generator().manual_seed(seed + 1))


@pytest.fixture
def draw() -> Callable[..., tuple[Any, Any]]:
    return drawn


@pytest.fixture
def judge(registry: Registry) -> Callable[[str, str, Any], None]:
    """Verify one contender as the harness does: result, what it wrote, what it left alone, and a second call."""

    def judged(name: str, contender: str, shape: Any) -> None:
        operation, one = registry.operations[name], registry.implementations[name][contender]
        weights, inputs = drawn(operation, shape, one.technique)
        poison_written(operation, inputs)
        reference = registry.reference(name, one.technique)
        truth = compute_truth(operation, reference.setup, weights, inputs, shape, "cpu")
        before, kept = digest(operation, inputs), clone(weights)
        prepared = calling(one.setup(weights, shape))
        packed = prepared.pack(clone(inputs))
        for _ in range(2):
            check(prepared.call(packed), truth)
            after = prepared.unpack(packed)
            check_written(operation, after, truth)
            check_unchanged(operation, after, before)
        torch.testing.assert_close(vars(weights) if weights else {}, vars(kept) if kept else {}, rtol=0, atol=0)

    return judged
