"""Recorded routing: the file and its digest, its curve over any number of experts, and tokens that follow it."""

from __future__ import annotations

import json

import pytest
import torch

from impls.ffn import inputs, recorded
from impls.ffn.routing import route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.weights import router_weights

ROUTERS = {
    "v3": Router(256, 8, "sigmoid", groups=8, top_groups=4, normalise=True, scale=2.5),
    "v2-lite": Router(64, 6),
    "slice": Router(32, 8, "sigmoid", normalise=True),
    "mixtral": Router(8, 2, normalise=True),
}


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """The file with some of its content changed."""

    def change(**fields) -> None:
        path = tmp_path / "loads.json"
        path.write_text(json.dumps({**json.loads(recorded.FILE.read_text()), **fields}))
        monkeypatch.setattr(recorded, "FILE", path)
        recorded.content.cache_clear()

    yield change
    recorded.content.cache_clear()


def test_the_file_holds_every_choice_of_every_layer_and_where_it_comes_from():
    found = recorded.content()
    top_k, experts = found["router"]["top_k"], found["router"]["experts"]
    totals = {sum(loads) for loads in found["loads"].values()}
    assert len(totals) == 1 and totals.pop() % top_k == 0 and len(found["loads"]) > 1
    assert all(len(loads) == experts for loads in found["loads"].values())
    assert "make balance" in found["made by"] and len(found["text"]["digest"]) == 64


@pytest.mark.parametrize("experts", [1, 2, 7, 16, 64, 320])
def test_the_curve_falls_and_has_mean_one(experts):
    curve_E = recorded.curve(experts)
    assert len(curve_E) == experts and float(curve_E.mean()) == pytest.approx(1)
    assert bool((curve_E.diff() <= 0).all()) and float(curve_E.min()) > 0


def test_the_curve_of_as_many_experts_is_the_recorded_one():
    layers = [sorted(loads, reverse=True) for loads in recorded.content()["loads"].values()]
    mean = [sum(of_rank) / sum(map(sum, layers)) * len(layers[0]) for of_rank in zip(*layers, strict=True)]
    assert recorded.curve(16).tolist() == pytest.approx(mean)


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS)
def test_loads_are_the_curves_however_many_a_token_takes(router):
    shape = TokenShape(FfnShape(300, 24, 1, router), 4096, recorded=recorded.digest())
    loads_E = inputs.loads(shape, "moe").double()
    relative_E = (loads_E / loads_E.mean()).sort(descending=True).values
    assert loads_E.sum() == 4096 * router.top_k
    assert float((relative_E - recorded.curve(router.experts)).abs().mean()) < 0.08
    uniform_E = inputs.loads(TokenShape(shape.model, 4096), "moe").double()
    assert relative_E[0] > 1.5 * float(uniform_E.max() / uniform_E.mean())


def test_where_a_token_takes_every_expert_all_loads_are_even():
    shape = TokenShape(FfnShape(40, 8, 0, Router(4, 4)), 50, recorded=recorded.digest())
    assert inputs.loads(shape, "moe").tolist() == [50] * 4


def test_drawn_tokens_go_where_they_are_recorded_to():
    model = FfnShape(300, 24, 1, ROUTERS["v2-lite"], "float32")
    shape = TokenShape(model, 200, recorded=recorded.digest())
    x_MD = inputs.draw_tokens(shape, "moe", torch.Generator().manual_seed(3)).x_MD
    chosen_MK = route(x_MD, router_weights(model)).experts_MK
    assert torch.equal(chosen_MK.flatten().bincount(minlength=64), inputs.loads(shape, "moe"))


def test_loads_of_another_digest_are_refused(changed):
    shape = TokenShape(FfnShape(40, 8, 0, Router(5, 2)), 31, recorded=recorded.digest())
    with pytest.raises(ValueError, match="expected one of them"):
        TokenShape(shape.model, 31, 1.0, recorded.digest())
    changed(case="another")
    with pytest.raises(ValueError, match="was changed: its digest is"):
        inputs.loads(shape, "moe")
    changed(case="another", digest=recorded.digest_of({**json.loads(recorded.FILE.read_text()), "case": "another"}))
    with pytest.raises(ValueError, match=f"of digest {shape.recorded} is asked for"):
        inputs.loads(shape, "moe")
