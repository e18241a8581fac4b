"""How far choices are from turning: noise below half a margin turns none, and margins are no smaller than needed."""

from __future__ import annotations

import pytest
import torch

from impls.ffn.routing import choose
from impls.ffn.shape import Router
from impls.model import margins
from impls.model.decoder import Decoder
from impls.model.shape import small_shape

RULES = [
    Router(16, 4, score="sigmoid", groups=4, top_groups=2, normalise=True),
    Router(8, 2, score="sigmoid", groups=8, top_groups=3),
    Router(6, 2),
    Router(8, 3, groups=2, top_groups=1),
    Router(4, 2, score="sigmoid", groups=2, top_groups=1),
]


def chosen(s_ME, bias_E, rule):
    return choose(s_ME, bias_E, rule).sort(-1).values


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", RULES)
def test_noise_below_half_a_margin_turns_no_choice(rule, seed):
    generator = torch.Generator().manual_seed(seed)
    s_ME = torch.rand(500, rule.experts, generator=generator, dtype=torch.float64)
    bias_E = torch.randn(rule.experts, generator=generator, dtype=torch.float64) * 0.1 if rule.biased else None
    margin_M1 = margins.of_choice(s_ME, bias_E, rule)[:, None]
    assert margin_M1.min() > 0
    for _ in range(20):
        noise_ME = torch.rand(s_ME.shape, generator=generator, dtype=torch.float64) * 2 - 1
        moved_ME = s_ME + 0.499 * margin_M1 * noise_ME.sign()
        assert torch.equal(chosen(moved_ME, bias_E, rule), chosen(s_ME, bias_E, rule))


def test_a_margin_is_no_smaller_than_it_must_be():
    """Without groups, moving the last chosen and the first that was not by half a margin each makes them meet."""
    rule, generator = Router(6, 2), torch.Generator().manual_seed(0)
    s_ME = torch.rand(200, 6, generator=generator)
    margin_M = margins.of_choice(s_ME, None, rule)
    order_ME = s_ME.argsort(-1, descending=True)
    moved_ME = s_ME.scatter_add(1, order_ME[:, 1:2], -0.51 * margin_M[:, None])
    moved_ME = moved_ME.scatter_add(1, order_ME[:, 2:3], 0.51 * margin_M[:, None])
    assert (chosen(moved_ME, None, rule) != chosen(s_ME, None, rule)).any(-1).all()


def test_all_experts_have_no_margin_to_keep():
    assert margins.of_choice(torch.rand(3, 4), None, Router(4, 4)).isinf().all()


def test_the_least_of_a_sequence_counts_up_to_its_end_in_every_mixture_that_is_run():
    shape = small_shape(hidden=32, layers=3, head_dim=8, width=8, objective="mtp", depth=2)
    model, symbols_BT = Decoder(shape), torch.randint(256, (4, 9))
    found = {end: margins.of_routers(model, model.streams, symbols_BT, torch.full((4,), end)) for end in (0, 3, 9)}
    assert found[0].isinf().all() and (found[3] >= found[9]).all() and not torch.equal(found[3], found[9])
    with margins.watched(model) as seen, torch.no_grad():
        model.streams(symbols_BT)
    assert [len(one) // 4 for one in seen] == [9, 9, 8, 7]
    least_B = torch.stack([one.view(4, -1).amin(-1) for one in seen]).amin(0).double()
    assert torch.equal(found[9], least_B)
    with torch.no_grad():
        model.streams(symbols_BT)
    assert len(seen) == 4  # nothing is left behind
    dense = Decoder(small_shape(hidden=32, layers=2, head_dim=8, width=8, feed="dense"))
    assert margins.of_routers(dense, dense, symbols_BT, torch.full((4,), 9)).isinf().all()


def test_sixteen_bits_are_not_watched():
    assert not margins.watches(small_shape(dtype="bfloat16")) and margins.watches(small_shape())
