"""Generation: caches change nothing, drafts change only the time, and sampled symbols keep their distribution."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from impls.ffn.shape import Router
from impls.model import serving
from impls.model.choosing import Greedy, Sampled
from impls.model.decoder import Decoder
from impls.model.generation import Outcome, Plain, Speculative
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe, Training

COUNT = 20
LENGTHS = torch.tensor([16, 1, 2, 11])
FALSE_ALARMS = 1e-6


def shape(**more) -> ModelShape:
    rule = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True)
    sizes = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 16, "router": rule, "feed": "dense", **more}
    return small_shape(**sizes)


@pytest.fixture
def trained(text_N):
    def made(steps: int = 25, **more) -> Decoder:
        recipe = Recipe(steps=25, batch=4, length=32, rate=1e-2, warm_up=3)
        training = Training(Decoder(shape(**more)), text_N, recipe)
        for _ in range(steps):
            training.advance()
        return training.model

    return made


@pytest.fixture
def prompts_BP(text_N) -> torch.Tensor:
    return torch.stack([text_N[start : start + 16] for start in (0, 7, 20, 33)]).long()


@torch.no_grad()
def by_definition(model: Decoder, prompts_BP: torch.Tensor) -> torch.Tensor:
    """Whole sequences anew for every symbol."""
    rows = []
    for prompt_P, length in zip(prompts_BP, LENGTHS, strict=True):
        known = prompt_P[:length].tolist()
        for _ in range(COUNT):
            known.append(int(model(torch.tensor([known])).logits_BTV[0, -1].argmax()))
        rows.append(known[length:])
    return torch.tensor(rows)


@torch.no_grad()
def drafts_by_definition(model: Decoder, known: list[int], right: list[int]) -> int:
    """How many drafts stand after `known` symbols, of which the model has chosen the last."""
    symbols = list(known)
    for depth in range(len(model.ahead)):
        given = torch.tensor([symbols if model.shape.objective == "mtp" else [*known, *[0] * (depth)]])
        logits_BTV = model(given, further=True).ahead[depth]
        symbols.append(int(logits_BTV[0, len(known) - 2].argmax()))
    drafts = symbols[len(known) :]
    return next((at for at, pair in enumerate(zip(drafts, right, strict=True)) if pair[0] != pair[1]), len(drafts))


@pytest.mark.parametrize("feed", ["dense", "moe"])
@pytest.mark.parametrize("technique", ["mha", "gqa", "mla"])
def test_caches_and_drafts_change_nothing(technique, feed, trained, prompts_BP):
    model = trained(technique=technique, feed=feed, objective="mtp", depth=2)
    expected = by_definition(model, prompts_BP)
    plain = Plain(model, 4, 16, COUNT).run(prompts_BP, LENGTHS)
    drafted = Speculative(model, 4, 16, COUNT).run(prompts_BP, LENGTHS)
    assert torch.equal(plain.symbols_BN, expected) and plain.steps == COUNT - 1
    assert torch.equal(drafted.symbols_BN, expected) and drafted.steps < plain.steps
    assert len(expected.unique()) > 5


@pytest.mark.parametrize(("objective", "depth"), [("mtp", 1), ("mtp", 3), ("mtp-parallel", 2)])
def test_drafts_are_those_of_whole_sequences(objective, depth, trained, prompts_BP):
    """Accepted as often as drafts made anew from all symbols: a stale cache would only show in the acceptance."""
    model = trained(technique="mla", objective=objective, depth=depth).double()
    model.shape = in_double(model.shape)
    for block in [*model.blocks, *(one.block for one in model.ahead)]:
        block.attention.shape = model.shape
    outcome = Speculative(model, 4, 16, COUNT).run(prompts_BP, LENGTHS)
    expected = by_definition(model, prompts_BP)
    assert torch.equal(outcome.symbols_BN, expected)
    stood, sequences = [0] * depth, 0
    longer = Plain(model, 4, 16, COUNT + depth + 1).run(prompts_BP, LENGTHS).symbols_BN
    for prompt_P, length, chosen in zip(prompts_BP, LENGTHS.tolist(), longer.tolist(), strict=True):
        known = 1
        while known < COUNT:
            right = chosen[known : known + depth]
            count = drafts_by_definition(model, [*prompt_P[:length].tolist(), *chosen[:known]], right)
            stood = [before + (count > at) for at, before in enumerate(stood)]
            known, sequences = known + count + 1, sequences + 1
    assert outcome.accepted_K == tuple(stood) and outcome.sequences == sequences
    assert 0.2 < outcome.acceptance[0] <= 1


def in_double(one: ModelShape) -> ModelShape:
    return replace(one, attention=replace(one.attention, dtype="float64"), ffn=replace(one.ffn, dtype="float64"))


def test_what_modules_keep_of_refused_drafts_is_mended(trained, prompts_BP):
    """A module's stream at every position whose symbols are all known, against whole sequences."""
    generation = Speculative(trained(8, technique="mha", objective="mtp", depth=3), 4, 16, COUNT)
    outcome = generation.run(prompts_BP, LENGTHS)
    assert outcome.accepted_K[0] < outcome.sequences  # some were refused
    for row, known in enumerate(generation.known_B.tolist()):
        symbols_1T = generation.symbols_BS[row, :known][None]
        with torch.no_grad():
            streams, _ = generation.model.streams(symbols_1T)
        for depth, expected_1TD in enumerate(streams):
            found_TD = generation.streams[depth, row, : known - 1 - depth]
            assert torch.allclose(found_TD, expected_1TD[0, : known - 1 - depth], atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_useless_drafts_cost_steps_and_nothing_else(depth, trained, prompts_BP):
    model = trained(0, technique="mha", objective="mtp", depth=depth)
    outcome = Speculative(model, 4, 16, COUNT).run(prompts_BP, LENGTHS)
    assert torch.equal(outcome.symbols_BN, by_definition(model, prompts_BP))
    assert outcome.steps == COUNT - 1 and outcome.symbols_a_step < 1.1


def test_a_prompt_in_pieces_is_the_same_prompt(trained, prompts_BP, monkeypatch):
    model = trained(objective="mtp")
    runs = [Speculative(model, 4, 16, COUNT).run(prompts_BP, LENGTHS)]
    monkeypatch.setattr(serving, "PIECE", 5)
    runs.append(Speculative(model, 4, 16, COUNT).run(prompts_BP, LENGTHS))
    assert serving.pieces(16) == [(0, 5), (5, 10), (10, 15), (15, 16)]
    assert torch.equal(runs[0].symbols_BN, runs[1].symbols_BN) and runs[0].accepted_K == runs[1].accepted_K


def test_caches_can_be_used_again(trained, prompts_BP):
    generation = Speculative(trained(objective="mtp"), 4, 16, COUNT)
    first = generation.run(prompts_BP, LENGTHS)
    generation.run(prompts_BP.flip(0), LENGTHS)
    again = generation.run(prompts_BP, LENGTHS)
    assert torch.equal(first.symbols_BN, again.symbols_BN) and first.accepted_K == again.accepted_K


def test_projections_in_fp8_are_served_as_they_were_trained(prompts_BP):
    model = Decoder(shape(technique="mha", linear="fp8"), product="dequantized")
    expected = by_definition(model, prompts_BP)
    assert torch.equal(Plain(model, 4, 16, COUNT).run(prompts_BP, LENGTHS).symbols_BN, expected)


def test_what_happened_is_told_by_depth():
    outcome = Outcome(torch.zeros(1, 9), 5, 10, (8, 4))
    assert outcome.acceptance == (0.8, 0.5) and outcome.symbols_a_step == pytest.approx(2.2)


def test_a_model_without_further_predictions_cannot_draft():
    with pytest.raises(ValueError, match="objective ntp predicts the next symbol only"):
        Speculative(Decoder(shape()), 1, 4, 4)
    with pytest.raises(ValueError, match=r"prompts are \[2, 5\], there is room for 2 of up to 4"):
        Plain(Decoder(shape()), 2, 4, 4).run(torch.zeros(2, 5, dtype=torch.int64), torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="temperature is 0"):
        Sampled(torch.Generator(), 0.0)


def test_equal_logits_go_to_the_lowest_symbol():
    logits_BTV = torch.tensor([[[0.0, 3.0, 3.0], [1.0, 1.0, 1.0]]])
    assert Greedy().choose(logits_BTV[:, 0]).tolist() == [1]
    best, accepted = Greedy().verify(logits_BTV, torch.tensor([[2]]))
    assert best.tolist() == [[1, 0]] and accepted.tolist() == [0]


@pytest.fixture(scope="module")
def peaked() -> Decoder:
    """Four symbols; the model's and the module's distributions are far from uniform and from each other."""
    model = Decoder(replace(shape(technique="mha", objective="mtp", depth=2, hidden=16), symbols=4), seed=5)
    with torch.no_grad():
        model.head_VD.mul_(2.0)
    return model


@torch.no_grad()
def exact(model: Decoder, prompt: list[int], count: int) -> torch.Tensor:
    """Probability of each continuation, [4 ** count]."""
    found = []
    for symbols in itertools.product(range(4), repeat=count):
        p_TV = model(torch.tensor([[*prompt, *symbols]])).logits_BTV[0].softmax(-1).double()
        found.append(torch.stack([p_TV[len(prompt) - 1 + at, s] for at, s in enumerate(symbols)]).prod())
    return torch.stack(found)


def surprise(symbols_BN: torch.Tensor, p_X: torch.Tensor) -> float:
    """The chance of a chi-square at least as large as the one found."""
    code_B = (symbols_BN * 4 ** torch.arange(symbols_BN.shape[1] - 1, -1, -1)).sum(-1)
    expected_X = p_X * len(code_B)
    common_X = expected_X >= 5  # the others are one class
    counts_X = torch.bincount(code_B, minlength=len(p_X)).double()
    pooled = [torch.cat((x[common_X], x[~common_X].sum()[None])) for x in (counts_X, expected_X)]
    chi = ((pooled[0] - pooled[1]) ** 2 / pooled[1].clamp_min(1e-9)).sum()
    return float(torch.special.gammaincc(common_X.sum().double() / 2, chi / 2))


@pytest.mark.parametrize("kind", [Plain, Speculative])
def test_sampled_symbols_keep_their_distribution(kind, peaked):
    """Chi-square over all continuations of four symbols, 8,000 sequences; a right sampler fails one seed in a million,
    and this seed is fixed."""
    prompt = [1, 3, 0]
    chooser = Sampled(torch.Generator().manual_seed(0))
    outcome = kind(peaked, 8_000, 3, 4, chooser).run(torch.tensor([prompt]).expand(8_000, 3), torch.full((8_000,), 3))
    p_X = exact(peaked, prompt, 4)
    assert float(p_X.sum()) == pytest.approx(1) and float(p_X.max()) > 0.03
    assert surprise(outcome.symbols_BN, p_X) > FALSE_ALARMS
    if kind is Speculative:
        assert all(0.1 < share < 0.95 for share in outcome.acceptance)
        assert surprise(outcome.symbols_BN, exact(peaked, [0, 0, 1], 4)) < FALSE_ALARMS


def test_a_temperature_sharpens():
    logits_BV = torch.tensor([[0.0, 1.0]]).expand(4000, 2)
    shares = [
        Sampled(torch.Generator().manual_seed(1), t).choose(logits_BV).double().mean().item() for t in (1.0, 0.25)
    ]
    assert shares == pytest.approx([1 / (1 + 2.718281828**-1), 1 / (1 + 2.718281828**-4)], abs=0.03)
