"""A judge that holds an implementation to the harness' own rules."""

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


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load("impls")


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
        before, kept = digest(inputs, operation.written(inputs)), digest(weights)
        prepared = calling(one.setup(weights, shape))
        packed = prepared.pack(clone(inputs))
        for _ in range(2):
            check(operation.normal(prepared.call(packed)), truth)
            after = prepared.unpack(packed)
            check_written(operation, after, truth)
            check_unchanged(operation, after, before)
        assert digest(weights) == kept

    return judged
