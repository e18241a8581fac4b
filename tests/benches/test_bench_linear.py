"""The linear study's lists: layers, sizes, bounds, names, for the default model, every bundled one and a user's own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benches.bench_linear import SMALL_ENTRIES, STUDY, model_layers, workloads
from benches.models import MODELS
from harness.binaries import Absent
from harness.case import TIERS
from harness.registry import load
from harness.tree import named_tensors

PRODUCTS = ("fprop", "dgrad", "wgrad", "grouped", "grouped_dgrad", "grouped_wgrad")
OPERATIONS = {f"linear.{name}" for name in (*PRODUCTS, "layer_train", "numerics", "quantize")}
LOSS = "linear.loss"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


@pytest.fixture
def written(tmp_path):
    """Writes a config.json with some fields changed; None leaves one out."""

    def write(**changes) -> str:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({k: v for k, v in {**LLAMA, **changes}.items() if v is not None}))
        return str(path)

    return write


@pytest.fixture(params=[None, *MODELS, "mine"])
def listed(request, written):
    found = workloads(written() if request.param == "mine" else request.param)
    trained = [workload for workload in found if workload.operation == LOSS]
    assert bool(trained) == (request.param is None)
    return [workload for workload in found if workload not in trained]


def test_the_small_model_is_trained_from_several_seeds_that_differ_in_nothing_else():
    found = [workload for workload in workloads(None) if workload.operation == LOSS]
    for tier, count, dtype in (("smoke", 1, "float32"), ("cpu", 3, "float32"), ("gpu", 3, "bfloat16"),
                               ("full", 3, "float32")):  # fmt: skip
        here = [w for w in found if tier in w.tiers and w.shape.shape.attention.dtype == dtype]
        assert len({workload.id for workload in here}) == len(here) == count
        assert {workload.shape.recipe.seed for workload in here} == set(range(count))
        assert len({replace(w.shape, recipe=replace(w.shape.recipe, seed=0)) for w in here}) == 1
        shape = here[0].shape
        assert shape.shape.attention.dtype == dtype and not shape.shape.in_fp8
        assert here[0].sizes == f"s{shape.recipe.steps}-seed0{'-fp32' if dtype == 'float32' else ''}"
        known = load("impls").implementations[LOSS]
        able = {name for name, one in known.items() if one.kind != "compiled" and one.supports(shape) is None}
        assert able == {"bf16/reference", *(f"fp8/{name}" for name in shape.products)}
    assert load("impls").implementations[LOSS]["fp8/reference"].supports(shape).startswith("here FP8 is multiplied by")


def test_ids_are_unique_and_say_what_is_measured(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    seen = {}
    for workload in listed:
        assert workload.study == STUDY and workload.tiers and set(workload.tiers) <= set(TIERS)
        key = (workload.operation, workload.model, workload.shape)
        assert seen.setdefault(key, workload.id) == workload.id
        said = workload.sizes.split("-")
        assert f"m{workload.shape.rows}" in said
        assert ("fp32" in said) == (workload.shape.dtype == "float32")
        assert ("pow2" in said) == workload.shape.power_of_two


def test_tiers_cover_every_operation_and_keep_to_their_size(listed):
    by_tier = {tier: [w for w in listed if tier in w.tiers] for tier in TIERS}
    for tier, found in by_tier.items():
        assert {w.operation for w in found} == OPERATIONS, tier
    assert len(by_tier["smoke"]) == len(OPERATIONS)
    assert len(by_tier["cpu"]) <= 22 and len(by_tier["gpu"]) <= 40
    assert set(by_tier["gpu"]) <= set(by_tier["full"])


def test_small_machines_get_small_layers_in_fp32(listed):
    for workload in listed:
        small = {"smoke", "cpu"} & set(workload.tiers)
        assert workload.shape.dtype == ("float32" if small else "bfloat16")
        if small and hasattr(workload.shape, "outs"):
            assert workload.shape.outs * workload.shape.ins <= SMALL_ENTRIES


def test_v3_has_the_layers_deepseek_s_kernels_are_measured_on():
    layers = {(layer.outs, layer.ins) for layer in model_layers("v3").layers}
    expected = {(2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048), (576, 7168)}
    assert layers == expected
    on_gpus = [w for w in workloads(None) if "gpu" in w.tiers and w.operation != LOSS]
    forward = {(w.shape.outs, w.shape.ins) for w in on_gpus if w.operation == "linear.fprop"}
    assert forward == expected
    rows = {w.shape.rows for w in on_gpus if w.operation == "linear.fprop"}
    assert min(rows) == 64 and max(rows) == 8192
    groups = {w.shape.groups for w in on_gpus if "grouped" in w.operation}
    assert min(groups) == 4 and max(groups) == 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v2-lite", {(3072, 2048), (4096, 512), (2048, 2048), (576, 2048), (2816, 2048), (2048, 1408)}),
        ("llama-3.1-8b", {(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)}),
        ("mixtral-8x7b", {(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)}),
        ("qwen3-235b-a22b", {(9216, 4096), (4096, 8192), (3072, 4096), (4096, 1536)}),
    ],
)
def test_bundled_models_have_their_published_layers(name, expected):
    assert {(layer.outs, layer.ins) for layer in model_layers(name).layers} == expected


def test_a_file_gives_its_own_layers(written):
    found = model_layers(written())
    sizes = [(layer.outs, layer.ins) for layer in found.layers]
    assert found.name == "mine" and sizes == [(768, 512), (512, 512), (2816, 512), (512, 1408)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intermediate_size": None}, "missing intermediate_size"),
        ({"hidden_size": "wide"}, 'hidden_size is "wide"'),
        ({"model_type": "qwen3_moe"}, "missing moe_intermediate_size"),
        ({"model_type": "mamba"}, 'model_type is "mamba"'),
    ],
)
def test_impossible_configurations_name_the_field(written, changes, said):
    with pytest.raises(ValueError, match=r"mine\.json") as refused:
        workloads(written(**changes))
    assert said in str(refused.value)


def test_a_gpu_gets_operands_of_the_bytes_its_costs_say():
    """At the real sizes, drawn without memory, as the rehearsal of kernels draws them."""
    operations = load("impls").operations
    for workload in (w for w in workloads(None) if "gpu" in w.tiers and w.operation != LOSS):
        operation = operations[workload.operation]
        for technique in ("bf16", "fp8"):
            weights = operation.weights(workload.shape, technique, Absent())
            given = named_tensors((weights, operation.inputs(workload.shape, technique, Absent())))
            drawn = sum(tensor.nbytes for tensor in given.values())
            read = operation.cost(workload.shape, technique).read_bytes
            if workload.operation == "linear.numerics":  # a master weight in FP32, counted as the product takes it
                continue
            if not all(getattr(workload.shape, "sizes", (1,))):  # weights of groups without rows are not read
                assert read < drawn
                continue
            assert read == drawn, (workload.id, technique)
