"""Published sizes and counts, and the cost model against what the references are seen to do."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.tree import storage_bytes
from impls.attention import cost
from impls.attention.shape import AttentionShape, DecodeShape, SequenceShape
from impls.attention.weights import draw_weights

V3 = AttentionShape(hidden=7168, heads=128, kv_heads=8, layers=61, query_latent=1536)
V2 = replace(V3, hidden=5120, layers=60)
V2_LITE = AttentionShape(hidden=2048, heads=16, kv_heads=16, layers=27)
QWEN_72B = AttentionShape(hidden=8192, heads=64, kv_heads=8, layers=80)
LLAMA_405B = AttentionShape(hidden=16384, heads=128, kv_heads=8, layers=126)
DEEPSEEK_67B = AttentionShape(hidden=8192, heads=64, kv_heads=8, layers=95)
TECHNIQUES = ("mha", "gqa", "mqa", "mla")


@pytest.mark.parametrize(
    ("model", "technique", "expected"),
    [
        (V3, "mla", 70_272),  # ISCA'25 (arXiv 2505.09343) table 1
        (QWEN_72B, "gqa", 327_680),  # the same
        (LLAMA_405B, "gqa", 516_096),  # the same
        (V2, "mla", 69_120),
        (V2_LITE, "mla", 31_104),
        (V2_LITE, "mha", 2 * 110_592),  # DeepSeek-V2 table 9: 110.6K numbers
        (V3, "mha", 3_997_696),
        (DEEPSEEK_67B, "gqa", 389_120),  # DeepSeek-V2 figure 1b
    ],
)
def test_cache_bytes_a_token_over_all_layers(model, technique, expected):
    assert cost.kv_bytes(model, technique) * model.layers == expected


def test_cache_bytes_a_token_and_layer():
    assert cost.kv_bytes(V3, "mla") == 1152
    assert cost.kv_bytes(V3, "mla", "fp8") == 656
    assert cost.kv_bytes(V3, "mha") == 65_536
    assert cost.kv_bytes(V3, "mqa") == 512


def test_absorbed_attention_takes_four_and_a_quarter_times_the_flops():
    shapes = DecodeShape(V3, 8, 4096)
    mla, mha = (cost.decode_kernel(shapes, technique).flops for technique in ("mla", "mha"))
    assert mla / mha == 4.25
    assert mha == 8 * 4097 * 2 * 32_768


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_two_new_tokens_attend_as_two_steps_do(technique):
    steps = [cost.decode_kernel(DecodeShape(V3, 4, length), technique).flops for length in (64, 65)]
    assert cost.decode_kernel(DecodeShape(V3, 4, 64, new_tokens=2), technique).flops == sum(steps)


def test_attention_parameters_of_deepseek():
    """Totals per layer that the published 671B, 236B and 15.7B add up with."""
    assert cost.parameters(V3, "mla") == 187_105_280
    assert cost.parameters(V2, "mla") == 149_225_472
    assert cost.parameters(V2_LITE, "mla") == 2048 * 16 * 192 + 2048 * 576 + 512 * 16 * 256 + 16 * 128 * 2048
    assert cost.parameters(LLAMA_405B, "gqa") == 2 * 16384 * (16384 + 1024)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("query_latent", (24, None))
def test_parameters_are_those_of_the_weights(model, technique, query_latent):
    shape = SequenceShape(replace(model, query_latent=query_latent), 1, 4)
    weights = draw_weights(shape, technique, torch.Generator())
    tensors = [getattr(weights, f.name) for f in dataclasses.fields(weights)]
    assert cost.parameters(shape.model, technique) == sum(t.numel() for t in tensors if t is not None and t.dim() > 1)
    assert cost.prefill(shape, technique).read_bytes == storage_bytes(weights) + 4 * 40 * 4


@pytest.mark.parametrize(
    ("technique", "name"), [(t, "reference") for t in TECHNIQUES[:3]] + [("mla", "reference-absorbed")]
)
def test_decode_flops_are_those_of_the_reference(registry, draw, model, technique, name):
    """One new token a sequence of equal lengths: the reference computes nothing that is masked."""
    shape = DecodeShape(model, 3, 20)
    weights, inputs = draw(registry.operations["attention.decode"], shape, technique)
    call = registry.implementations["attention.decode"][f"{technique}/{name}"].setup(weights, shape)
    with FlopCounterMode(display=False) as counter:
        call(inputs)
    assert counter.get_total_flops() == cost.decode(shape, technique).flops


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_training_flops_are_those_of_the_reference_but_for_half_the_square(registry, draw, model, technique):
    """The reference computes whole squares and stores its scores: twice ours, less the product that recomputes them."""
    shape = SequenceShape(model, 2, 16)
    weights, inputs = draw(registry.operations["attention.train"], shape, technique)
    with FlopCounterMode(display=False) as counter:
        registry.reference("attention.train", technique).setup(weights, shape)(inputs)
    ours, forward = cost.train(shape, technique).flops, cost.prefill(shape, technique).flops
    products = 2.0 * 32 * cost.parameters(model, technique)
    size = (12 + 8) if technique == "mla" else 16
    recomputed = 2.0 * 2 * 6 * 16**2 * size
    assert counter.get_total_flops() == 3 * products + 2 * (ours - 3 * products) - recomputed
    assert ours > 3 * forward


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("cache", ("native", "fp8"))
def test_decode_bytes_are_those_of_the_tensors(registry, draw, model, technique, cache):
    shape = DecodeShape(replace(model, latent=512, rope_dim=64), 2, 11, new_tokens=2, cache=cache)
    if cache == "fp8" and technique != "mla":
        pytest.skip("keys and values have no such format")
    operation = registry.operations["attention.decode"]
    weights, inputs = draw(operation, shape, technique)
    found = operation.cost(shape, technique)
    slots = storage_bytes(inputs.cache)
    state = 2 * 2 * 40 * 4
    assert found.read_bytes == storage_bytes(weights) + state + slots * 11 / 13
    assert found.write_bytes == state + slots * 2 / 13
    assert operation.facts(shape, technique)["kv_bytes_per_token"] == slots / 2 / 13


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("name", ("decode_kernel", "prefill_kernel", "train_kernel"))
def test_kernel_bytes_are_those_of_the_tensors(registry, draw, model, technique, name):
    operation = registry.operations[f"attention.{name}"]
    shape = DecodeShape(model, 2, 11, 2) if name == "decode_kernel" else SequenceShape(model, 2, 9)
    _, inputs = draw(operation, shape, technique)
    result = registry.reference(operation.name, technique).setup(None, shape)(inputs)
    found = operation.cost(shape, technique)
    lengths = inputs.lengths_B.numel() * 4 if name == "decode_kernel" else 0
    assert found.read_bytes == storage_bytes(inputs) - lengths
    assert found.write_bytes == storage_bytes(result)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_fact_is_a_declared_metric(registry, model, technique):
    for name, operation in registry.operations.items():
        if not name.startswith("attention."):
            continue
        shape = DecodeShape(model, 2, 8) if "decode" in name else SequenceShape(model, 2, 8)
        assert set(operation.facts(shape, technique)) <= {metric.name for metric in operation.metrics}
        assert operation.tokens(shape) == (2 if "decode" in name else 16)
