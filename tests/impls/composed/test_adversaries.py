"""Whole models that leave out an idea, or half of one, must not pass for those that have it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.verify import Incorrect, check, compute_truth
from impls.composed import optimized
from impls.composed.combination import Combination
from impls.composed.inputs import Prefilled
from impls.ffn.reference import dense_forward
from impls.linear import dequantized
from impls.linear.reference_train import Fp8Linear
from impls.model import layers
from impls.model.choosing import Greedy
from impls.model.decoder import Decoder
from impls.model.generation import Plain, Speculative
from impls.objective import chunked, reference
from impls.objective.weights import model_of

ALL = "mla-moe-fp8-mtp"
STEP, PREFILL, GENERATE = "model.train_step", "model.prefill", "model.generate"
WITHOUT = {"attention": "mha", "ffn": "dense", "linear": "bf16", "objective": "ntp"}


@pytest.fixture
def caught(registry, draw):
    """Judge what a setup returns for a technique by that technique's truth; the words it was caught with."""

    def judged(operation: str, technique: str, shape, setup) -> str:
        contract = registry.operations[operation]
        weights, given = draw(contract, shape, technique)
        truth = compute_truth(contract, registry.reference(operation, technique).setup, weights, given, shape, "cpu")
        with pytest.raises(Incorrect) as error:
            check(contract.normal(setup(weights, shape)(given)), truth)
        return str(error.value)

    return judged


def fitting(weights: dict[str, Tensor], model: Decoder) -> Decoder:
    """A model of other choices with all the weights that fit into it, the rest as drawn."""
    own = model.state_dict()
    fits = {
        name: weights[name] for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape
    }
    model.load_state_dict({**own, **fits}, assign=True)
    return model


@pytest.mark.parametrize("axis", list(WITHOUT))
def test_a_prefill_without_an_idea_is_caught(axis, caught, text_of):
    one = Combination.named(ALL)
    other = replace(one, **{axis: WITHOUT[axis]})

    def setup(weights, shape):
        model = fitting(weights, Decoder(other.of(shape.model)))

        @torch.no_grad()
        def call(texts):
            streams, _ = model.streams(texts.symbols_BT)
            found = [
                (norm(x_BTD), model.head(x_BTD, norm)[:, -1]) for x_BTD, norm in zip(streams, model.norms, strict=True)
            ]
            found += [(found[0][0][:, 1:], found[0][1])] if axis == "objective" else []
            return Prefilled(*zip(*found, strict=True))

        return call

    said = caught(PREFILL, ALL, text_of(ALL), setup)
    assert ("states.1" if axis == "objective" else "states.0") in said and "off by" in said


@pytest.mark.parametrize("axis", list(WITHOUT))
def test_a_step_without_an_idea_is_caught(axis, caught, text_of):
    one = Combination.named(ALL)
    other = replace(one, **{axis: WITHOUT[axis]})

    def setup(weights, shape):
        made = reference.stepping(other.objective)
        windows = replace(shape.windows(ALL), model=other.of(shape.model))
        fits = fitting(weights, Decoder(windows.model)).state_dict()
        step = made({name: tensor.detach() for name, tensor in fits.items()}, windows)

        def call(given):
            found = step(given)
            gradients = {
                name: found.gradients.get(name, torch.zeros_like(weights[name]))
                for name in weights
                if "bias_E" not in name
            }
            return replace(found, gradients=gradients, further=found.further or (found.loss,))

        return call

    assert "off by" in caught(STEP, ALL, text_of(ALL), setup)


def test_fp8_in_two_of_three_products_is_caught(caught, text_of, monkeypatch):
    """Gradients of weights computed from what was not quantized."""
    real = Fp8Linear.backward

    def backward(ctx, dy_MN):
        dx_MK, _, *rest = real(ctx, dy_MN)
        return dx_MK, dy_MN.float().T @ ctx.saved_tensors[0].float(), *rest

    technique = "mha-dense-fp8-ntp"
    one = Combination.named(technique)
    made = next(iter(optimized.parts(one)))

    def setup(weights, shape):
        step = optimized.stepping(one, made)(weights, shape)

        def call(given):
            with monkeypatch.context() as patch:
                patch.setattr(layers, "linear_of", lambda *_: None)
                patch.setattr(Fp8Linear, "backward", staticmethod(backward))
                return step(given)

        return call

    assert "off by" in caught(STEP, technique, text_of(technique), setup)
    assert made.product == dequantized.NAME


def test_a_mixture_of_its_shared_experts_alone_is_caught(caught, text_of, monkeypatch):
    technique = "mha-moe-bf16-ntp"

    def shared(w, x_MD, routed=None, kept_MK=None):
        return dense_forward(w.shared, x_MD)

    one = Combination.named(technique)

    def setup(weights, shape):
        with monkeypatch.context() as patch:
            patch.setitem(layers.MIXTURES, "sorted", shared)
            return optimized.prefilling(one, next(iter(optimized.parts(one))))(weights, shape)

    assert "states.0 is off by" in caught(PREFILL, technique, text_of(technique), setup)


def test_one_expert_too_few_is_caught(caught, text_of, narrow_of):
    technique = "mla-moe-bf16-mtp"
    one = Combination.named(technique)

    def setup(weights, shape):
        router = replace(shape.model.ffn.router, top_k=1)
        fewer = replace(shape, model=replace(shape.model, ffn=replace(shape.model.ffn, router=router)))
        return optimized.stepping(one, next(iter(optimized.parts(one))))(weights, fewer)

    shape = text_of(technique, model=narrow_of(leading=0))
    assert "off by" in caught(STEP, technique, shape, setup)


def test_another_weight_of_further_losses_is_caught(caught, text_of, monkeypatch):
    technique = "mha-dense-bf16-mtp"
    one = Combination.named(technique)

    def setup(weights, shape):
        with monkeypatch.context() as patch:
            patch.setattr(chunked, "WEIGHT", 0.299)
            return optimized.stepping(one, next(iter(optimized.parts(one))))(weights, shape)

    assert "gradients" in caught(STEP, technique, text_of(technique), setup)


class Believing(Greedy):
    """Every draft stands."""

    def verify(self, logits_BTV, drafts_BK):
        best_BT, accepted_B = super().verify(logits_BTV, drafts_BK)
        best_BT[:, :-1] = drafts_BK
        return best_BT, torch.full_like(accepted_B, drafts_BK.shape[1])


@pytest.mark.parametrize("technique", ["mha-dense-bf16-mtp", "mla-moe-bf16-mtp", ALL])
def test_drafts_that_are_not_verified_are_caught(technique, caught, generate_of):
    def setup(weights, shape):
        model = model_of(weights, shape.of(technique))
        generation = Speculative(model, shape.batch, shape.prompt, shape.count, Believing())
        return lambda given: generation.run(given.symbols_BP, given.lengths_B).symbols_BN

    said = caught(GENERATE, technique, generate_of(technique, count=12), setup)
    assert "whole numbers" in said


@pytest.mark.parametrize("technique", ["mha-moe-bf16-ntp", "mla-dense-bf16-ntp"])
def test_a_cache_that_forgets_the_prompt_is_caught(technique, caught, generate_of):
    def setup(weights, shape):
        model = model_of(weights, shape.of(technique))
        generation = Plain(model, shape.batch, shape.prompt, shape.count)
        stream = generation.server.stream

        def forgetful(symbols_BT, positions_BT):
            return stream(symbols_BT, positions_BT.clamp_max(3))

        generation.server.stream = forgetful
        return lambda given: generation.run(given.symbols_BP, given.lengths_B).symbols_BN

    assert "whole numbers" in caught(GENERATE, technique, generate_of(technique, count=12), setup)


def test_a_router_that_ignores_its_groups_is_caught(caught, text_of):
    technique = "mha-moe-bf16-ntp"
    one = Combination.named(technique)

    def setup(weights, shape):
        router = replace(shape.model.ffn.router, groups=1, top_groups=1)
        free = replace(shape, model=replace(shape.model, ffn=replace(shape.model.ffn, router=router)))
        return optimized.prefilling(one, next(iter(optimized.parts(one))))(weights, free)

    assert "states.0 is off by" in caught(PREFILL, technique, text_of(technique), setup)
