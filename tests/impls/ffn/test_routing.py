"""Routing: groups, masks, gates and order, by what must hold for any scores; and the hidden states that ask for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impls.ffn import inputs
from impls.ffn.routing import by_expert, choose, gates, route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.weights import RouterWeights, router_weights

RULES = {
    "v1": Router(16, 4),
    "v2": Router(16, 4, groups=4, top_groups=2, scale=16.0),
    "v3": Router(16, 4, "sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5),
    "mixtral": Router(8, 2, normalise=True),
    "everyone": Router(4, 4),
    "one": Router(5, 1),
    "large": Router(256, 8, "sigmoid", groups=8, top_groups=4, normalise=True, scale=2.5),
}


@st.composite
def rules(draw) -> Router:
    groups, size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    top_groups = draw(st.integers(1, groups))
    top_k = draw(st.integers(1, top_groups * size))
    score = draw(st.sampled_from(["softmax", "sigmoid"]))
    return Router(groups * size, top_k, score, groups, top_groups, draw(st.booleans()), draw(st.floats(0.5, 16.0)))


@settings(max_examples=60, deadline=None)
@given(rules(), st.integers(0, 2**31), st.booleans())
def test_a_choice_is_the_best_of_the_best_groups(rule, seed, negative):
    generator = torch.Generator().manual_seed(seed)
    s_ME = torch.rand(7, rule.experts, generator=generator)
    bias_E = torch.rand(rule.experts, generator=generator) - (3.0 if negative else 0.5)
    chosen_MK = choose(s_ME, bias_E, rule)
    assert all(len(set(row.tolist())) == rule.top_k for row in chosen_MK)
    size, best = rule.experts // rule.groups, 2 if rule.score == "sigmoid" else 1
    for score, chosen in zip((s_ME + bias_E).tolist(), chosen_MK.tolist(), strict=True):
        by_group = [score[g * size : (g + 1) * size] for g in range(rule.groups)]
        rank = sorted(range(rule.groups), key=lambda g: -sum(sorted(by_group[g])[::-1][:best]))
        allowed = [e for g in rank[: rule.top_groups] for e in range(g * size, (g + 1) * size)]
        assert set(chosen) == set(sorted(allowed, key=lambda e: -score[e])[: rule.top_k])
        assert len({e // size for e in chosen}) <= rule.top_groups


def test_experts_of_other_groups_lose_to_negative_scores():
    rule = Router(4, 2, "sigmoid", groups=2, top_groups=1)
    s_ME, bias_E = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.full((4,), -1.0)
    assert sorted(choose(s_ME, bias_E, rule)[0].tolist()) == [0, 1]


@settings(max_examples=40, deadline=None)
@given(rules(), st.integers(0, 2**31))
def test_gates_are_unbiased_scores_and_add_up_where_normalised(rule, seed):
    generator = torch.Generator().manual_seed(seed)
    s_ME = 0.1 + torch.rand(5, rule.experts, generator=generator)
    chosen_MK = choose(s_ME, torch.rand(rule.experts, generator=generator), rule)
    g_MK = gates(s_ME, chosen_MK, rule)
    s_MK = s_ME.gather(1, chosen_MK)
    total_M1 = s_MK.sum(-1, keepdim=True) if rule.normalise else torch.ones(5, 1)
    assert torch.allclose(g_MK, s_MK / total_M1 * rule.scale)


def test_the_choice_has_no_gradient_and_the_gate_has():
    rule = RULES["v3"]
    matrix_ED = torch.randn(16, 32, requires_grad=True)
    routed = route(torch.randn(6, 32), RouterWeights(rule, matrix_ED, torch.zeros(16)))
    assert not routed.experts_MK.requires_grad
    (grad_ED,) = torch.autograd.grad(routed.gates_MK.square().sum(), matrix_ED)
    assert grad_ED.abs().sum() > 0


@given(st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=1, max_size=20))
def test_pairs_are_sorted_by_expert_then_token(experts):
    experts_MK = torch.tensor(experts)
    order = by_expert(experts_MK, 9)
    rows = [(int(experts_MK.flatten()[p]), int(p) // 3) for p in order.pair_P]
    assert rows == sorted(rows) and sorted(order.pair_P.tolist()) == list(range(experts_MK.numel()))
    assert order.ends_E.tolist() == [sum(e <= last for e, _ in rows) for last in range(9)]
    assert order.ends_E.dtype == torch.int32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("skew", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_drawn_hidden_states_go_where_the_workload_asks(rule, skew, dtype):
    shape = TokenShape(FfnShape(300, 24, 1, rule, dtype), 100, skew)
    router = router_weights(shape.model)
    given_ = [inputs.draw_tokens(shape, "moe", torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    for one in given_:
        assert torch.isfinite(one.x_MD).all() and 0.5 < float(one.x_MD.float().std()) < 3
        chosen = route(one.x_MD, router).experts_MK
        assert torch.equal(chosen.flatten().bincount(minlength=rule.experts), inputs.loads(shape, "moe"))
        wider = route(one.x_MD.double(), router).experts_MK
        assert torch.equal(chosen.sort().values, wider.sort().values)
    if 1 < rule.top_k < rule.experts:
        first, second = (route(one.x_MD, router).experts_MK.sort().values for one in given_)
        assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["v2", "v3", "large"])
def test_ignoring_the_bias_or_the_groups_is_seen(name):
    shape = TokenShape(FfnShape(300, 24, 1, RULES[name]), 200)
    router = router_weights(shape.model)
    x_MD = inputs.draw_tokens(shape, "moe", torch.Generator().manual_seed(0)).x_MD
    right = route(x_MD, router).experts_MK.sort().values
    free = replace(router.rule, groups=1, top_groups=1)
    others = {"groups": RouterWeights(free, router.matrix_ED, router.bias_E)}
    if router.bias_E is not None:
        others["bias"] = RouterWeights(router.rule, router.matrix_ED, None)
    for what, other in others.items():
        wrong = route(x_MD, other).experts_MK.sort().values
        assert (right != wrong).any(1).float().mean() > 0.2, what


def test_skew_is_skew():
    rule = RULES["large"]
    flat, zipf = (
        inputs.loads(TokenShape(FfnShape(300, 8, 0, rule), 4096, skew), "moe").double() for skew in (0.0, 1.0)
    )
    assert flat.sum() == zipf.sum() == 4096 * 8
    assert flat.max() / flat.mean() < 1.6 < 5 < zipf.max() / zipf.mean()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"experts": 8, "top_k": 9}, "top_k is 9"),
        ({"experts": 8, "top_k": 0}, "top_k is 0"),
        ({"experts": 8, "top_k": 2, "groups": 3}, "groups is 3"),
        ({"experts": 8, "top_k": 2, "groups": 4, "top_groups": 5}, "top_groups is 5"),
        ({"experts": 8, "top_k": 5, "groups": 4, "top_groups": 2}, "top_k is 5"),
        ({"experts": 8, "top_k": 2, "score": "tanh"}, "score is 'tanh'"),
    ],
)
def test_impossible_routers_name_the_value(fields, said):
    with pytest.raises(ValueError, match=said):
        Router(**fields)


def test_slices_and_coarse_mixtures():
    v3 = FfnShape(7168, 2048, 1, RULES["large"])
    local = v3.sliced(8)
    assert (local.router.experts, local.router.top_k, local.router.groups) == (32, 8, 1)
    assert v3.sliced(1, 4).width == 512 and v3.sliced(1, 4).router == v3.router
    with pytest.raises(ValueError, match="7 ranks"):
        v3.sliced(7)
    with pytest.raises(ValueError, match="cut in 3"):
        v3.sliced(1, 3)
    coarse = v3.coarse()
    assert coarse.router.top_k == 2 and 2 * coarse.width == 9 * 2048
    assert abs(coarse.router.experts * coarse.width / (257 * 2048) - 1) < 0.01
