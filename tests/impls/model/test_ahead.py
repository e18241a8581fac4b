"""Symbols after the next one: the paper's equations step by step, what each depth can see, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from impls.ffn.shape import Router
from impls.model import checkpoint
from impls.model.decoder import Decoder
from impls.model.shape import parameters, small_shape
from impls.model.training import Recipe, Training, depth_losses, further_loss, language_loss

RULE = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True)
AHEAD = ("mtp", "mtp-parallel")
LENGTH = 12


def shape(objective="mtp", depth=2, **more):
    sizes = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 16, "router": RULE, **more}
    return small_shape(objective=objective, depth=depth, **sizes)


@pytest.fixture
def given_BT() -> torch.Tensor:
    return torch.randint(256, (2, LENGTH + 1), generator=torch.Generator().manual_seed(0))


def rms(x, gain, eps=1e-6):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


@torch.no_grad()
def test_modules_compute_the_papers_equations(given_BT):
    model, symbols_BT = Decoder(shape(), seed=1), given_BT[:, :-1]
    for module in model.ahead:  # gains of 1 would hide which norm is used where
        for norm in (module.hidden_norm, module.embedding_norm, module.norm):
            norm.gain_C.copy_(1 + 0.3 * torch.randn(32))
    output = model(symbols_BT, further=True)
    h_BTD, _ = model.hidden(symbols_BT)
    for k, module in enumerate(model.ahead, 1):
        count = LENGTH - k
        e_BTD = model.embedding_VD[symbols_BT[:, k : k + count]]
        both = torch.cat(
            (rms(h_BTD[:, :count], module.hidden_norm.gain_C), rms(e_BTD, module.embedding_norm.gain_C)), -1
        )
        h_BTD, _ = module.block(both @ module.join.T)
        expected = rms(h_BTD, module.norm.gain_C) @ model.head_VD.T
        assert output.ahead[k - 1].shape == (2, count, 256)
        assert torch.allclose(output.ahead[k - 1], expected, atol=1e-5)


@torch.no_grad()
def test_heads_stand_beside_the_last_block(given_BT):
    model, symbols_BT = Decoder(shape("mtp-parallel"), seed=1), given_BT[:, :-1]
    z_BTD = model.blocks[0](model.embedding_VD[symbols_BT])[0]
    for k, head in enumerate(model.ahead, 1):
        expected = head.norm(head.block(z_BTD)[0]) @ model.head_VD.T
        found = model(symbols_BT, further=True).ahead[k - 1]
        assert torch.allclose(found, expected[:, : LENGTH - k], atol=1e-5)


@pytest.mark.parametrize("objective", AHEAD)
def test_without_further_symbols_it_is_the_same_model(objective, given_BT):
    plain, more = Decoder(shape("ntp"), seed=3), Decoder(shape(objective), seed=3)
    both = dict(more.named_parameters())
    assert all(torch.equal(value, both[name]) for name, value in plain.named_parameters())
    assert not plain.ahead and len(more.ahead) == 2
    one, two = plain(given_BT[:, :-1], further=True), more(given_BT[:, :-1], further=True)
    assert torch.equal(one.logits_BTV, two.logits_BTV) and one.ahead == ()
    assert further_loss(one, given_BT, "ntp", 0.3) == 0
    (language_loss(one, given_BT)).backward()
    (language_loss(two, given_BT) + 0.0 * further_loss(two, given_BT, objective, 0.3)).backward()
    for name, value in plain.named_parameters():
        assert torch.equal(value.grad, both[name].grad), name


def test_embedding_and_head_are_shared_and_learn_from_every_depth(given_BT):
    model = Decoder(shape())
    assert [name for name, p in model.named_parameters() if 256 in p.shape] == ["embedding_VD", "head_VD"]
    output = model(given_BT[:, :-1], further=True)
    for loss in depth_losses(output, given_BT):
        shared = torch.autograd.grad(loss, (model.embedding_VD, model.head_VD), retain_graph=True)
        assert all(float(gradient.abs().max()) > 0 for gradient in shared)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_loss_is_the_papers_sum(depth, given_BT):
    model = Decoder(shape(depth=depth))
    output = model(given_BT[:, :-1], further=True)
    total = 0.0
    for k in range(1, depth + 1):
        logs = output.ahead[k - 1].log_softmax(-1)
        for b in range(2):
            for i in range(LENGTH - k):  # position i predicts symbol i + k + 1
                total -= float(logs[b, i, given_BT[b, i + k + 1]].detach()) / 2 / LENGTH
    assert float(further_loss(output, given_BT, "mtp", 0.3).detach()) == pytest.approx(0.3 / depth * total, rel=1e-5)


def test_parallel_heads_weigh_alike(given_BT):
    output = Decoder(shape("mtp-parallel"))(given_BT[:, :-1], further=True)
    expected = sum(F.cross_entropy(x.transpose(1, 2), given_BT[:, k + 1 :]) for k, x in enumerate(output.ahead, 1))
    assert torch.allclose(further_loss(output, given_BT, "mtp-parallel", 0.3), expected)


@torch.no_grad()
@pytest.mark.parametrize("objective", AHEAD)
@pytest.mark.parametrize("technique", ["mha", "mla"])
def test_a_depth_sees_as_far_as_it_may(objective, technique, given_BT):
    """A module of depth k knows symbols up to i + k, a parallel head those up to i."""
    model, symbols_BT = Decoder(shape(objective, technique=technique)).double(), given_BT[:, :-1]
    changed_BT, at = symbols_BT.clone(), 7
    changed_BT[:, at] = (changed_BT[:, at] + 1) % 256
    before, after = model(symbols_BT, further=True), model(changed_BT, further=True)
    for k, (one, two) in enumerate(zip(before.ahead, after.ahead, strict=True), 1):
        first = at - k if objective == "mtp" else at
        assert torch.allclose(one[:, :first], two[:, :first], atol=1e-5)
        assert not torch.allclose(one[:, first], two[:, first], atol=1e-4)


@pytest.mark.parametrize("feed", ["dense", "moe"])
@pytest.mark.parametrize("objective", AHEAD)
def test_parameters_are_counted(objective, feed):
    asked = shape(objective, feed=feed)
    assert sum(p.numel() for p in Decoder(asked).parameters() if p.ndim > 1) == parameters(asked)
    assert parameters(asked, active=True) == parameters(replace(asked, objective="ntp"), active=True)
    assert len(Decoder(asked).mixtures) == (3 if feed == "moe" else 0)


@pytest.mark.parametrize("objective", AHEAD)
def test_training_teaches_every_depth_and_notes_it(objective, text_N):
    recipe = Recipe(steps=30, batch=4, length=32, rate=1e-2, warm_up=3)
    training = Training(Decoder(shape(objective)), text_N, recipe)
    windows_BT = text_N[: 4 * 33].long().view(4, 33)
    training.note(training.evaluate(windows_BT))
    for _ in range(30):
        training.advance()
    training.note(training.evaluate(windows_BT))
    for name in ("validation_bits", "validation_bits_1", "validation_bits_2"):
        first, last = training.curves[name]
        assert first > 6 and last < first - 2
    with torch.no_grad():
        losses = depth_losses(training.model(windows_BT[:, :-1], further=True), windows_BT)
    assert training.curves["validation_bits_2"][-1] == pytest.approx(float(losses[1]) / math.log(2), rel=1e-5)


def test_a_resumed_training_goes_on_to_the_same_bits(text_N, tmp_path):
    def made(objective="mtp"):
        return Training(Decoder(shape(objective)), text_N, Recipe(steps=6, batch=2, length=16, warm_up=2))

    whole, half, again = made(), made(), made()
    bits = [whole.advance().bits for _ in range(6)]
    for _ in range(4):
        half.advance()
    checkpoint.save(tmp_path / "a.safetensors", half.state())
    again.restore(checkpoint.load(tmp_path / "a.safetensors"))
    assert [again.advance().bits for _ in range(2)] == bits[4:]  # the weight of later symbols falls at step 5
    assert torch.equal(again.model.ahead[1].join, whole.model.ahead[1].join)
    with pytest.raises(ValueError, match="made with another shape"):
        made("ntp").restore(half.state())


def test_the_weight_falls_once():
    recipe = Recipe(steps=148)
    assert [recipe.ahead_at(step) for step in (0, 99, 100, 147)] == [0.3, 0.3, 0.1, 0.1]


def test_a_step_follows_the_weighted_loss(text_N):
    """Without weight a module gets no gradient; with it the main model's first loss is the same."""
    losses, moved = [], []
    for weight in (0.0, 0.3):
        recipe = Recipe(steps=4, batch=2, length=16, ahead=weight, decay=0.0)
        training = Training(Decoder(shape(), seed=2), text_N, recipe)
        before = training.model.ahead[0].join.detach().clone()
        losses.append(training.advance().bits)
        moved.append(not torch.equal(before, training.model.ahead[0].join))
    assert losses[0] == losses[1] and moved == [False, True]


@pytest.mark.parametrize(
    ("wrong", "told"), [({"objective": "all"}, "objective is 'all'"), ({"depth": 0}, "depth is 0, expected at least 1")]
)
def test_wrong_objectives_are_named(wrong, told):
    with pytest.raises(ValueError, match=told):
        replace(shape(), **wrong)
