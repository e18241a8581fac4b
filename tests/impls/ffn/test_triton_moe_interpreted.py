# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""The mixture's Triton kernels in Triton's interpreter, as the harness judges them, and what must not matter.

They run in a process of their own, started by test_triton_moe.py; anywhere else the file is skipped. The interpreter
has no BF16, so weights are FP16, or FP32 where a tight bound is wanted.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in its own process, with TRITON_INTERPRET=1", allow_module_level=True)

from harness.registry import load

load("impls")

from impls.ffn import triton_grouped, triton_moe
from impls.ffn.inputs import draw_tokens
from impls.ffn.operations import ascending
from impls.ffn.routing import Routing, by_expert
from impls.ffn.routing import route as plain_route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.triton_order import lay_blocks, sort_pairs
from impls.ffn.triton_routing import route
from impls.ffn.weights import RouterWeights, draw_weights

MODEL = FfnShape(48, 32, 1, Router(8, 2), "float32")
GROUPED = replace(
    MODEL, hidden=80, width=144, shared=0, router=Router(12, 3, "sigmoid", 4, 2, True, 2.5), dtype="float16"
)
SHAPES = {
    "one-token": TokenShape(MODEL, 1),
    "few-uneven": TokenShape(GROUPED, 9, 1.5),
    "blocks-of-64": TokenShape(MODEL, 40, 1.0),
    "blocks-of-128": TokenShape(replace(MODEL, router=Router(2, 1)), 140, 0.5),
}
ONES = [  # prefill and decode are one function
    *((f"ffn.{name}", "moe/triton") for name in ("decode", "train", "route", "select", "permute", "experts")),
    ("ffn.prefill", "moe-coarse/triton"),
    ("ffn.train", "moe-coarse/triton"),
]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("operation", "one"), ONES)
def test_contender_is_judged_correct(operation, one, name, judge):
    judge(operation, one, SHAPES[name])


def random_choice(tokens: int, experts: int, top_k: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(tokens, experts, generator=torch.Generator().manual_seed(seed)).topk(top_k, -1).indices


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(1, 5, 5), (40, 7, 3), (300, 16, 2), (130, 200, 8)])
def test_order_is_the_plain_one_and_its_inverse(tokens, experts, top_k):
    experts_MK = random_choice(tokens, experts, top_k)
    order, plain = sort_pairs(experts_MK, experts, 16), by_expert(experts_MK, experts)
    assert torch.equal(order.pair_P, plain.pair_P) and torch.equal(order.ends_E, plain.ends_E)
    assert torch.equal(order.pair_P[order.row_P.long()], torch.arange(tokens * top_k))


@pytest.mark.parametrize("block", [16, 64])
@pytest.mark.parametrize("loads", [[5], [0, 0, 33, 0], [16, 1, 0, 64, 65, 128], [1] * 30])
def test_blocks_cover_every_row_once(loads, block):
    ends = torch.tensor(loads, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    experts_MK = torch.repeat_interleave(torch.arange(len(loads)), torch.tensor(loads))[:, None]
    for tiles in (
        lay_blocks(ends, sum(loads), block),
        sort_pairs(experts_MK, len(loads), block).tiles_3T,
    ):
        covered = []
        for expert, start, end in tiles.T.tolist():
            if expert >= 0:
                assert ends[expert] == end and end - loads[expert] <= start < end
                covered += [(expert, row) for row in range(start, min(start + block, end))]
        assert covered == [(int(expert), row) for row, expert in enumerate(experts_MK)]


RULES = {
    "softmax": Router(10, 3, scale=2.0),
    "softmax-groups": Router(12, 3, "softmax", 4, 2, True),
    "sigmoid-groups": Router(24, 4, "sigmoid", 8, 3, True, 2.5),
    "groups-of-one": Router(6, 2, "sigmoid", 6, 3),
    "every-expert": Router(5, 5, "sigmoid"),
}


@pytest.mark.parametrize("bias", [0.0, -5.0])
@pytest.mark.parametrize("name", RULES)
def test_random_tokens_go_where_the_plain_rule_sends_them(name, bias):
    """Negative biased scores: a mask of zero instead of minus infinity would prefer experts of other groups."""
    rule, generator = RULES[name], torch.Generator().manual_seed(0)
    matrix_ED = torch.randn(rule.experts, 144, generator=generator) / 6
    bias_E = bias + torch.randn(rule.experts, generator=generator) / 2 if rule.biased else None
    x_MD, w = torch.randn(70, 144, generator=generator), RouterWeights(rule, matrix_ED, bias_E)
    told, plain = ascending(route(x_MD, w)), ascending(plain_route(x_MD.double(), w))
    assert torch.equal(told.experts_MK, plain.experts_MK)
    torch.testing.assert_close(told.gates_MK.double(), plain.gates_MK, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("tokens", [4, 40])
def test_weights_of_experts_without_tokens_do_not_matter(tokens):
    shape = TokenShape(MODEL, tokens)
    w = draw_weights(shape, "moe", torch.Generator().manual_seed(0))
    x_MD = draw_tokens(shape, "moe", torch.Generator().manual_seed(1)).x_MD
    routed = Routing(torch.ones(tokens, 2), torch.tensor([[1, 6]]).repeat(tokens, 1))
    clean = triton_moe.mixed(x_MD, routed, w.w_in_EUD, w.w_out_EDW)
    for expert in (0, 3, 4, 5):
        w.w_in_EUD[expert], w.w_out_EDW[expert] = torch.nan, torch.nan
    assert torch.equal(triton_moe.mixed(x_MD, routed, w.w_in_EUD, w.w_out_EDW), clean) and clean.isfinite().all()


def test_turned_launches_do_not_keep_products():
    order = sort_pairs(random_choice(4, 8, 2), 8, 16)
    w_in = torch.zeros(8, 64, 48)
    with pytest.raises(ValueError, match="take one of 64 or 128"):
        triton_grouped.hidden_rows(
            torch.zeros(4, 48), order.pair_P, 2, order.tiles_3T, 8, w_in, triton_grouped.SMALL, torch.zeros(8, 64)
        )
