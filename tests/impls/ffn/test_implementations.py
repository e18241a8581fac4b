"""Every ffn implementation that runs on a CPU against its reference, judged as the harness judges."""

from __future__ import annotations

import pytest

from harness.registry import load
from impls.ffn.shape import FfnShape, Router, TokenShape

OURS = load("impls")
HERE = [
    (name, contender)
    for name, contract in sorted(OURS.operations.items())
    for contender, one in sorted(OURS.implementations[name].items())
    if contract.study == "ffn" and contract.trial is None and not one.needs and one.kind != "compiled"
]
V3 = Router(16, 4, "sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5)
SHAPES = {
    "v3": TokenShape(FfnShape(48, 24, 1, V3, "float32"), 33),
    "v3-half": TokenShape(FfnShape(64, 32, 2, V3, "bfloat16"), 40, 1.0),
    "v2": TokenShape(FfnShape(40, 12, 2, Router(12, 3, groups=4, top_groups=2, scale=16.0), "float32"), 25, 1.0),
    "no-shared": TokenShape(FfnShape(40, 12, 0, Router(8, 2, normalise=True), "float32"), 17),
    "one-token": TokenShape(FfnShape(40, 12, 1, Router(12, 3), "float32"), 1),
    "empty-experts": TokenShape(FfnShape(80, 12, 1, Router(64, 2), "float32"), 5, 2.0),
    "one-expert": TokenShape(FfnShape(24, 12, 1, Router(1, 1), "float32"), 9),
}


@pytest.mark.parametrize(("operation", "entry"), HERE)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_matches_the_reference(operation, entry, shape, judge, registry):
    reason = registry.implementations[operation][entry].supports(shape)
    assert reason is None or (entry == "moe-coarse/grouped-mm" and "16 bytes" in reason)
    if reason is None:
        judge(operation, entry, shape)


def test_layers_have_all_techniques_and_something_to_compare_with(registry):
    for operation in ("ffn.prefill", "ffn.decode", "ffn.train"):
        known = registry.implementations[operation].values()
        assert {one.technique for one in known} == {"dense", "dense-total", "moe", "moe-coarse"}
        for technique in ("moe", "moe-coarse"):
            assert {"reference", "library", "optimized"} <= {one.kind for one in known if one.technique == technique}
    for operation in ("ffn.route", "ffn.select", "ffn.permute", "ffn.experts"):
        assert "moe/reference" in registry.implementations[operation]
