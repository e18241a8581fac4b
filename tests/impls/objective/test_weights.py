"""Weights that were recorded: small, of the data and recipe they name, and better than chance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from impls.model import tensors
from impls.model.corpus import batch
from impls.model.decoder import Decoder
from impls.model.training import depth_losses, language_loss
from impls.objective import weights
from impls.objective.weights import MODEL, RECIPE, RECORDED, model_of, trained


def test_the_recorded_file_is_small_and_says_what_it_is():
    found, metadata = tensors.load(RECORDED)
    assert RECORDED.stat().st_size < 2**20
    assert metadata["command"] == "python -m impls.objective.weights" and "digest" in metadata["data"]
    made_of = json.loads(metadata["made_of"])
    assert made_of["recipe"]["steps"] == RECIPE.steps and made_of["shape"]["objective"] == "mtp"
    known = trained(MODEL, RECIPE, "cpu")
    assert known.origin == "recorded" and known.digest == metadata["sha256"]
    assert known.told == f"weights {metadata['sha256'][:12]} (recorded)"
    assert all(torch.equal(known.weights[name].to(torch.bfloat16), tensor) for name, tensor in found.items())


@torch.no_grad()
def test_the_recorded_model_has_learnt_to_read_and_to_draft():
    _, metadata = tensors.load(RECORDED)
    model = model_of(trained(MODEL, RECIPE, "cpu").weights, MODEL)
    given_BT = batch(weights.corpus().validation_N, 16, 96, seed=0, step=0)
    output = model(given_BT[:, :-1], further=True)
    found = [language_loss(output, given_BT), *depth_losses(output, given_BT)]
    told = [float(word) for word in metadata["validation_bits"].split()]
    for loss, bits in zip(found, told, strict=True):
        assert float(loss) / 0.6931 == pytest.approx(bits, abs=0.4)
    assert max(told) < 2.5  # a module knows the symbol before its own, as the model does


def test_another_recipe_is_trained_anew(new_shape):
    recipe = replace(new_shape.recipe, rate=2e-2)
    one = trained(new_shape.model, recipe, "cpu")
    again = trained.__wrapped__(new_shape.model, recipe, "cpu")
    other = trained.__wrapped__(new_shape.model, replace(recipe, seed=1), "cpu")
    assert one.origin == "trained" and one.digest == again.digest != other.digest


def test_fp64_weights_make_a_model_in_fp64(new_shape):
    wide = {name: t.double() for name, t in trained(new_shape.model, new_shape.recipe, "cpu").weights.items()}
    output = model_of(wide, new_shape.model)(torch.randint(256, (1, 8)), further=True)
    assert output.logits_BTV.dtype == output.ahead[0].dtype == torch.float64
    assert weights.model_of(wide, new_shape.model).head_VD.data_ptr() == wide["head_VD"].data_ptr()


def test_weights_that_are_replaced_are_not_drawn(new_shape, monkeypatch):
    """And nothing of a model that is made of given weights is left as it was found in memory."""
    state = {name: tensor.detach() for name, tensor in Decoder(new_shape.model, 3).state_dict().items()}
    real = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *sizes, **words: real(*sizes, **words).fill_(torch.nan))
    made = weights.model_of(state, new_shape.model)
    assert all(tensor.isfinite().all() for tensor in [*made.parameters(), *made.buffers()])
    assert dict(made.state_dict()).keys() == state.keys() and made(torch.zeros(1, 3, dtype=torch.int64))
    with weights.Undrawn():
        assert torch.randn(2, 3, generator=torch.Generator()).isnan().all() and torch.ones(2).sum() == 2
