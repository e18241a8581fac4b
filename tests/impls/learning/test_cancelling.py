"""A right update is called right whatever is drawn, though the terms of GRPO's loss nearly cancel."""

from __future__ import annotations

import pytest

from benches.bench_learning import workloads
from harness.entrant import Entrant, Side
from harness.registry import load

WORKLOAD = next(one for one in workloads(None) if one.operation == "learning.update" and "smoke" in one.tiers)


@pytest.mark.parametrize("seed", range(16))
def test_an_update_is_right_on_every_draw(seed: int) -> None:
    known = load("impls")
    operation, contender = known.operations["learning.update"], known.implementations["learning.update"]["grpo/chunked"]
    reference = known.reference(operation.name, "grpo").setup
    side = Side(operation, "grpo", reference, WORKLOAD.shape, "cpu", seed)
    entrant = Entrant(contender, side, lambda: None, graph=False)
    entrant.take(contender.setup(side.weights, side.shape))
    entrant.verify_first()
