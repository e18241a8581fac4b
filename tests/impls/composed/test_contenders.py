"""Every contender of every combination against its reference, as the harness judges it, over shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.registry import load
from harness.tree import named_tensors
from impls.composed.combination import AXES, FEW, Combination, combinations
from impls.composed.operations import allowed
from impls.model.shape import parameters

NAMES = [one.name for one in combinations()]
STEP, PREFILL, GENERATE = "model.train_step", "model.prefill", "model.generate"


def able(operation: str, technique: str) -> list[str]:
    """Contenders of a technique that need no GPU."""
    known = load("impls").implementations[operation].values()
    return [one.contender for one in known if one.technique == technique and not one.needs and one.kind != "compiled"]


@pytest.mark.parametrize("technique", NAMES)
@pytest.mark.parametrize("operation", [STEP, PREFILL])
def test_sequences_are_verified_for_every_combination(operation, technique, judge, text_of):
    contenders = able(operation, technique)
    assert len(contenders) == 2
    for contender in contenders:
        judge(operation, contender, text_of(technique))


@pytest.mark.parametrize("technique", NAMES)
def test_generation_is_verified_to_the_last_token_for_every_combination(technique, judge, generate_of):
    assert len(able(GENERATE, technique)) == 2
    judge(GENERATE, f"{technique}/cached", generate_of(technique))


@pytest.mark.parametrize(
    ("batch", "length", "more"),
    [
        (1, 3, {}),
        (3, 5, {"depth": 2}),
        (2, 17, {"layers": 3, "leading": 0}),
        (1, 8, {"head_dim": 16, "layers": 1, "leading": 1}),
        (2, 6, {"hidden": 48, "width": 24}),
    ],
)
@pytest.mark.parametrize("technique", ["mha-moe-bf16-mtp", "mla-dense-fp8-mtp", FEW[-1]])
def test_shapes(technique, batch, length, more, judge, text_of, narrow_of):
    shape = text_of(technique, batch=batch, length=length, model=narrow_of(**more))
    judge(STEP, f"{technique}/chunked", shape)
    judge(PREFILL, f"{technique}/last", shape)


@pytest.mark.parametrize(("batch", "prompt", "count"), [(1, 1, 1), (1, 4, 2), (3, 6, 7)])
@pytest.mark.parametrize("technique", ["mla-moe-bf16-mtp", FEW[-1]])
def test_shapes_of_generation(technique, batch, prompt, count, judge, generate_of):
    judge(GENERATE, f"{technique}/cached", generate_of(technique, batch=batch, prompt=prompt, count=count))


def test_sixteen_bits_have_the_floor_of_sixteen_bits(text_of, narrow_of, draw, registry):
    shape = text_of(*FEW, model=narrow_of(dtype="bfloat16"))
    assert allowed(shape, "cuda", (1.0, 1.0)) == (2**-8, 2**-5)
    operation = registry.operations[STEP]
    for technique in FEW:
        weights, given = draw(operation, shape, technique)
        assert weights["head_VD"].dtype == torch.float32
        for contender in able(STEP, technique):
            found = registry.implementations[STEP][contender].setup(weights, shape)(given)
            assert all(t.dtype == torch.float32 and t.isfinite().all() for t in named_tensors(found).values())


def test_the_floor_is_for_fp8_alone(text_of):
    assert allowed(text_of("mha-dense-bf16-ntp", "mla-moe-bf16-mtp"), "cpu", (0.5, 0.5)) is None
    assert allowed(text_of("mha-dense-bf16-ntp", "mha-dense-fp8-ntp"), "cpu", (0.5, 0.5)) == (0.5, 0.5)


@pytest.mark.parametrize("technique", NAMES)
def test_work_is_that_of_the_matrices_one_symbol_meets(technique, text_of, registry, draw):
    """FLOPs less attention's are 6 a symbol and entry, counted on the tensors themselves."""
    shape, operation = text_of(technique), registry.operations[STEP]
    weights, _ = draw(operation, shape, technique)
    model = shape.of(technique)
    entries = dict.fromkeys(("met", "all"), 0.0)
    for name, tensor in weights.items():
        if tensor.ndim < 2:
            continue
        expert = "_E" in name.rsplit(".", 1)[-1] and "router" not in name
        times = 1 + model.ahead if name == "head_VD" else 0 if name == "embedding_VD" else 1
        entries["met"] += tensor.numel() * times * (model.rule.top_k / model.rule.experts if expert else 1)
        entries["all"] += tensor.numel()
    short, long = (operation.cost(replace(shape, length=length), technique) for length in (8, 16))
    per_length = (long.flops - 2 * short.flops) / 2  # attention grows with the square: 16^2 - 2 * 8^2 is half of 16^2
    attention = 4 * per_length
    assert long.flops - attention == pytest.approx(6 * shape.batch * 16 * entries["met"])
    assert long.write_bytes == 4 * entries["all"] == 4 * parameters(model)
    assert operation.facts(shape, technique)["model_parameters"] == entries["all"]


def test_ideas_move_what_they_are_said_to_move(text_of, generate_of, registry):
    shape, generated = text_of(*NAMES), generate_of(*NAMES)
    facts = {n: registry.operations[STEP].facts(shape, n) for n in NAMES}
    costs = {n: registry.operations[GENERATE].cost(generated, n) for n in NAMES}
    for one in combinations():
        other = Combination(one.attention, "moe", one.linear, one.objective).name
        if one.ffn == "dense":
            ratio = facts[other]["model_active_parameters"] / facts[one.name]["model_active_parameters"]
            assert 1 < ratio < 1.02 and facts[other]["model_parameters"] > facts[one.name]["model_parameters"]
        quantized = Combination(one.attention, one.ffn, "fp8", one.objective).name
        assert facts[quantized] == facts[one.name]
        if one.linear == "bf16":
            assert costs[quantized].read_bytes < costs[one.name].read_bytes
            assert costs[quantized].dtype == "float8_e4m3fn" and costs[one.name].dtype == "float32"
    assert list(AXES) == ["attention", "ffn", "linear", "objective"]
