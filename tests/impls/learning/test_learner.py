"""Learning step by step: two ways that agree, resuming, faults, memory by owner, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from impls.learning import memory
from impls.learning.learner import DEAF, Learner
from impls.learning.objective import Rule
from impls.learning.rollout import decoded
from impls.learning.shape import Recipe, StepShape
from impls.learning.start import solutions, start_of
from impls.learning.tasks import Task, reward_by_rule
from impls.learning.verdicts import Judge
from impls.model import checkpoint

RULE = Rule(beta=0.01, by_length=True, by_deviation=True)


@pytest.fixture
def shape(model) -> StepShape:
    recipe = Recipe(6, questions=6, group=4, count=5, rate=3e-3, warm_up=2, minibatches=2)
    return StepShape(model, Task("reversal", 3), RULE, recipe, enough=0.02, validation=20)


def begun(shape, technique, form="optimized", judge=None) -> Learner:
    weights = {name: one.clone() for name, one in start_of(shape, "cpu").weights.items()}
    return Learner(weights, shape, technique, form, judge)


def learnt(learner, steps):
    for _ in range(steps):
        learner.advance()
    return {name: one.clone() for name, one in learner.policy.state_dict().items()}


@pytest.mark.parametrize("technique", ["ppo", "grpo"])
@pytest.mark.parametrize("micro", [0, 5])
def test_the_optimized_step_is_the_reference_one(technique, micro, shape):
    """Gradients a few responses at a time too: a minibatch's mean is that of its parts."""
    found = {}
    for form, size in (("reference", 0), ("optimized", micro)):
        found[form] = learnt(begun(replace(shape, recipe=replace(shape.recipe, micro=size)), technique, form), 2)
    start = start_of(shape, "cpu").weights
    for name, expected in found["reference"].items():
        torch.testing.assert_close(found["optimized"][name], expected, rtol=1e-3, atol=1e-4)
    assert any(float((found["optimized"][name] - start[name]).abs().max()) > 1e-3 for name in start)


@pytest.mark.parametrize("technique", ["ppo", "grpo"])
def test_a_learner_goes_on_from_a_checkpoint_to_the_same_curve(technique, shape, tmp_path):
    problems = shape.task.validation(20)
    whole, first = (begun(shape, technique) for _ in range(2))
    for learner, steps in ((whole, 5), (first, 3)):
        learnt(learner, steps)
    path = tmp_path / f"one{checkpoint.SUFFIX}"
    checkpoint.save(path, first.state())
    again = begun(shape, technique)
    again.restore(checkpoint.load(path))
    assert again.done == 3 and learnt(again, 2).keys() == whole.policy.state_dict().keys()
    for one in (whole, again):
        one.note(one.evaluate(problems))
    timed = {"seconds", "rollout_seconds", "reward_seconds", "update_seconds"}
    for name in whole.curves.keys() - timed:
        assert whole.curves[name] == again.curves[name], name
    assert all(torch.equal(one, again.policy.state_dict()[name]) for name, one in whole.policy.state_dict().items())


def test_a_checkpoint_of_something_else_is_refused(shape):
    state = begun(shape, "grpo").state()
    with pytest.raises(ValueError, match="made with another technique"):
        begun(shape, "ppo").restore(state)
    with pytest.raises(ValueError, match="it has no models"):
        begun(shape, "grpo").restore({key: value for key, value in state.items() if key != "models"})


def test_bytes_by_owner_are_those_of_the_arithmetic(shape):
    ppo, grpo = (begun(shape, technique) for technique in ("ppo", "grpo"))
    for learner in (ppo, grpo):
        learner.advance()
    policy = sum(one.numel() for one in ppo.policy.parameters())
    critic = sum(one.numel() for one in ppo.critic.parameters())
    for learner in (ppo, grpo):
        parameters, gradients, optimizer = learner.owned["policy"]
        assert parameters == gradients == 4 * policy and optimizer == pytest.approx(8 * policy, rel=0.01)
        assert learner.owned["reference"] == (4 * policy, 0, 0)
    assert grpo.owned["critic"] == (0, 0, 0) and ppo.owned["critic"][:2] == (4 * critic, 4 * critic)
    held = sum(sum(kinds) for kinds in grpo.owned.values())
    assert held == pytest.approx(memory.by_arithmetic(policy, policy, 4), rel=0.01)
    assert memory.by_arithmetic(2, 1) == 34 and memory.by_arithmetic(1, 1) == 18
    assert all(one.grad is None for one in grpo.policy.parameters())


def test_without_a_kl_there_is_no_reference(shape):
    learner = begun(replace(shape, rule=replace(RULE, beta=0.0)), "grpo")
    learner.advance()
    assert learner.reference is None and learner.owned["reference"] == (0, 0, 0)


def test_the_reference_is_frozen_until_it_is_renewed(shape):
    learner = begun(replace(shape, recipe=replace(shape.recipe, renewed=2)), "grpo")
    start = start_of(shape, "cpu").weights["head_VD"]
    learner.advance()
    assert torch.equal(learner.reference.head_VD, start) and not torch.equal(learner.policy.head_VD, start)
    learner.advance()
    assert torch.equal(learner.reference.head_VD, learner.policy.head_VD)


@pytest.mark.parametrize("technique", ["ppo", "grpo"])
def test_a_reward_that_sometimes_fails_costs_those_responses(technique, shape):
    calls = []

    def reward(problem, response):
        calls.append(1)
        if len(calls) % 5 == 0:
            raise RuntimeError("broken")
        return math.nan if len(calls) % 7 == 0 else reward_by_rule(problem, response)

    learner = begun(shape, technique, judge=Judge(reward))
    steps = [learner.advance() for _ in range(2)]
    assert sum(step.faults for step in steps) == learner.judge.faults.count > 10
    assert "its reward raised RuntimeError: broken" in learner.judge.faults.first
    assert all(one.isfinite().all() for one in learner.policy.state_dict().values())


def test_a_reward_that_always_fails_ends_the_course_with_the_reason(shape):
    learner = begun(shape, "grpo", judge=Judge(lambda problem, response: math.nan))
    for _ in range(DEAF - 1):
        learner.advance()
    with pytest.raises(ValueError, match=f"step {DEAF - 1}: {DEAF} steps without any reward; problem .* reward is nan"):
        learner.advance()


def test_a_prompt_that_the_context_has_no_room_for_is_marked(shape):
    learner = begun(shape, "grpo")
    recipe = replace(shape.recipe, count=5, context=10, questions=12)
    learner.shape = shape = replace(shape, task=Task("addition", 2), recipe=recipe)
    long = sum(len(one.prompt) > 5 for one in shape.task.draw(12, f"{shape.recipe.seed}:0"))
    step = learner.advance()
    assert 0 < step.faults == 4 * long < 48
    assert "its prompt has 6 symbols, there is room for 5" in learner.judge.faults.first


def test_several_updates_of_a_rollout_leave_the_ratio_of_one(shape):
    once, often = begun(shape, "grpo"), begun(shape, "grpo")
    once.shape = replace(shape, recipe=replace(shape.recipe, minibatches=1))
    often.shape = replace(shape, recipe=replace(shape.recipe, epochs=4, rate=3e-2, warm_up=0))
    assert once.advance().clipped == 0.0 < often.advance().clipped


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"group": 0}, "group is 0, expected at least 1"),
        ({"minibatches": 25}, "25 minibatches of 24 responses"),
        ({"context": 5}, "context is 5: it has no room for a prompt before 5 symbols"),
    ],
)
def test_recipes_that_do_not_fit_are_told(words, message, shape):
    with pytest.raises(ValueError, match=message):
        replace(shape.recipe, **words)


def test_a_group_of_one_is_told_before_anything_is_learnt(shape):
    with pytest.raises(ValueError, match="at least 2 are needed"):
        begun(replace(shape, recipe=replace(shape.recipe, group=1, minibatches=1)), "grpo")
    begun(replace(shape, recipe=replace(shape.recipe, group=1, minibatches=1)), "ppo").advance()


def test_a_start_hits_the_format_and_hardly_knows_the_answers(shape):
    found = start_of(shape, "cpu")
    learner = begun(shape, "grpo")
    measured = learner.evaluate(shape.task.validation(400))
    assert measured.correct == found.accuracy <= 0.3 and measured.formatted > 0.05 and found.steps > 0
    assert f"{found.steps} steps of supervised training" in found.told


def test_a_cold_start_is_shown_work_before_answers(shape):
    problems = shape.task.draw(4, "a")
    for worked, begins in ((True, "("), (False, "[")):
        whole_BT, lengths_B, symbols_BN = solutions(problems, shape.task, 12, worked)
        for problem, row, length, text in zip(problems, whole_BT, lengths_B, decoded(symbols_BN), strict=True):
            assert text == problem.solution(worked) and text.startswith(begins)
            assert bytes(row.tolist()).rstrip(b"\0").decode() == problem.prompt + text
            assert length == len(problem.prompt)


def test_the_rate_rises_then_falls_evenly():
    recipe = Recipe(100, rate=1.0, warm_up=10, last=0.2)
    assert recipe.rate_at(0) == pytest.approx(0.1) and recipe.rate_at(50) == pytest.approx(0.6)
    assert recipe.rate_at(99) == pytest.approx(0.208) and replace(recipe, last=1.0).rate_at(99) == 1.0


def test_an_unknown_start_is_told(shape):
    with pytest.raises(ValueError, match="start is 'warm', expected one of zero, cold-start"):
        start_of(replace(shape, start="warm"), "cpu")
