"""The layer over ranks against the layer in one process: in this process, and between real processes over gloo."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import verify
from harness.registry import load

KNOWN = load("impls")  # before the imports below: the registry collects what it imports itself, once a process

from impls.ffn import expert_parallel as ep  # noqa: E402
from impls.ffn import inputs  # noqa: E402
from impls.ffn.placement import contiguous, global_policy, hierarchical  # noqa: E402
from impls.ffn.reference import mixture_forward  # noqa: E402
from impls.ffn.shape import FfnShape, Router, TokenShape  # noqa: E402
from impls.ffn.weights import draw_weights  # noqa: E402

V3 = Router(16, 4, "sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5)
SHAPES = {
    "v3": TokenShape(FfnShape(48, 24, 1, V3, "float32"), 33, 1.0),
    "v3-half": TokenShape(FfnShape(64, 32, 2, V3, "bfloat16"), 40, 1.0),
    "v2": TokenShape(FfnShape(40, 12, 0, Router(12, 3), "float32"), 25),
    "one-token": TokenShape(FfnShape(40, 12, 1, Router(12, 3), "float32"), 1),
}
PLACEMENTS = {
    "contiguous": lambda loads: contiguous(loads, 4),
    "hierarchical": lambda loads: hierarchical(loads, 20, 4, 2, 4),
    "global": lambda loads: global_policy(loads, 24, 4),
}


def drawn(shape: TokenShape, seed: int):
    return inputs.draw_tokens(shape, "moe", torch.Generator().manual_seed(seed))


def weights_of(shape: TokenShape):
    return draw_weights(shape, "moe", torch.Generator().manual_seed(0))


def placement_of(name: str, shape: TokenShape):
    return PLACEMENTS[name](inputs.loads(shape, "moe")[None])


def check(result, w, tokens, shape):
    """As the harness judges."""
    operation, setup = KNOWN.operations["ffn.prefill"], KNOWN.reference("ffn.prefill", "moe").setup
    verify.check(result, verify.compute_truth(operation, setup, w, tokens, shape, "cpu"))


def in_this_process(w, placement, x):
    shares = [ep.share(w, placement, rank) for rank in range(placement.ranks)]
    outs = [ep.prepare(one, x_MD, placement.ranks) for one, x_MD in zip(shares, x, strict=True)]
    arrived = ep.dispatch_here(outs)
    rows = [ep.compute(one, rows) for one, rows in zip(shares, arrived, strict=True)]
    return ep.combine_here(outs, arrived, rows), arrived


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_rank_gets_what_the_layer_in_one_process_gives(shape, name):
    w, draws = weights_of(shape), [drawn(shape, seed) for seed in range(4)]
    results, arrived = in_this_process(w, placement_of(name, shape), [one.x_MD for one in draws])
    for result, tokens in zip(results, draws, strict=True):
        check(result, w, tokens, shape)
    assert sum(sum(one.received) for one in arrived) == 4 * shape.tokens * shape.model.router.top_k


def test_a_wrong_expert_is_noticed():
    shape = SHAPES["v3"]
    w, draws = weights_of(shape), [drawn(shape, seed) for seed in range(4)]
    swapped = dataclasses.replace(w, w_in_EUD=w.w_in_EUD.roll(1, 0))
    results, _ = in_this_process(swapped, placement_of("global", shape), [one.x_MD for one in draws])
    with pytest.raises(verify.Incorrect):
        check(results[0], w, draws[0], shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 2**31))
def test_the_copies_of_an_expert_share_its_tokens_evenly(tokens, rank, seed):
    loads = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed)) ** 4
    placement = global_policy(loads, 24, 4)
    shape = dataclasses.replace(SHAPES["v2"], tokens=tokens)
    held = ep.share(weights_of(shape), placement, rank)
    experts_MK = inputs.wanted(shape.model.router, tokens, 1.0)
    physical_MK = ep.physical(experts_MK, held)
    assert torch.equal(placement.expert_LP[0][physical_MK], experts_MK)
    assert torch.equal(physical_MK, ep.physical(experts_MK, held))
    used_P = physical_MK.flatten().bincount(minlength=24)
    for expert, copies in enumerate(placement.copies_LEC[0]):
        used = used_P[copies[copies >= 0]]
        assert int(used.sum()) == int((experts_MK == expert).sum()) and int(used.max() - used.min()) <= 1


def test_a_token_of_each_rank_does_not_meet_on_the_first_copy():
    shape = SHAPES["one-token"]
    placement = global_policy(inputs.loads(shape, "moe")[None], 24, 4)
    expert = int(placement.count_LE[0].argmax())
    assert placement.count_LE[0, expert] >= 4
    w = weights_of(shape)
    chosen = {int(ep.physical(torch.tensor([[expert]]), ep.share(w, placement, rank))) for rank in range(4)}
    assert len(chosen) == 4


def test_bytes_to_other_ranks_are_counted_both_ways():
    shape = SHAPES["v2"]
    x = [drawn(shape, seed).x_MD for seed in range(4)]
    _, arrived = in_this_process(weights_of(shape), placement_of("contiguous", shape), x)
    rows = [[one.sent[other] for other in range(4)] for one in arrived]
    away = sum(rows[a][b] for a in range(4) for b in range(4) if a != b)
    assert sum(ep.sent_bytes(one, rank) for rank, one in enumerate(arrived)) == 2 * away * 40 * 4
    assert away < 4 * 25 * 3


def test_a_placement_of_other_experts_is_refused():
    w = weights_of(SHAPES["v2"])
    with pytest.raises(ValueError, match="2 layers of 12 experts, expected 1 of 12"):
        ep.share(w, contiguous(torch.ones(2, 12), 4), 0)
    with pytest.raises(ValueError, match="1 layers of 16 experts, expected 1 of 12"):
        ep.share(w, contiguous(torch.ones(1, 16), 4), 0)


def run_rank(rank: int, file: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for label in ("v3", "v3-half", "one-token"):
        shape = SHAPES[label]
        loads = inputs.loads(shape, "moe")[None]
        for name, placement in (("contiguous", contiguous(loads, 2)), ("global", global_policy(loads, 20, 2))):
            result = ep.layer(ep.share(weights_of(shape), placement, rank), drawn(shape, rank).x_MD)
            results.put((label, name, rank, result.float().numpy()))
    dist.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    results = processes.get_context("spawn").Queue()
    started = processes.spawn(run_rank, (str(tmp_path / "store"), results), nprocs=2, join=False)
    found = [results.get(timeout=60) for _ in range(12)]
    started.join(timeout=60)
    assert len({entry[:3] for entry in found}) == 12
    for label, _, rank, array in found:
        shape = SHAPES[label]
        w, tokens, result = weights_of(shape), drawn(shape, rank), torch.from_numpy(array)
        check(result.to(shape.model.torch_dtype), w, tokens, shape)
        off = verify.distance(result, mixture_forward(w, tokens.x_MD))
        assert off.error < (1e-5 if label != "v3-half" else 1e-2)
