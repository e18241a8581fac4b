"""Costs: published parameter counts, and bytes that follow the experts that are hit."""

from __future__ import annotations

import pytest

from benches.mixtures import ffn_shape
from benches.models import MODELS, attention_shape
from impls.attention import cost as attention_cost
from impls.ffn import cost
from impls.ffn.inputs import loads
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.weights import DenseWeights, draw_weights


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("v2-lite", 15.71e9, 2.66e9), ("v2", 235.74e9, 21.38e9), ("v3", 671.03e9, 37.55e9)],
)
def test_whole_models_have_as_many_parameters_as_published(name, total, active):
    """arXiv 2405.04434 and 2412.19437; embedding and head count, and the leading dense layers."""
    fields, (_, ffn), (_, attention) = MODELS[name], ffn_shape(name), attention_shape(name)
    layers, leading = fields["num_hidden_layers"], fields["first_k_dense_replace"]
    rest = 2 * fields["vocab_size"] * ffn.hidden + layers * attention_cost.parameters(attention, "mla")
    rest += leading * 3 * ffn.hidden * fields["intermediate_size"]
    for published, only_active in ((total, False), (active, True)):
        counted = rest + (layers - leading) * cost.parameters(ffn, "moe", only_active)
        assert counted == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize("name", ["v2-lite", "v2", "v3", "mixtral-8x7b", "qwen3-30b-a3b"])
def test_dense_layers_have_the_same_active_and_total_parameters(name):
    _, ffn = ffn_shape(name)
    router = ffn.router.experts * ffn.hidden
    assert cost.parameters(ffn, "dense") == cost.parameters(ffn, "moe", active=True) - router
    assert cost.parameters(ffn, "dense-total") == cost.parameters(ffn, "moe") - router
    for active in (True, False):  # experts come whole: V2-Lite's 16.5 coarse ones are 16
        fine = cost.parameters(ffn, "moe", active)
        assert cost.parameters(ffn, "moe-coarse", active) == pytest.approx(fine, rel=0.035)


@pytest.mark.parametrize("technique", ["dense", "dense-total", "moe", "moe-coarse"])
def test_parameters_are_those_of_the_drawn_weights(technique, draw_generator):
    model = FfnShape(40, 12, 2, Router(12, 3, "sigmoid"), "float32")
    w = draw_weights(TokenShape(model, 4), technique, draw_generator)
    if isinstance(w, DenseWeights):
        counted = w.w_in_UD.numel() + w.w_out_DW.numel()
    else:
        counted = w.router.matrix_ED.numel() + w.w_in_EUD.numel() + w.w_out_EDW.numel()
        counted += w.shared.w_in_UD.numel() + w.shared.w_out_DW.numel() if w.shared else 0
    assert counted == cost.parameters(model, technique)


def test_a_layer_reads_the_experts_it_hits_and_no_others():
    model = FfnShape(80, 12, 1, Router(64, 2), "float32")
    one, many = TokenShape(model, 1), TokenShape(model, 4096)
    assert int((loads(one, "moe") > 0).sum()) == 2 and int((loads(many, "moe") > 0).sum()) == 64
    expert = 3 * 80 * 12 * 4
    difference = cost.layer(many, "moe").read_bytes - cost.layer(one, "moe").read_bytes
    assert difference == 62 * expert + 4095 * 80 * 4
    assert cost.layer(many, "moe").flops == 4096 * 2 * (3 * (3 * 80 * 12) + 64 * 80)
