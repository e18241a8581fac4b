"""The identities that both objectives must fulfil."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impls.learning import objective
from impls.learning.objective import Rule
from impls.learning.reference import updating
from impls.learning.update import Critic, losses, whole
from impls.objective.weights import model_of


def some(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_mask() -> torch.Tensor:
    """Responses of 5, 3, 1 and 4 symbols of 5."""
    return (torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]).double()


@pytest.mark.parametrize("by_deviation", [False, True])
def test_equal_rewards_of_a_group_give_no_advantage(by_deviation):
    rewards_QG = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.5, 1.0]])
    found = objective.group_advantages(rewards_QG, by_deviation)
    assert not found[0].any() and found[1, 2] > 0 > found[1, 0]
    assert float(found[1].sum()) == pytest.approx(0, abs=1e-6)
    assert objective.without_signal(rewards_QG) == 0.5


def test_advantages_by_deviation_are_the_papers():
    rewards_QG = some(3, 8)
    expected = (rewards_QG - rewards_QG.mean(1, keepdim=True)) / (rewards_QG.std(1, keepdim=True) + objective.GUARD)
    torch.testing.assert_close(objective.group_advantages(rewards_QG, True), expected)


def test_a_response_without_reward_is_left_out_of_its_group():
    rewards_QG = torch.tensor([[torch.nan, 0.0, 1.0], [torch.nan, torch.nan, torch.nan]])
    found = objective.group_advantages(rewards_QG, False)
    assert found.tolist() == [[0.0, -0.5, 0.5], [0.0, 0.0, 0.0]]
    assert objective.without_signal(rewards_QG) == 0.5


def test_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 are needed"):
        objective.group_advantages(torch.ones(4, 1), False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 0), min_size=2, max_size=20), st.integers(0, 9))
def test_k3_is_never_negative(values, seed):
    logs_BT = torch.tensor([values], dtype=torch.float64)
    away_BT = logs_BT + some(1, len(values), seed=seed)
    assert float(objective.k3(logs_BT, away_BT).min()) >= 0
    assert not objective.k3(logs_BT, logs_BT).any()


def test_k3_has_the_mean_of_the_kl():
    p, q = (some(6, seed=seed).softmax(0) for seed in (0, 1))
    estimated = (p * objective.k3(p.log(), q.log())).sum()
    torch.testing.assert_close(estimated, (p * (p.log() - q.log())).sum())


def test_at_trace_one_the_advantage_is_return_less_value():
    mask_BT, values_BT, rewards_BT = a_mask(), some(4, 5), some(4, 5, seed=1)
    values_BT, rewards_BT = values_BT * mask_BT, rewards_BT * mask_BT
    advantages_BT, returns_BT = objective.estimated_advantages(rewards_BT, values_BT, mask_BT, 1.0, 1.0)
    to_come_BT = rewards_BT.flip(1).cumsum(1).flip(1) * mask_BT
    torch.testing.assert_close(advantages_BT, (to_come_BT - values_BT) * mask_BT)
    torch.testing.assert_close(returns_BT, to_come_BT)


def test_at_trace_zero_the_advantage_is_the_surprise():
    mask_BT, values_BT, rewards_BT = a_mask(), some(4, 5) * a_mask(), some(4, 5, seed=1) * a_mask()
    advantages_BT, _ = objective.estimated_advantages(rewards_BT, values_BT, mask_BT, 0.9, 0.0)
    after_BT = torch.cat((values_BT[:, 1:], torch.zeros(4, 1, dtype=torch.float64)), 1)
    torch.testing.assert_close(advantages_BT, (rewards_BT + 0.9 * after_BT - values_BT) * mask_BT)


def test_the_verdict_is_on_the_last_symbol_and_the_kl_on_each():
    mask_BT, old_BT, reference_BT = a_mask(), some(4, 5), some(4, 5, seed=1)
    found = objective.shaped_rewards(torch.tensor([1.0, 0.5, 0.0, 1.0]), old_BT, reference_BT, mask_BT, 0.1)
    kl = -0.1 * (old_BT - reference_BT) * mask_BT
    verdicts = torch.zeros(4, 5, dtype=torch.float64)
    verdicts[[0, 1, 2, 3], [4, 2, 0, 3]] = torch.tensor([1.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(found, kl + verdicts)


def test_token_and_sequence_form_agree_on_responses_of_one_symbol_and_else_do_not():
    logs_BT, old_BT, advantages_BT = some(4, 5), some(4, 5, seed=1), some(4, 1, seed=2).expand(4, 5)
    found = {}
    for name, mask_BT in (("one", a_mask() * (torch.arange(5) < 1)), ("more", a_mask())):
        for form in objective.FORMS:
            weights_BT = objective.token_weights(mask_BT, True, form)
            loss = objective.policy_loss(logs_BT, old_BT, advantages_BT, mask_BT, weights_BT, Rule(), form)
            found[name, form] = float(loss)
    assert found["one", "token"] == pytest.approx(found["one", "sequence"])
    assert found["more", "token"] != pytest.approx(found["more", "sequence"])


def test_length_decides_what_a_token_weighs_only_where_asked():
    mask_BT = a_mask()
    own, alike = (objective.token_weights(mask_BT, by_length) for by_length in (True, False))
    torch.testing.assert_close(own.sum(1), torch.full((4,), 0.25, dtype=torch.float64))
    assert alike[mask_BT > 0].unique().tolist() == [1 / 20]


def test_clipping_acts_where_a_ratio_would_gain_by_leaving():
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    objective.clipped(ratios, advantages, 0.2).sum().backward()
    assert ratios.grad.tolist() == [0.0, -1.0, 1.0, 0.0]


def test_the_value_loss_is_the_worse_of_two():
    values, old, returns = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    ones = torch.ones(1, 2)
    found = objective.value_loss(values, old, returns, ones, ones, 0.2)
    assert float(found) == pytest.approx(0.5 * (0.8**2 + 1.0))


@pytest.mark.parametrize("technique", ["ppo", "grpo"])
def test_at_the_first_update_the_ratio_is_one_and_clipping_idle(technique, draw, registry, update_shape):
    weights, batch = draw(registry.operations["learning.update"], update_shape, technique)
    policy = model_of(weights["policy"], update_shape.model)
    logs_BN = whole(policy, batch.whole_BT, batch.at_BN, batch.symbols_BN).detach() * batch.mask_BN
    first = replace(batch, old_BN=logs_BN)
    assert float((objective.ratios(logs_BN, first.old_BN, first.mask_BN, "token") - 1).abs().max()) == 0
    rules = (replace(update_shape.rule, clip=clip) for clip in (0.01, 10.0))
    near, far = (updating(technique, "whole")(weights, replace(update_shape, rule=rule))(first) for rule in rules)
    for name, expected in far.gradients.items():
        torch.testing.assert_close(near.gradients[name], expected)
    weights_BN = objective.token_weights(batch.mask_BN, update_shape.rule.by_length)
    critic = Critic(update_shape.model) if technique == "ppo" else None
    expected = -(weights_BN * first.advantages_BN).sum()
    torch.testing.assert_close(losses(technique, update_shape.rule, whole, policy, critic, first).policy, expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"form": "word"}, "form is 'word', expected one of token, sequence"),
        ({"trace": 1.5}, "trace is 1.5, expected 0 to 1"),
        ({"clip": 0.0}, "clip is 0.0, expected more than 0"),
        ({"beta": -1.0}, "beta is -1.0"),
    ],
)
def test_settings_out_of_range_are_told(words, message):
    with pytest.raises(ValueError, match=message):
        Rule(**words)
