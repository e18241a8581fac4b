"""The course as a trial: it rises, its figures are declared, and PPO's memory is read beside GRPO's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benches.bench_learning import workloads
from impls.learning.learner import PARTS
from impls.learning.shape import TECHNIQUES
from impls.learning.trial import ARMS, METRICS, NAME


@pytest.fixture
def shape():
    (found,) = (one.shape for one in workloads(None) if one.operation == NAME and "smoke" in one.tiers)
    return found


def taken(registry, shape, technique, steps=None, name="optimized"):
    start = registry.operations[NAME].weights(shape, technique, torch.Generator())
    course = registry.implementations[NAME][f"{technique}/{name}"].setup(start, shape)
    rewards = []
    for _ in range(steps or shape.recipe.steps):
        rewards.append(course.advance())
        course.note()
    return course, rewards


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_rewards_rise_and_figures_are_declared(technique, registry, shape):
    course, rewards = taken(registry, shape, technique)
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.1
    found, known = course.figures(), {metric.name for metric in METRICS}
    assert found.keys() == known
    assert course.series()["step"] == [1, 7, 13, 20]
    assert (found["critic_bytes"] > 0) == (technique == "ppo") and found["faults"] == 0
    assert found["owned_bytes"] == pytest.approx(found["arithmetic_bytes"], rel=0.02)
    assert all(found[f"{part}_time"] > 0 for part in PARTS)
    assert found["accuracy"] == course.series()["accuracy"][-1]


def test_all_contenders_begin_alike(registry, shape):
    first = {
        one: taken(registry, shape, *one.split("/")[:1], steps=1, name=one.split("/")[1])[1][0]
        for one, made in registry.implementations[NAME].items()
        if made.kind != "compiled"
    }
    assert len(first) == 4 and len(set(first.values())) == 1


def test_arms_differ_from_each_other_in_their_rule(shape):
    found = {(arm.technique, arm.of(shape).rule) for arm in ARMS.values()}
    assert len(found) == len(ARMS)
    assert {arm.of(shape).recipe for arm in ARMS.values()} == {shape.recipe}
    assert [ARMS[name].of(shape).rule.trace for name in ("lambda-1", "lambda-0.95")] == [1.0, 0.95]
    assert replace(ARMS["sequence"].of(shape).rule, form="token") == ARMS["normalised"].of(shape).rule
