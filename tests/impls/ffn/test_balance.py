"""Balancing from identities: alpha at perfect balance, a known value at collapse, a bias that evens loads out."""

from __future__ import annotations

import pytest
import torch

from impls.ffn import balance
from impls.ffn.routing import choose
from impls.ffn.shape import Router

E, K, D, T, LIMIT = 16, 4, 4, 32, 2
ALPHA = 0.3


def even() -> tuple[torch.Tensor, torch.Tensor]:
    """Two sequences in which every expert is chosen equally often and every device gets equally many tokens."""
    first_T = torch.arange(T) % D
    second_T = (first_T + 1) % D
    pair_T = torch.arange(T) // D % 2 * 2
    experts_TK = torch.stack(
        [first_T * 4 + pair_T, first_T * 4 + pair_T + 1, second_T * 4 + pair_T, second_T * 4 + pair_T + 1], 1
    )
    return torch.full((2, T, E), 1 / E), experts_TK.expand(2, T, K)


def collapsed() -> tuple[torch.Tensor, torch.Tensor]:
    """Every token chooses the first K experts, which share all of the score and stand on one device."""
    s_STE = torch.zeros(2, T, E)
    s_STE[..., :K] = 1 / K
    return s_STE, torch.arange(K).expand(2, T, K)


def losses(s_STE: torch.Tensor, experts_STK: torch.Tensor) -> dict[str, float]:
    return {
        "expert": balance.expert_loss(s_STE, experts_STK, ALPHA).item(),
        "device": balance.device_loss(s_STE, experts_STK, D, ALPHA).item(),
        "communication": balance.communication_loss(s_STE, experts_STK, D, LIMIT, ALPHA).item(),
    }


def test_each_loss_is_alpha_at_perfect_balance():
    assert losses(*even()) == pytest.approx(dict.fromkeys(("expert", "device", "communication"), ALPHA))


def test_collapse_costs_what_the_definitions_give():
    found = losses(*collapsed())
    assert found["expert"] == pytest.approx(ALPHA * E / K)  # f = E / K on K experts whose P adds up to 1
    assert found["device"] == pytest.approx(ALPHA * D)  # all of f and P on one of D devices
    assert found["communication"] == pytest.approx(ALPHA * D / LIMIT)  # every token sent there, of LIMIT it might use


def test_losses_are_of_each_sequence_not_of_the_batch():
    """Two sequences that each use other experts are uneven within, though even together."""
    experts_STK = torch.stack([torch.arange(8).expand(T, 8), torch.arange(8, 16).expand(T, 8)])
    s_STE = torch.zeros(2, T, E).scatter_(2, experts_STK, 1 / 8)
    assert balance.expert_loss(s_STE, experts_STK, 1.0).item() == pytest.approx(2.0)


def test_the_device_loss_sees_devices_and_not_experts():
    """One expert a device takes everything: uneven among experts, even among devices."""
    experts_STK = (torch.arange(D) * (E // D)).expand(1, T, D)
    s_STE = torch.zeros(1, T, E).scatter_(2, experts_STK, 1 / D)
    assert balance.device_loss(s_STE, experts_STK, D, 1.0).item() == pytest.approx(1.0)
    assert balance.expert_loss(s_STE, experts_STK, 1.0).item() == pytest.approx(E / D)


def test_a_device_counts_a_token_once():
    """Half the tokens send all four pairs to device 0, the others to devices 0 and 1."""
    one, two = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 4, 5])
    experts_STK = torch.stack([one, two] * (T // 2))[None]
    s_STE = torch.full((1, T, E), 1 / E)
    sent = torch.tensor([1.0, 0.5, 0.0, 0.0]) * D / LIMIT
    expected = (sent / D).sum().item()
    assert balance.communication_loss(s_STE, experts_STK, D, LIMIT, 1.0).item() == pytest.approx(expected)


def test_the_gradient_goes_through_scores_alone():
    s_STE = torch.rand(2, T, E).softmax(-1).requires_grad_()
    experts_STK = s_STE.detach().topk(K, -1).indices
    balance.expert_loss(s_STE, experts_STK, ALPHA).backward()
    counts_SE = torch.nn.functional.one_hot(experts_STK, E).sum((1, 2)).float()
    f_SE = counts_SE * E / (K * T)
    assert torch.allclose(s_STE.grad, (ALPHA * f_SE / (2 * T))[:, None].expand_as(s_STE))


def test_the_sequence_loss_takes_the_unbiased_best_and_normalised_scores():
    s_STE = torch.rand(3, T, E, generator=torch.Generator().manual_seed(1))
    best = s_STE.topk(K, -1).indices
    p_STE = s_STE / s_STE.sum(-1, keepdim=True)
    expected = balance.expert_loss(p_STE, best, ALPHA)
    assert torch.equal(balance.sequence_loss(s_STE, K, ALPHA), expected)
    assert torch.allclose(balance.sequence_loss(7 * s_STE, K, ALPHA), expected)  # scores' common size does not matter
    assert balance.sequence_loss(torch.full((1, T, E), 0.5), K, ALPHA).item() == pytest.approx(ALPHA)


def test_the_bias_moves_by_exactly_its_speed_towards_the_mean():
    bias_E = torch.zeros(4)
    balance.bias_step(bias_E, torch.tensor([9, 1, 5, 5]), 0.125)
    assert bias_E.tolist() == [-0.125, 0.125, 0.0, 0.0]
    with pytest.raises(TypeError, match="float32"):
        balance.bias_step(bias_E.bfloat16(), torch.ones(4), 0.125)


def test_the_bias_evens_out_a_router_that_prefers_some_experts():
    generator = torch.Generator().manual_seed(0)
    rule, bias_E = Router(E, K, score="sigmoid"), torch.zeros(E)
    preference_E = torch.linspace(-2, 2, E)

    def batch() -> torch.Tensor:
        return (torch.randn(2048, E, generator=generator) + preference_E).sigmoid()

    def violation() -> float:
        return balance.max_violation(balance.expert_loads(choose(batch(), bias_E, rule), E).double())

    before = violation()
    for _ in range(150):
        balance.bias_step(bias_E, balance.expert_loads(choose(batch(), bias_E, rule), E), 0.01)
    assert before > 1.2 and violation() < 0.25
    assert bias_E[0] > 0 > bias_E[-1]


def pairs(tokens: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    s_ME = torch.rand(tokens, E, generator=torch.Generator().manual_seed(2)) + torch.linspace(1, 0, E)
    affinity_MK, experts_MK = s_ME.topk(K, -1)
    return affinity_MK, experts_MK


def test_dropping_keeps_the_budget_and_drops_the_lowest():
    affinity_MK, experts_MK = pairs()
    nobody = torch.zeros(64, dtype=torch.bool)
    keep_MK = balance.kept(affinity_MK, experts_MK, E, D, nobody)
    budget, dropped = 64 * K // D, 0
    for device in range(D):
        here = experts_MK // (E // D) == device
        stay, gone = affinity_MK[here & keep_MK], affinity_MK[here & ~keep_MK]
        assert len(stay) == min(budget, int(here.sum()))
        if len(gone):
            assert stay.min() >= gone.max()
        dropped += len(gone)
    assert dropped > 20
    assert bool(balance.kept(affinity_MK, experts_MK, E, D, nobody, training=False).all())
    assert bool(balance.kept(affinity_MK, experts_MK, E, D, nobody, capacity=4.0).all())


def test_exempt_sequences_keep_everything_at_the_cost_of_others():
    affinity_MK, experts_MK = pairs()
    exempt_S = balance.exempt_sequences(10, 0.1, torch.Generator().manual_seed(0))
    assert exempt_S.sum() == 1
    generator = torch.Generator().manual_seed(0)
    often = sum(int(balance.exempt_sequences(4, 0.1, generator).sum()) for _ in range(500))
    assert 150 < often < 250  # a tenth of 2000, though of 4 sequences a tenth is none
    exempt_M = torch.zeros(64, dtype=torch.bool)
    exempt_M[::4] = True
    keep_MK = balance.kept(affinity_MK, experts_MK, E, D, exempt_M)
    assert bool(keep_MK[exempt_M].all())
    on_first = experts_MK // (E // D) == 0
    assert int((on_first & keep_MK).sum()) == 64 * K // D
    lowest = on_first & (affinity_MK == affinity_MK[on_first].min())
    assert not keep_MK[lowest & ~exempt_M[:, None]].any()


def test_exempt_pairs_beyond_the_budget_stay_and_displace_all_others():
    experts_MK, affinity_MK = torch.zeros(8, 1, dtype=torch.int64), torch.linspace(0.1, 0.9, 8)[:, None]
    exempt_M = torch.arange(8) < 3
    assert balance.kept(affinity_MK, experts_MK, 4, 4, exempt_M).flatten().tolist() == exempt_M.tolist()
