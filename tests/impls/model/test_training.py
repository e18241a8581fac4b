"""Training: the loss falls, a run killed in the middle goes on to the same bits, and damage is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from impls.ffn.shape import Router
from impls.model import checkpoint
from impls.model.balancing import Balancing, loads, violation
from impls.model.corpus import windows
from impls.model.decoder import Decoder
from impls.model.layers import MIXTURES
from impls.model.loop import advance, fit, points, resume
from impls.model.shape import small_shape
from impls.model.training import Recipe, Training, reproducible

ROOT = Path(__file__).parents[3]
BIAS = Balancing(bias_speed=0.02, sequence=0.001)
DROPPING = Balancing(device=0.05, communication=0.02, capacity=1.0)


def test_the_loss_falls(train, text_N):
    training = train(steps=40)
    first = training.advance().bits
    advance({"one": training}, 40)
    assert first > 6 and training.stretch[-1].bits < 3
    assert training.evaluate(windows(text_N, 8, 32)).bits < 3


def test_rates_warm_up_and_fall_to_a_tenth():
    recipe = Recipe(steps=100, rate=1.0, warm_up=10)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[10] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_norms_do_not_decay(train):
    matrices, vectors = train().optimizer.param_groups
    assert matrices["weight_decay"] == 0.1 and vectors["weight_decay"] == 0.0
    assert {p.ndim for p in vectors["params"]} == {1} and min(p.ndim for p in matrices["params"]) == 2


@pytest.mark.parametrize("balancing", [BIAS, DROPPING])
def test_a_run_resumed_from_a_checkpoint_goes_on_to_the_same_bits(balancing, train, text_N, tmp_path):
    whole, half, again = train(balancing), train(balancing), train(balancing)
    all_of_it = [whole.advance().bits for _ in range(12)]
    for _ in range(5):
        half.advance()
    checkpoint.save(tmp_path / "one.safetensors", half.state())
    torch.rand(3)  # the generator moves on, restoring must not care
    assert resume({"one": again}, tmp_path) == ["one"]
    assert [step.bits for step in again.stretch] == all_of_it[:5] and again.stretch == half.stretch
    assert [again.advance().bits for _ in range(7)] == all_of_it[5:]
    assert torch.equal(again.model.mixtures[0].bias_E, whole.model.mixtures[0].bias_E)
    given = windows(text_N, 4, 32)
    assert again.evaluate(given).bits == whole.evaluate(given).bits


def test_steps_are_deterministic_on_several_threads_and_leave_the_setting_as_it_was():
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    x_MD, at_P = torch.randn(1024, 128, generator=generator), torch.randint(1024, (4096,), generator=generator)
    dy_PD = torch.randn(4096, 128, generator=generator)

    def gradient() -> torch.Tensor:
        given_MD = x_MD.clone().requires_grad_()
        return torch.autograd.grad(given_MD[at_P], given_MD, dy_PD)[0]

    before = torch.are_deterministic_algorithms_enabled()
    with reproducible(torch.device("cpu")):
        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(40))
    assert torch.are_deterministic_algorithms_enabled() == before


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from tests.impls.model.conftest import TEXT
from impls.ffn.shape import Router
from impls.model.balancing import Balancing
from impls.model.corpus import windows
from impls.model.decoder import Decoder
from impls.model import loop
from impls.model.loop import fit, resume
from impls.model.shape import small_shape
from impls.model.training import Recipe, Training
torch.set_num_threads(1)
folder, kill_at, loop.SAVING_SHARE = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
data = torch.frombuffer(bytearray(TEXT), dtype=torch.uint8)
shape = small_shape(hidden=32, layers=2, head_dim=8, width=16, router=Router(8, 2, score="sigmoid"))
models = {
    name: Training(Decoder(shape), data, Recipe(steps=9, batch=4, length=32, warm_up=3), balancing)
    for name, balancing in (("none", Balancing()), ("bias", Balancing(bias_speed=0.02)))
}
resume(models, folder)
def noted(name, training):
    if training.done == kill_at and name == "none":
        os.kill(os.getpid(), signal.SIGKILL)
fit(models, windows(data, 4, 32), [1, 3, 6, 9], folder, noted=noted)
print({name: training.curves for name, training in models.items()})
"""


@pytest.mark.parametrize(("share", "saved"), [(1e9, {"none": 6, "bias": 3}), (1e-9, {"none": 1, "bias": 1})])
def test_a_killed_process_finishes_with_the_same_curves(tmp_path, share, saved):
    """Killed between two models' checkpoints, so that they resume from different steps; or after the first alone."""

    def go(folder: str, kill_at: int) -> subprocess.CompletedProcess:
        words = [sys.executable, "-c", KILLED, str(tmp_path / folder), str(kill_at), str(share)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    undisturbed = go("a", 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert go("b", 6).returncode == -signal.SIGKILL
    steps = {name: checkpoint.load(tmp_path / "b" / f"{name}.safetensors")["done"] for name in ("none", "bias")}
    assert steps == saved
    assert go("b", 0).stdout == undisturbed.stdout != ""


def test_a_checkpoint_is_replaced_in_one_step(train, tmp_path, monkeypatch):
    path = tmp_path / "one.safetensors"
    checkpoint.save(path, {"done": 1})

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"done": 2})
    assert checkpoint.load(path) == {"done": 1}
    path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match="is no checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_of_something_else_is_refused(train):
    state = train(BIAS).state()
    with pytest.raises(ValueError, match="made with another balancing"):
        train().restore(state)
    with pytest.raises(ValueError, match="made with another recipe"):
        train(BIAS, steps=13).restore(state)
    with pytest.raises(
        ValueError, match=r"of something else: it has no curves, done, loads, made_of, made_of\.balancing"
    ):
        train().restore({"model": state["model"]})
    with pytest.raises(ValueError, match=r"it has no made_of\.shape$"):
        train().restore(state | {"made_of": {"recipe": {}, "balancing": {}}})


def test_scores_that_are_not_finite_name_layer_and_step(train, text_N):
    training = train()
    for _ in range(2):
        training.advance()
    with torch.no_grad():
        training.model.mixtures[1].held.router.matrix_ED[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 2, step 2: the router's scores of 128 of 128 tokens"):
        training.advance()
    with pytest.raises(ValueError, match="layer 2, step 2"):
        training.evaluate(windows(text_N, 4, 32))
    assert training.done == 2


def test_one_model_that_fails_leaves_the_others_going(train, text_N):
    models = {"good": train(), "bad": train()}
    with torch.no_grad():
        models["bad"].model.mixtures[0].held.router.matrix_ED.fill_(torch.inf)
    failed = fit(models, windows(text_N, 4, 32), [1, 12])
    assert list(failed) == ["bad"] and "layer 1, step 0" in failed["bad"]
    assert models["good"].done == 12 and models["good"].curves["step"] == [1, 12]


def test_the_loop_stops_when_told_and_reports_what_is_left(train, text_N):
    told = []
    models = {"one": train(), "two": train(BIAS)}
    fit(models, windows(text_N, 4, 32), [1, 4, 12], reached=lambda stop, left: told.append((stop, left)) or stop == 4)
    assert [stop for stop, _ in told] == [1, 4] and told[0][1] > 0
    assert {training.done for training in models.values()} == {4}


def test_models_share_a_batch_before_any_update_whatever_balances_them(train):
    rules = [Balancing(), Balancing(expert=0.01), Balancing(device=0.05, communication=0.02), BIAS]
    first = [train(rule).advance() for rule in rules]
    assert len({(step.bits, step.violation) for step in first}) == 1
    second = [(t := train(rule)).advance() and t.advance().bits for rule in rules]
    assert len(set(second)) >= 3  # the losses tell from the first update on


def test_losses_reach_the_router_and_the_bias_does_not_touch_parameters(train):
    plain, pushed, biased = train(), train(Balancing(expert=10.0)), train(Balancing(bias_speed=0.5))
    for training in (plain, pushed, biased):
        training.advance()

    def router(training):
        return training.model.mixtures[0].held.router.matrix_ED

    assert not torch.equal(router(plain), router(pushed))
    assert torch.equal(router(plain), router(biased))
    assert set(biased.model.mixtures[0].bias_E.abs().unique().tolist()) <= {0.0, 0.5}
    assert not plain.model.mixtures[0].bias_E.any()


def test_validation_moves_nothing_and_counts_every_choice(train, text_N):
    training = train(BIAS)
    training.advance()
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    found = training.evaluate(windows(text_N, 10, 32))
    assert found.loads_LE.sum(1).tolist() == [10 * 32 * 2] * 2
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    training.note(found)
    assert training.curves["max_violation_global"] == [violation(found.loads_LE)]


def test_dropping_keeps_devices_within_their_share_and_spares_sequences(tiny):
    """Tokens of 10 sequences that all want the first device's two experts: a quarter of the pairs is its share."""
    balancing, rule = Balancing(capacity=1.0), tiny.rule
    experts_MK = torch.tensor([0, 1]).expand(200, 2)
    affinity_MK = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    masks = [balancing.keep(rule, 10, 0, step)(affinity_MK, experts_MK) for step in range(1, 41)]
    for mask_MK in masks:
        assert mask_MK.sum() == 400 // rule.groups
    spared = torch.stack([mask_MK.unflatten(0, (10, 20)).flatten(1).all(1) for mask_MK in masks])
    assert (spared.sum(1) == 1).all() and (spared.sum(0) > 0).sum() > 5  # one of ten, another each step
    assert torch.equal(balancing.keep(rule, 10, 0, 8)(affinity_MK, experts_MK), masks[7])
    assert balancing.keep(rule, 10, 0, 0) is None and Balancing().keep(rule, 10, 0, 1) is None
    every_MK = Balancing(capacity=1.0, exempt=1.0).keep(rule, 10, 0, 1)(affinity_MK, experts_MK)
    assert bool(every_MK.all())


def test_dropping_acts_in_training_alone_and_is_on_the_curves(train, text_N):
    dropping, whole = train(Balancing(capacity=0.5)), train()
    first, step = dropping.advance(), dropping.advance()
    assert whole.advance() == replace(first, nanoseconds=whole.stretch[0].nanoseconds) and first.dropped == 0
    assert whole.advance().dropped == 0 and step.dropped >= 0.4 and step.bits != whole.stretch[1].bits
    given = windows(text_N, 10, 32)
    start = train(Balancing(capacity=0.5)).evaluate(given), train().evaluate(given)
    assert start[0].bits == start[1].bits
    dropping.note(dropping.evaluate(given))
    whole.note(whole.evaluate(given))
    assert dropping.curves["dropped_share"] == [step.dropped / 2] and whole.curves["dropped_share"] == [0]


def test_loads_and_points():
    assert loads([]).shape == (0, 0) and violation(torch.zeros(0, 0)) == 0
    assert violation(torch.tensor([[4, 2, 0], [2, 2, 2]])) == pytest.approx(0.5)
    assert points(100, 5) == [1, 25, 50, 75, 100] and points(2, 9) == [1, 2] and points(1, 4) == [1]


def test_a_softmax_router_has_no_bias_to_move(train, tiny, text_N):
    shape = small_shape(hidden=32, layers=2, head_dim=8, width=16, router=Router(8, 2))
    training = Training(Decoder(shape), text_N, Recipe(steps=2, batch=2, length=16), Balancing(bias_speed=0.1))
    with pytest.raises(ValueError, match="layer 1: bias_speed is set"):
        training.advance()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", MIXTURES)
def test_every_form_trains_in_either_dtype(form, dtype, text_N):
    rule = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True)
    shape = small_shape(hidden=32, layers=2, head_dim=8, width=16, router=rule, dtype=dtype)
    training = Training(Decoder(shape, form=form), text_N, Recipe(steps=25, batch=4, length=32, rate=1e-2), BIAS)
    first = training.advance().bits
    advance({"one": training}, 25)
    assert training.stretch[-1].bits < first - 2
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in training.model.parameters())
