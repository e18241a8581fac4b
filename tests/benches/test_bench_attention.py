"""The attention study's lists: sizes, bounds and names, for the default model, every bundled one and a user's own."""

import json

import pytest

from benches.bench_attention import CACHE_BYTES, COMPILED, STUDY, decode, mha_cache_bytes, workloads
from benches.bench_attention import Model as Named
from benches.models import MODELS, attention_shape
from harness.case import TIERS
from impls.attention.cache import no_fp8_row
from impls.attention.shape import DecodeShape

OPERATIONS = {f"attention.{name}{kernel}" for name in ("decode", "prefill", "train") for kernel in ("", "_kernel")}
MODEL_CHOICES = [None, *MODELS]


def tier(listed, name):
    return [workload for workload in listed if name in workload.tiers]


@pytest.fixture(params=[*MODEL_CHOICES, "mine"])
def listed(request, tmp_path):
    """Workloads of a model; `mine` is a config.json with awkward sizes: 28 heads of 64, 7 groups, no FP8 row."""
    if request.param != "mine":
        return workloads(request.param)
    sizes = {"hidden_size": 1792, "num_attention_heads": 28, "num_key_value_heads": 7, "num_hidden_layers": 2}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"model_type": "qwen2", **sizes}))
    return workloads(str(path))


def test_ids_are_unique_and_belong_to_the_study(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    assert {workload.study for workload in listed} == {STUDY}
    assert all(set(workload.tiers) <= set(TIERS) and workload.tiers for workload in listed)


def test_an_id_says_what_is_measured(listed):
    """Equal shapes have equal ids and no others, so that the words of an id leave nothing out."""
    seen = {}
    for workload in listed:
        key = (workload.operation, workload.model, workload.shape, workload.graph)
        assert seen.setdefault(key, workload.id) == workload.id
        assert f"b{workload.shape.batch}-s{workload.shape.length}" in workload.sizes
        assert ("graph" in workload.sizes) == workload.graph
        assert ("fp32" in workload.sizes) == (workload.shape.model.dtype == "float32")


@pytest.mark.parametrize("name", TIERS)
def test_every_tier_covers_every_operation(listed, name):
    assert {workload.operation for workload in tier(listed, name)} == OPERATIONS


def test_tiers_keep_to_their_size(listed):
    assert len(tier(listed, "smoke")) == len(OPERATIONS)
    assert 8 <= len(tier(listed, "cpu")) <= 12
    assert len(tier(listed, "gpu")) <= 40
    assert set(tier(listed, "gpu")) <= set(tier(listed, "full"))


def test_keys_and_values_of_all_heads_fit_in_memory(listed):
    for workload in listed:
        if isinstance(workload.shape, DecodeShape):
            model = workload.shape.model
            token = 2 * model.heads * model.head_dim * (4 if model.dtype == "float32" else 2)
            assert workload.shape.batch * workload.shape.slots * token <= CACHE_BYTES < 40e9


def test_small_machines_get_few_heads_in_fp32_and_gpus_whole_models_in_bf16(listed):
    for workload in listed:
        small = {"smoke", "cpu"} & set(workload.tiers)
        assert workload.shape.model.dtype == ("float32" if small else "bfloat16")
        assert not small or workload.shape.model.heads <= 16
        assert not small or workload.shape.batch * workload.shape.length <= 4096


def test_groups_divide_the_heads_of_every_slice(listed):
    for workload in listed:
        assert workload.shape.model.heads % workload.shape.model.kv_heads == 0


def test_fp8_caches_are_asked_for_where_the_format_holds_the_latent(listed):
    fp8 = [w for w in listed if isinstance(w.shape, DecodeShape) and w.shape.cache == "fp8"]
    assert all(no_fp8_row(workload.shape) is None and "fp8" in workload.sizes for workload in fp8)
    latents = {workload.shape.model.latent for workload in listed}
    assert bool(fp8) == (latents == {512})


def test_compiled_references_take_part_in_one_cpu_case_and_three_gpu_cases(listed):
    def compiling(name):
        return [workload.operation for workload in tier(listed, name) if workload.compiled]

    assert compiling("smoke") == []
    assert compiling("cpu") == ["attention.decode"]
    assert sorted(compiling("gpu")) == ["attention.decode", "attention.decode_kernel", "attention.prefill"]
    assert all(workload.compiled in ((), COMPILED) for workload in listed)
    last = [bool(workload.compiled) for workload in listed]
    assert last == sorted(last), "the time they take must not cost another case its turn"


def test_the_gpu_tier_has_the_sweeps_the_study_is_read_by():
    by_id = {workload.id: workload.shape for workload in tier(workloads(None), "gpu")}
    for length in (1024, 4096, 16384, 65536, 131072):
        assert by_id[f"attention.decode/v3/b4-s{length}"].length == length
    for batch in (1, 4, 16, 32, 128):
        assert by_id[f"attention.decode/v3/b{batch}-s4096"].batch == batch
    for model, heads in (("v3", 128), ("v3-tp2", 64), ("v3-tp4", 32), ("v3-tp8", 16)):
        native, fp8 = (by_id[f"attention.decode/{model}/b128-s4096{cache}"] for cache in ("", "-fp8"))
        assert (native.model.heads, native.cache) == (heads, "native")
        assert (fp8.model.heads, fp8.cache) == (heads, "fp8")
    assert by_id["attention.decode/v3/b1-s4096-graph"] == by_id["attention.decode/v3/b1-s4096"]
    assert by_id["attention.decode/v3/b128-s4096-ragged"].ragged
    assert by_id["attention.decode/v3-tp8/b128-s4096-t2"].new_tokens == 2


@pytest.mark.parametrize("model", MODELS)
def test_a_model_given_is_the_only_one_measured(model):
    assert {workload.model.removesuffix("-tp2").split("-tp")[0] for workload in workloads(model)} == {model}


def test_a_cache_too_large_halves_its_batch():
    v3 = Named(*attention_shape("v3"))
    shape = decode(v3, 128, 16384).shape
    assert shape.batch == 32
    assert mha_cache_bytes(shape) <= CACHE_BYTES < 2 * mha_cache_bytes(shape)
    assert decode(v3, 1, 1024 * 1024).shape.batch == 1


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="bundled: v2-lite"):
        workloads("v9")
