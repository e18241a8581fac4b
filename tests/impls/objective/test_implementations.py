"""Every contender against its reference as the harness judges it, and the references against each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.registry import load
from harness.tree import named_tensors
from impls.model import margins
from impls.model.generation import Outcome
from impls.objective import cached, chunked, inputs, weights
from impls.objective.reference import OBJECTIVES
from impls.objective.shape import StepShape

STEP, GENERATE = "objective.train_step", "objective.generate"


@pytest.mark.parametrize("rows", [64, 1000])
@pytest.mark.parametrize("technique", OBJECTIVES)
def test_logits_in_chunks_give_the_same_losses_and_gradients(technique, rows, judge, step_shape, monkeypatch):
    monkeypatch.setattr(chunked, "ROWS", rows)
    judge(STEP, f"{technique}/chunked", step_shape)


def test_logits_in_chunks_work_in_bfloat16(draw, registry, step_shape):
    attention, ffn = (replace(part, dtype="bfloat16") for part in (step_shape.model.attention, step_shape.model.ffn))
    shape = replace(step_shape, model=replace(step_shape.model, attention=attention, ffn=ffn))
    drawn, given = draw(registry.operations[STEP], shape, "mtp")
    one, two = (registry.implementations[STEP][f"mtp/{n}"].setup(drawn, shape)(given) for n in ("reference", "chunked"))
    for name, expected in named_tensors(one).items():
        found = named_tensors(two)[name]
        assert found.dtype == expected.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < 0.03, name


def test_techniques_share_what_predicts_the_next_symbol(draw, registry, step_shape):
    found = {technique: draw(registry.operations[STEP], step_shape, technique) for technique in OBJECTIVES}
    plain, given = found["ntp"]
    for technique in OBJECTIVES[1:]:
        assert all(torch.equal(found[technique][0][name], tensor) for name, tensor in plain.items())
        assert torch.equal(found[technique][1].given_BT, given.given_BT)
    losses = {t: registry.reference(STEP, t).setup(found[t][0], step_shape)(found[t][1]) for t in OBJECTIVES}
    assert len({float(one.loss) for one in losses.values()}) == 1
    assert [len(one.further) for one in losses.values()] == [0, 2, 2]
    name = "head_VD"
    assert not torch.equal(losses["ntp"].gradients[name], losses["mtp"].gradients[name])


@pytest.mark.parametrize("who", ["ntp/cached", "mtp/cached", "mtp/refused"])
def test_generation_gives_the_tokens_of_the_reference(who, judge, generate_shape):
    judge(GENERATE, who, generate_shape)


def test_both_techniques_have_one_truth(draw, registry, generate_shape):
    operation = registry.operations[GENERATE]
    tokens = {}
    for technique in ("ntp", "mtp"):
        drawn, given = draw(operation, generate_shape, technique)
        tokens[technique] = registry.reference(GENERATE, technique).setup(drawn, generate_shape)(given)
        assert any("ahead" in name for name in drawn) == (technique == "mtp")
    assert torch.equal(tokens["ntp"], tokens["mtp"]) and len(tokens["ntp"].unique()) > 3


def test_prompts_are_ragged_unseen_and_far_from_ties(registry, generate_shape, draw):
    text = weights.corpus()
    drawn, given = draw(registry.operations[GENERATE], replace(generate_shape, batch=8), "ntp")
    assert given.lengths_B.min() >= 6 and given.lengths_B.max() <= 12 and len(given.lengths_B.unique()) > 1
    for symbols_P in given.symbols_BP:
        assert bytes(symbols_P.tolist()) in text.validation
    model = weights.model_of(drawn, generate_shape.of("ntp"))
    watched = inputs.Watched()
    shape = replace(generate_shape, batch=8)
    cached.Plain(model, 8, shape.prompt, shape.count, watched).run(given.symbols_BP, given.lengths_B)
    assert float(watched.least_B.min()) > margins.LEAST[False][0]


def test_prompts_without_a_margin_are_told(generate_shape, monkeypatch):
    monkeypatch.setitem(margins.LEAST, False, (100.0, 0.0))
    monkeypatch.setattr(inputs, "TRIES", 2)
    with pytest.raises(ValueError, match="of 6 prompts 0 have no near tie, 3 are needed"):
        inputs.draw_prompts(generate_shape, "ntp", torch.Generator().manual_seed(0))


def test_refused_drafts_take_a_step_a_symbol_and_others_fewer(draw, registry, generate_shape):
    drawn, given = draw(registry.operations[GENERATE], generate_shape, "mtp")
    model = weights.model_of(drawn, generate_shape.model)
    sizes = generate_shape.batch, generate_shape.prompt, generate_shape.count
    runs: list[Outcome] = [
        cached.Speculative(model, *sizes, chooser).run(given.symbols_BP, given.lengths_B)
        for chooser in (cached.Refusing(), cached.Greedy())
    ]
    assert runs[0].steps == generate_shape.count - 1 > runs[1].steps
    assert runs[0].acceptance == (0.0,) and runs[1].acceptance[0] > 0.1


def test_records_say_how_drafts_fare_and_what_weights_they_are(generate_shape, draw, registry):
    """On the prompts drawn first, which are those that are timed."""
    operation, generate_shape = registry.operations[GENERATE], replace(generate_shape, count=17)
    drawn, given = draw(operation, generate_shape, "mtp")
    draw(operation, generate_shape, "mtp", seed=9)
    sizes = generate_shape.batch, generate_shape.prompt, generate_shape.count
    model = weights.model_of(drawn, generate_shape.model)
    outcome = cached.Speculative(model, *sizes).run(given.symbols_BP, given.lengths_B)
    facts = operation.facts(generate_shape, "mtp")
    assert facts["acceptance"] == outcome.acceptance[0] and facts["symbols_a_step"] == outcome.symbols_a_step > 1
    assert operation.series(generate_shape, "mtp")["acceptance_by_depth"] == list(outcome.acceptance)
    assert facts["generation_steps"] == outcome.steps < operation.facts(generate_shape, "ntp")["generation_steps"] == 16
    assert operation.facts(generate_shape, "ntp").keys() == {"kv_bytes", "generation_steps"}
    assert facts["kv_bytes"] == 4 / 3 * operation.facts(generate_shape, "ntp")["kv_bytes"]  # 3 blocks, and the module
    layout = registry.implementations[GENERATE]["mtp/cached"].setup(drawn, generate_shape).layout
    known = weights.trained(generate_shape.model, generate_shape.recipe, "cpu")
    assert layout == f"caches of 33 slots a sequence; weights {known.digest[:12]} (recorded)"


def test_a_step_costs_what_its_matrices_cost():
    shape = StepShape(weights.MODEL, 2, 64)
    cost = load("impls").operations[STEP].cost
    ntp, mtp = cost(shape, "ntp"), cost(shape, "mtp")
    hidden, symbols = 96, 2 * 64
    block = 3 * hidden * 5 * 48 + (ntp.write_bytes / 4 - 2 * 256 * hidden - 3 * 3 * hidden * 5 * 48) / 3
    added = block + 2 * hidden**2 + 256 * hidden  # a block, M and the head once more
    assert (mtp.write_bytes - ntp.write_bytes) / 4 == block + 2 * hidden**2
    attention = (ntp.flops - 6 * symbols * (3 * block + 256 * hidden)) / 3
    assert mtp.flops - ntp.flops == pytest.approx(6 * symbols * added + attention)
    assert 0 < attention < 0.2 * ntp.flops
