"""Whole sequences as generation computes them: the model itself, but for MLA in FP8."""

from __future__ import annotations

import pytest
import torch

from impls.model.decoder import Decoder
from impls.model.serving import Server
from impls.model.shape import small_shape
from impls.model.whole import Whole, whole

SIZES = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 8}


@pytest.fixture
def symbols_BT():
    return torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("objective", ["ntp", "mtp", "mtp-parallel"])
@pytest.mark.parametrize("technique", ["mha", "mla"])
@torch.no_grad()
def test_without_fp8_it_is_the_model(technique, objective, symbols_BT):
    model = Decoder(small_shape(**SIZES, technique=technique, objective=objective, depth=2))
    one, two = model(symbols_BT, further=True), Whole(model)(symbols_BT, further=True)
    torch.testing.assert_close(two.logits_BTV, one.logits_BTV, rtol=1e-4, atol=1e-4)
    assert len(two.ahead) == len(one.ahead) == model.shape.ahead
    for found, expected in zip(two.ahead, one.ahead, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert whole(model) is model and Whole(model)(symbols_BT).ahead == ()


@torch.no_grad()
def test_mla_in_fp8_is_what_a_cache_gives_symbol_by_symbol(symbols_BT):
    model = Decoder(small_shape(**SIZES, linear="fp8"))
    found_BTV = whole(model)(symbols_BT).logits_BTV
    server, rows = Server(model, *symbols_BT.shape), []
    for at in range(symbols_BT.shape[1]):
        x_B1D, _ = server.stream(symbols_BT[:, at : at + 1], torch.full((2, 1), at))
        rows.append(model.head(x_B1D))
    off = (torch.cat(rows, 1) - found_BTV).norm() / found_BTV.norm()
    training = (model(symbols_BT).logits_BTV - found_BTV).norm() / found_BTV.norm()
    assert off < 0.01 < 0.015 < training  # up-projections are in FP8 in training and not here
    assert whole(Decoder(small_shape(**SIZES, linear="fp8", technique="mha"))).__class__ is Decoder
