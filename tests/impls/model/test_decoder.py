"""The model is made of the suite's layers: same sizes, same results, causal, its routers' work in plain sight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.attention import cost as attention_cost
from impls.attention.reference_mha import prefill as mha
from impls.attention.reference_mla import prefill as mla
from impls.attention.shape import SequenceShape
from impls.ffn import cost as ffn_cost
from impls.ffn.reference import dense_forward, mixture_forward
from impls.ffn.routing import Routing, route
from impls.ffn.shape import Router
from impls.model.decoder import Decoder
from impls.model.held import Held
from impls.model.layers import MIXTURES
from impls.model.shape import ATTENTIONS, FEEDS, parameters, small_shape

RULES = {
    "v3": Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5),
    "v2": Router(8, 2, groups=4, top_groups=2),
}


def shape(technique="mla", feed="moe", leading=1, rule="v3", **more):
    sizes = {"hidden": 32, "layers": 3, "head_dim": 8, "width": 16, **more}
    return small_shape(router=RULES[rule], technique=technique, feed=feed, leading=leading, **sizes)


def symbols(length: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("leading", [0, 1, 3])
@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("technique", ATTENTIONS)
def test_shapes_and_parameters_are_the_cost_models(technique, feed, leading, rule):
    asked = shape(technique, feed, leading, rule)
    model = Decoder(asked)
    output = model(symbols())
    assert output.logits_BTV.shape == (2, 24, 256) and bool(output.logits_BTV.isfinite().all())
    mixtures = 3 - leading if feed.startswith("moe") else 0
    assert [routed.layer for routed in output.routed] == list(range(3 - mixtures, 3)) == list(asked.mixtures)
    feeds = ["dense"] * leading + [feed] * (3 - leading) if feed.startswith("moe") else [feed] * 3
    expected = 3 * attention_cost.parameters(asked.attention, technique)
    expected += sum(ffn_cost.parameters(asked.ffn, one) for one in feeds) + 2 * 256 * 32
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == expected == parameters(asked)
    assert parameters(asked, active=True) < expected


@pytest.mark.parametrize("technique", ATTENTIONS)
def test_a_later_byte_never_changes_an_earlier_logit(technique):
    model, given_BT = Decoder(shape(technique)).double(), symbols()
    changed_BT = given_BT.clone()
    changed_BT[:, 15] = (changed_BT[:, 15] + 1) % 256
    with torch.no_grad():
        before, after = model(given_BT).logits_BTV, model(changed_BT).logits_BTV
    assert torch.allclose(before[:, :15], after[:, :15], atol=1e-5)
    assert not torch.allclose(before[:, 15:], after[:, 15:], atol=1e-3)


@pytest.mark.parametrize("technique", ATTENTIONS)
def test_attention_computes_what_the_reference_does(technique):
    asked = shape(technique)
    layer, x_BTD = Decoder(asked).blocks[0].attention, torch.randn(2, 24, 32)
    reference = mla if technique == "mla" else mha
    weights = layer.held.weights(torch.float32)
    expected = reference(weights, SequenceShape(asked.attention, 2, 24))(type("Given", (), {"x_BTD": x_BTD}))
    assert torch.allclose(layer(x_BTD), expected, atol=1e-5)


@pytest.mark.parametrize("form", MIXTURES)
@pytest.mark.parametrize("rule", RULES)
def test_every_form_of_the_mixture_computes_what_the_reference_does(rule, form):
    model, x_BTD = Decoder(shape(rule=rule), form=form), torch.randn(2, 24, 32)
    layer = model.mixtures[0]
    if layer.bias_E is not None:
        layer.bias_E.copy_(torch.linspace(-0.3, 0.3, 8))
    y_BTD, routed = layer(x_BTD)
    weights = layer.held.weights(torch.float32)
    assert torch.allclose(y_BTD.flatten(0, 1), mixture_forward(weights, x_BTD.flatten(0, 1)), atol=1e-5)
    gates_ME = torch.zeros_like(routed.s_ME).scatter_(1, routed.experts_MK, 1.0)
    assert gates_ME.sum(-1).eq(2).all() and routed.s_ME.requires_grad


@pytest.mark.parametrize("form", MIXTURES)
@pytest.mark.parametrize("rule", RULES)
def test_pairs_left_out_add_nothing_and_get_no_gradient(rule, form):
    """Against gate values of zero in a layer that computes everything."""
    model, x_MD = Decoder(shape(rule=rule), form=form), torch.randn(48, 32)
    kept_MK = torch.rand(48, 2) < 0.6
    kept_MK[:3] = False  # a token may lose all its experts
    dy_MD = torch.randn(48, 32)

    def gradients(compute, masked: bool) -> list[torch.Tensor]:
        weights = model.mixtures[0].held.weights(torch.float32)
        given_MD = x_MD.clone().requires_grad_()
        found = route(given_MD, weights.router)
        found.gates_MK.retain_grad()
        if masked:
            zeroed = Routing(found.gates_MK * kept_MK, found.experts_MK)
            y_MD = mixture_forward(weights, given_MD, zeroed)
        else:
            y_MD = compute(weights, given_MD, found, kept_MK)
        leaves = [given_MD, found.gates_MK, weights.w_in_EUD, weights.w_out_EDW, weights.shared.w_in_UD]
        return [y_MD, *torch.autograd.grad(y_MD, leaves, dy_MD)]

    for ours, expected in zip(gradients(MIXTURES[form], False), gradients(None, True), strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


def test_what_a_mixture_leaves_out_is_said_and_follows_its_scores():
    model, x_BTD = Decoder(shape()), torch.randn(2, 24, 32)
    seen = []

    def keep(affinity_MK, experts_MK):
        seen.append((affinity_MK, experts_MK))
        return affinity_MK == affinity_MK.max(-1, keepdim=True).values

    y_BTD, routed = model.mixtures[0](x_BTD, keep)
    ((affinity_MK, experts_MK),) = seen
    assert torch.equal(affinity_MK, routed.s_ME.gather(1, experts_MK)) and not affinity_MK.requires_grad
    assert routed.kept_MK.sum() == 48 and not torch.allclose(y_BTD, model.mixtures[0](x_BTD)[0], atol=1e-3)
    assert model.mixtures[0](x_BTD)[1].kept_MK is None


def test_a_dense_block_is_the_dense_layer_and_blocks_add_to_their_input():
    model, x_BTD = Decoder(shape()), torch.randn(2, 24, 32)
    block = model.blocks[0]
    middle = x_BTD + block.attention(block.attention_norm(x_BTD))
    expected = middle + dense_forward(block.ffn.held.weights(torch.float32), block.ffn_norm(middle))
    assert torch.equal(block(x_BTD)[0], expected)


def test_bfloat16_computes_nearly_the_same_from_the_same_fp32_parameters():
    asked = shape("mla", "dense")
    half = Decoder(
        replace(asked, attention=replace(asked.attention, dtype="bfloat16"), ffn=replace(asked.ffn, dtype="bfloat16"))
    )
    exact = Decoder(asked)
    assert all(torch.equal(a, b) for a, b in zip(half.parameters(), exact.parameters(), strict=True))
    found, expected = half(symbols()).logits_BTV, exact(symbols()).logits_BTV
    assert found.dtype == torch.float32 and 0 < (found - expected).norm() / expected.norm() < 0.05
    found.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in half.parameters())


def test_held_tensors_are_parameters_and_the_bias_is_not():
    model = Decoder(shape())
    names = dict(model.named_parameters())
    assert not [name for name in names if "bias_E" in name]
    assert sum("bias_E" in name for name in model.state_dict()) == len(model.mixtures) == 2
    held: Held = model.mixtures[0].held
    weights = held.weights(torch.bfloat16)
    assert weights.router.bias_E.dtype == torch.float32 and weights.router.matrix_ED.dtype == torch.bfloat16
    assert weights.router.rule is RULES["v3"]


def test_layers_are_drawn_apart_and_seeds_decide():
    one, same, other = Decoder(shape(), 3), Decoder(shape(), 3), Decoder(shape(), 4)
    first, second = (layer.held.weights(torch.float32).router.matrix_ED for layer in one.mixtures)
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embedding_VD, other.embedding_VD)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"technique": "linear"}, "technique is 'linear'"),
        ({"feed": "sparse"}, "feed is 'sparse'"),
        ({"leading": 4}, "leading is 4"),
    ],
)
def test_wrong_axes_are_named(wrong, told):
    with pytest.raises(ValueError, match=told):
        replace(shape(), **wrong)
    with pytest.raises(ValueError, match="mixture 'fast' is none of reference"):
        Decoder(shape(), form="fast")


def test_two_hidden_sizes_are_refused():
    asked = shape()
    with pytest.raises(ValueError, match="hidden size 32 in float32, ffn 64"):
        replace(asked, ffn=replace(asked.ffn, hidden=64))
