"""The shortened ladder: who climbs, that all see the same, and what is told at the end."""

from __future__ import annotations

import pytest
import torch

from impls.composed.combination import FEW, Combination
from impls.composed.ladder_trial import METRICS, NAME
from impls.composed.shape import LadderShape
from impls.model.course import draw_text
from impls.model.shape import parameters
from impls.model.training import Recipe


@pytest.fixture
def shape(model):
    recipe = Recipe(12, batch=2, length=16, rate=1e-2, warm_up=2)
    return LadderShape(model, FEW, recipe, 8, 3, ("dequantized",))


def test_each_contender_takes_part_once_or_says_why(registry, shape):
    able = {}
    for one in registry.implementations[NAME].values():
        if one.kind == "compiled" or one.needs:
            continue
        able[one.contender] = one.supports(shape)
    assert {name for name, reason in able.items() if reason is None} == {
        f"{name}/{'dequantized' if 'fp8' in name else 'reference'}" for name in FEW
    }
    assert able["mla-moe-fp8-mtp/reference"] == "here FP8 is multiplied by dequantized"
    assert able["mla-moe-bf16-ntp/reference"].endswith("see make ladder")


def test_a_climb(registry, shape):
    """Losses fall, models without FP8 or another block begin where the plainest does, and figures are declared."""
    known, first, figures = registry.implementations[NAME], {}, {}
    for name in FEW:
        contender = known[f"{name}/{'dequantized' if 'fp8' in name else 'reference'}"]
        course = contender.setup(draw_text(shape, name, torch.Generator()), shape)
        losses = []
        for _ in range(shape.recipe.steps):
            losses.append(course.advance())
            course.note()
        assert losses[-1] < losses[0]
        first[name], figures[name] = losses[0], course.figures()
        assert set(figures[name]) <= {metric.name for metric in METRICS}
        assert ("acceptance" in figures[name]) == (Combination.named(name).objective == "mtp")
        assert course.series()["step"] == [1.0, 6.0, 12.0]
        assert figures[name]["model_parameters"] == parameters(shape.of(name))
    assert first["mha-dense-bf16-mtp"] == first["mha-dense-bf16-ntp"]
    assert first["mha-dense-fp8-ntp"] != first["mha-dense-bf16-ntp"]
    assert len({figures[name]["validation_bits"] for name in FEW}) == 6
