"""Projections in FP8: which are, what they are quantized from, and that they are the linear study's own layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.ffn.reference import mixture_forward
from impls.ffn.routing import Routing, gates
from impls.ffn.shape import Router
from impls.linear import dequantized
from impls.linear.inputs import TrainInputs
from impls.linear.quantize import quantize
from impls.linear.reference_train import by_definition, fp8_training
from impls.linear.shape import LinearShape
from impls.linear.triton_gemm import multiply
from impls.linear.triton_train import TritonLinear
from impls.model import layers
from impls.model.decoder import Decoder
from impls.model.linear import LINEARS, linear_of
from impls.model.shape import ATTENTIONS, FEEDS, small_shape
from impls.model.training import Training

RULE = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True)
HERE = {"reference": (by_definition, quantize), "dequantized": (dequantized.multiply, dequantized.quantized)}


def shape(linear="fp8", **more):
    sizes = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 16, "router": RULE, "linear": linear, **more}
    return small_shape(**sizes)


def symbols(length: int = 24) -> torch.Tensor:
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("product", HERE)
@pytest.mark.parametrize("technique", LINEARS[1:])
def test_a_layer_is_the_study_s_layer_in_training(technique, product, draw_generator):
    x_BTK, dy_BTN = (torch.randn(3, 50, size, generator=draw_generator) for size in (144, 200))
    w_NK = torch.randn(200, 144, generator=draw_generator)
    call = fp8_training(w_NK, LinearShape(150, 200, 144, "float32"), technique, *HERE[product])
    expected = call(TrainInputs(x_BTK.flatten(0, 1), dy_BTN.flatten(0, 1)))
    x_BTK.requires_grad_()
    w_NK.requires_grad_()
    y_BTN = linear_of(technique, product)(x_BTK, w_NK)
    dx_BTK, dw_NK = torch.autograd.grad(y_BTN, (x_BTK, w_NK), dy_BTN)
    assert y_BTN.shape == (3, 50, 200) and torch.equal(y_BTN.flatten(0, 1), expected.y_MN)
    assert torch.equal(dx_BTK.flatten(0, 1), expected.dx_MK) and torch.equal(dw_NK, expected.dw_NK)


def test_our_kernels_layer_gets_rows_and_masters(monkeypatch):
    given = []

    def apply(x_MK, w_NK, *more):
        given.append((x_MK.shape, w_NK, *more))
        return x_MK @ w_NK.T

    monkeypatch.setattr(TritonLinear, "apply", apply)
    x_BTK, w_NK = torch.randn(2, 5, 16), torch.randn(8, 16)
    assert torch.allclose(linear_of("fp8", "triton", True)(x_BTK, w_NK), x_BTK @ w_NK.T, atol=1e-5)
    ((shape_, weight_NK, power_of_two, product),) = given
    assert shape_ == (10, 16) and weight_NK is w_NK and power_of_two is True and product is multiply
    with pytest.raises(ValueError, match="product 'triton' has tiles and blocks only, linear is 'fp8-row'"):
        linear_of("fp8-row", "triton")


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("technique", ATTENTIONS)
def test_every_projection_is_in_fp8_and_nothing_else(technique, feed, monkeypatch):
    """By the memory of what is multiplied: embedding, head, gating and norms are never given to FP8."""
    seen: dict[int, torch.dtype] = {}

    def noting(linear, product):
        plain = linear_of("bf16")

        def multiply(x, w_NK):
            seen[w_NK.data_ptr()] = w_NK.dtype
            return plain(x, w_NK.to(x.dtype))

        return multiply

    monkeypatch.setattr(layers, "linear_of", noting)
    model = Decoder(shape(technique=technique, feed=feed, leading=1, dtype="bfloat16"))
    model(symbols(64))
    expected = set()
    for name, parameter in model.blocks.named_parameters():
        if parameter.ndim > 1 and "matrix_ED" not in name:
            expected |= {part.data_ptr() for part in (parameter if "_E" in name else [parameter])}
    assert set(seen) <= expected and set(seen.values()) == {torch.float32}
    unused = len(expected) - len(seen)
    assert unused == 0 or (feed.startswith("moe") and unused < 6)  # experts without tokens


@pytest.mark.parametrize("product", HERE)
def test_a_model_in_fp8_is_nearly_the_plain_one_and_products_agree(product):
    plain, fp8 = (Decoder(shape(linear, feed="dense"), product=product) for linear in ("bf16", "fp8"))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), fp8.parameters(), strict=True))
    exact, found = plain(symbols()).logits_BTV, fp8(symbols()).logits_BTV
    assert 0.003 < (found - exact).norm() / exact.norm() < 0.1
    other = Decoder(shape("fp8", feed="dense"), product="reference")(symbols()).logits_BTV
    assert (found - other).norm() / exact.norm() < 0.002  # sums in another order turn a few ties


def test_a_mixture_in_fp8_routes_as_the_plain_one_and_its_experts_are_in_fp8():
    plain, fp8 = (Decoder(shape(linear), form="reference").mixtures[0] for linear in ("bf16", "fp8"))
    x_BTD = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1))
    (_, routed), (y_BTD, in_fp8) = plain(x_BTD), fp8(x_BTD)
    assert torch.equal(routed.experts_MK, in_fp8.experts_MK) and torch.equal(routed.s_ME, in_fp8.s_ME)
    weights = fp8.held.weights(torch.float32)
    routing = Routing(gates(in_fp8.s_ME, in_fp8.experts_MK, RULE), in_fp8.experts_MK)
    expected = mixture_forward(weights, x_BTD.flatten(0, 1), routing, linear=linear_of("fp8"))
    assert torch.equal(y_BTD.flatten(0, 1), expected)


def test_masters_stay_fp32_where_the_model_computes_in_bfloat16():
    held = Decoder(shape(dtype="bfloat16")).mixtures[0].held
    plain, masters = held.weights(torch.bfloat16), held.weights(torch.bfloat16, masters=True)
    assert plain.w_in_EUD.dtype == torch.bfloat16 and masters.w_in_EUD.dtype == torch.float32
    assert masters.shared.w_out_DW.dtype == torch.float32
    assert masters.router.matrix_ED.dtype == torch.bfloat16 and masters.router.bias_E.dtype == torch.float32


def test_training_in_fp8_lowers_the_loss(text_N, train):
    plain = train(steps=20)
    fp8 = Training(Decoder(replace(plain.model.shape, linear="fp8"), 1, product="dequantized"), text_N, plain.recipe)
    losses = [[training.advance().bits for _ in range(20)] for training in (plain, fp8)]
    assert losses[1][-1] < 0.7 * losses[1][0] and losses[0] != losses[1]
    assert all(abs(a / b - 1) < 0.1 for a, b in zip(*losses, strict=True))


def test_wrong_names_are_told():
    with pytest.raises(ValueError, match="linear is 'fp4', expected one of bf16, fp8, fp8-row, fp8-tensor"):
        shape("fp4")
    with pytest.raises(ValueError, match="product is 'fast', expected one of reference, dequantized"):
        Decoder(shape(), product="fast")
    with pytest.raises(ValueError, match="mixture 'sorted' has no FP8 products: with linear fp8 take 'reference'"):
        Decoder(shape(), form="sorted")
    assert Decoder(shape()).form == "reference" and Decoder(shape("bf16")).form == "sorted"


@pytest.fixture
def draw_generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
