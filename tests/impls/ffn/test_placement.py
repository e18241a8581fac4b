"""EPLB: its published example, what packing and replication promise, and what a wrong request is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impls.ffn.placement import (
    balanced_packing,
    contiguous,
    global_policy,
    hierarchical,
    imbalance,
    rank_loads,
    rebalance,
    replicate,
)

# The example of EPLB's README: two layers of 12 experts in 4 groups, 16 copies, 2 nodes of 4 GPUs.
LOADS = torch.tensor(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
)
PLACED = [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]]


def zipf(experts: int = 256) -> torch.Tensor:
    """Zipf's law over experts in random order, [1, E]."""
    return torch.from_numpy((1 / np.arange(1, experts + 1))[np.random.RandomState(0).permutation(experts)])[None]


def test_the_published_example_comes_out_exactly():
    placed = hierarchical(LOADS, replicas=16, groups=4, nodes=2, ranks=8)
    assert placed.expert_LP.tolist() == PLACED
    assert imbalance(placed, LOADS).tolist() == pytest.approx([1.2081, 1.2422], abs=1e-4)
    assert imbalance(global_policy(LOADS, 16, 8), LOADS).tolist() == pytest.approx([1.0726, 1.1903], abs=1e-4)


def test_zipf_over_256_experts_on_32_ranks_is_evened_out():
    loads = zipf()
    assert imbalance(contiguous(loads, 32), loads).item() == pytest.approx(5.69, abs=0.01)
    assert imbalance(hierarchical(loads, 288, 8, 4, 32), loads).item() == pytest.approx(1.33, abs=0.03)
    assert imbalance(global_policy(loads, 288, 32), loads).item() == pytest.approx(1.00, abs=0.01)


def test_nodes_that_do_not_divide_the_groups_get_the_global_policy():
    same = rebalance(LOADS, 16, 4, 2, 8), rebalance(LOADS, 24, 4, 8, 8)
    assert torch.equal(same[0].expert_LP, hierarchical(LOADS, 16, 4, 2, 8).expert_LP)
    assert torch.equal(same[1].expert_LP, global_policy(LOADS, 24, 8).expert_LP)


def test_each_group_stays_within_one_node():
    node_of = hierarchical(LOADS, 16, 4, 2, 8).expert_LP.unflatten(1, (2, -1)) // 3
    for layer in node_of:
        assert not set(layer[0].tolist()) & set(layer[1].tolist())


sizes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 6))


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31), st.booleans())
def test_any_placement_holds_every_expert_and_says_where(size, seed, zeros):
    nodes, per_node, group_size, ranks_per_node, extra = size
    groups, ranks = nodes * per_node, nodes * ranks_per_node
    experts = groups * group_size
    replicas = ranks * (-(-experts // ranks) + extra)
    loads = torch.rand(2, experts, generator=torch.Generator().manual_seed(seed)) ** 4
    loads = loads * 0 if zeros else loads
    for placed in (hierarchical(loads, replicas, groups, nodes, ranks), global_policy(loads, replicas, ranks)):
        assert placed.expert_LP.shape == (2, replicas) and placed.slots * ranks == replicas
        assert bool((placed.count_LE >= 1).all()) and placed.count_LE.sum(1).tolist() == [replicas] * 2
        for layer, experts_P in enumerate(placed.expert_LP):
            for expert, copies in enumerate(placed.copies_LEC[layer]):
                there = (experts_P == expert).nonzero().flatten().tolist()
                assert [c for c in copies.tolist() if c >= 0] == there
                assert len(there) == placed.count_LE[layer, expert]
        assert torch.allclose(rank_loads(placed, loads).sum(1), loads.double().sum(1))
        assert bool((imbalance(placed, loads) >= 1 - 1e-12).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**31))
def test_packs_have_equally_many_items(packs, each, seed):
    loads = torch.rand(2, packs * each, generator=torch.Generator().manual_seed(seed))
    for pack_I in balanced_packing(loads, packs):
        assert pack_I.bincount(minlength=packs).tolist() == [each] * packs


def test_packing_takes_the_heaviest_first_into_the_lightest_with_room():
    assert balanced_packing(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]]), 2).tolist() == [[0, 1, 1, 0, 0, 1, 1, 0]]
    assert balanced_packing(torch.tensor([[10, 1, 1, 1, 1, 1]]), 2).tolist() == [[0, 1, 1, 1, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**31))
def test_more_replicas_never_raise_the_largest_load_of_a_copy(experts, extra, seed):
    loads = torch.rand(experts, generator=torch.Generator().manual_seed(seed))

    def largest(replicas: int) -> float:
        count = replicate(loads, replicas).bincount(minlength=experts)
        assert int(count.sum()) == replicas and bool((count >= 1).all())
        return float((loads / count).max())

    found = [largest(experts + more) for more in range(extra + 1)]
    assert found == sorted(found, reverse=True)
    if extra:  # the copy goes where it helps: to the busiest expert
        assert replicate(loads, experts + 1)[-1] == loads.argmax()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: contiguous(LOADS, 5), "ranks is 5, which does not divide the 12 experts"),
        (lambda: contiguous(LOADS, 0), "ranks is 0"),
        (lambda: contiguous(LOADS, 24), "ranks is 24, which does not divide the 12 experts"),
        (lambda: hierarchical(LOADS, 8, 4, 2, 8), "replicas is 8, fewer than the 12 experts"),
        (lambda: hierarchical(LOADS, 18, 4, 2, 8), "ranks is 8, which does not divide the 18 replicas"),
        (lambda: hierarchical(LOADS, 16, 5, 1, 8), "groups is 5, which does not divide the 12 experts"),
        (lambda: hierarchical(LOADS, 16, 4, 3, 8), "nodes is 3, which does not divide the 4 groups"),
        (lambda: hierarchical(LOADS, 15, 4, 2, 5), "nodes is 2, which does not divide the 5 ranks"),
        (lambda: global_policy(LOADS, 16, 0), "ranks is 0"),
        (lambda: rebalance(LOADS, 16, 4, 0, 8), "nodes is 0"),
        (lambda: replicate(LOADS[0], 11), "replicas is 11, fewer than the 12 experts"),
        (lambda: balanced_packing(LOADS, 5), "packs is 5, which does not divide the 12 items"),
        (lambda: balanced_packing(LOADS, 0), "packs is 0"),
        (lambda: contiguous(LOADS[0], 4), r"shape \[12\]"),
        (lambda: global_policy(LOADS - 5, 16, 8), "a load is -1"),
        (lambda: global_policy(LOADS * torch.nan, 16, 8), "a load is nan"),
    ],
)
def test_a_wrong_request_is_told_which_value_and_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()
