"""What is drawn: sequences clear of ties, the same weights in every run, and what cannot run, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.composed import inputs
from impls.composed.combination import ALL, ALONE, FEW, PLAINEST, Combination, combinations
from impls.composed.shape import LadderShape, refusing
from impls.model import margins
from impls.model.training import Recipe
from impls.model.whole import whole
from impls.objective.weights import model_of


@pytest.mark.parametrize("technique", ["mha-moe-bf16-mtp", "mla-moe-fp8-ntp", ALL.name])
def test_sequences_are_clear_of_ties_before_the_symbol_that_is_not_fed(technique, text_of):
    shape = text_of(technique)
    weights = inputs.draw_weights(shape, technique, torch.Generator().manual_seed(5))
    again = inputs.draw_weights(shape, technique, torch.Generator().manual_seed(6))
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    windows = [inputs.draw_windows(shape, technique, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(windows[0].given_BT, windows[1].given_BT)
    assert not torch.equal(windows[0].given_BT, windows[2].given_BT)
    texts = inputs.draw_texts(shape, technique, torch.Generator().manual_seed(1))
    assert windows[0].given_BT.shape == (8, 9) and texts.symbols_BT.shape == (8, 8)
    model = model_of(weights, shape.of(technique))
    for given_BT in (windows[2].given_BT[:, :8], texts.symbols_BT):
        least_B = margins.of_routers(model, model.streams, given_BT, torch.full((8,), 8))
        assert least_B.min() > margins.LEAST[model.shape.in_fp8][1]


def test_sequences_that_cannot_be_had_are_told(text_of, monkeypatch):
    monkeypatch.setitem(margins.LEAST, False, (0.0, 1.0))
    with pytest.raises(ValueError, match="of 320 sequences of 8 symbols 0 have routers clear of a tie, 8 are needed"):
        inputs.draw_texts(text_of("mha-moe-bf16-ntp"), "mha-moe-bf16-ntp", torch.Generator())


def test_in_sixteen_bits_nothing_is_passed_over(text_of, narrow_of, monkeypatch):
    monkeypatch.setitem(margins.LEAST, False, (0.0, 1.0))
    shape = text_of("mha-moe-bf16-ntp", model=narrow_of(dtype="bfloat16"))
    assert inputs.draw_texts(shape, "mha-moe-bf16-ntp", torch.Generator()).symbols_BT.shape == (8, 8)


def test_prompts_and_weights_are_one_with_and_without_mtp(generate_of):
    plain, drafting = "mla-moe-fp8-ntp", ALL.name
    shape = generate_of(plain, drafting)
    prompts = [inputs.draw_prompts(shape, one, torch.Generator().manual_seed(3)) for one in (plain, drafting)]
    assert torch.equal(prompts[0].symbols_BP, prompts[1].symbols_BP)
    weights = [inputs.draw_trained_weights(shape, one, torch.Generator()) for one in (plain, drafting)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert len(weights[0]) < len(weights[1])


def test_who_does_not_take_part_is_told_why(text_of, generate_of):
    shape = text_of(PLAINEST.name, length=65)
    assert refusing(PLAINEST.name)(shape) is None
    assert refusing(ALL.name)(shape) == "here 1 of 16 combinations take part: mha-dense-bf16-ntp"
    long = text_of(ALL.name, length=33)
    assert "its routers make 66 choices a sequence; of more than 64 some hang on a rounding" in refusing(ALL.name)(long)
    assert refusing(ALL.name)(text_of(ALL.name, length=32)) is None
    assert refusing("mla-moe-bf16-mtp")(text_of("mla-moe-bf16-mtp", length=4096)) is None
    assert refusing("mla-moe-bf16-mtp")(text_of("mla-moe-bf16-mtp", length=40960)) is not None
    assert refusing(ALL.name)(generate_of(ALL.name, prompt=40, count=24)) is None
    assert "in FP8" in refusing(ALL.name)(generate_of(ALL.name, prompt=40, count=25))
    attention, ffn = (replace(part, dtype="bfloat16") for part in (long.model.attention, long.model.ffn))
    assert refusing(ALL.name)(replace(long, model=replace(long.model, attention=attention, ffn=ffn))) is None


def test_names():
    assert [Combination.named(one.name) for one in combinations()] == combinations()
    assert len(FEW) == 6 and FEW[0] == PLAINEST.name and FEW[-1] == ALL.name
    assert FEW[1:-1] == tuple(one.name for one in ALONE)
    for word in ("mha-dense-bf16", "mha-dense-bf16-ntp-x", "gqa-dense-bf16-ntp"):
        with pytest.raises(ValueError, match=r"is no combination|attention is 'gqa', expected mha or mla"):
            Combination.named(word)
    with pytest.raises(ValueError, match="is no combination"):
        LadderShape(None, ("everything",), Recipe(1), 1, 1, ())


@pytest.mark.parametrize("technique", ["mha-moe-bf16-ntp", "mla-moe-fp8-ntp", "mha-dense-fp8-ntp"])
def test_prompts_are_clear_of_ties_in_symbols_and_experts(technique, generate_of, registry):
    shape = generate_of(technique)
    weights = inputs.draw_trained_weights(shape, technique, torch.Generator())
    given = inputs.draw_prompts(shape, technique, torch.Generator().manual_seed(4))
    new_BN = registry.reference("model.generate", technique).setup(weights, shape)(given)
    model = model_of(weights, shape.of(technique))
    of_logits, of_scores = margins.LEAST[model.shape.in_fp8]
    for prompt_P, length, new_N in zip(given.symbols_BP, given.lengths_B, new_BN, strict=True):
        text_1T = torch.cat((prompt_P[:length], new_N))[None, :-1]
        with torch.no_grad():
            best_N2 = whole(model)(text_1T).logits_BTV[0, length - 1 :].topk(2).values
        assert (best_N2[:, 0] - best_N2[:, 1]).min() > of_logits * 0.99
        ends = torch.tensor([text_1T.shape[1]])
        assert margins.of_routers(model, whole(model), text_1T, ends).min() > of_scores * 0.99
