"""Bundled models against their published sizes; a user's config.json of each style; and what is said of a bad one."""

import json

import pytest

from benches.models import GROUPED, LATENT, MODELS, attention_shape, configuration
from impls.attention.shape import AttentionShape, Yarn

LLAMA = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192},
}
QWEN = {
    "model_type": "qwen2",
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "rope_theta": 1e6,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
}
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 5120,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 40,
    "head_dim": 128,
    "sliding_window": 4096,
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 1024,
    "num_attention_heads": 12,
    "num_hidden_layers": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 48,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 20000.0,
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "mscale": 0.707,
        "mscale_all_dim": 0.707,
    },
}


@pytest.fixture
def written(tmp_path):
    """A config.json of the given fields in a folder named after its model; returns its path as text."""

    def write(fields, folder="My-Model"):
        path = tmp_path / folder / "config.json"
        path.parent.mkdir()
        path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
        return str(path)

    return write


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


def mla_parameters(shape: AttentionShape) -> int:
    query = shape.heads * (shape.nope_dim + shape.rope_dim)
    into = shape.query_latent * (shape.hidden + query) if shape.query_latent else shape.hidden * query
    latent = shape.hidden * (shape.latent + shape.rope_dim)
    return (
        into
        + latent
        + shape.heads * (shape.latent * (shape.nope_dim + shape.value_dim) + shape.value_dim * shape.hidden)
    )


@pytest.mark.parametrize(
    "model, elements",
    [("v2-lite", 15_552), ("v2", 34_560), ("v3", 35_136)],
)
def test_latent_cache_of_deepseek_models_has_the_published_size(model, elements):
    _, shape = attention_shape(model)
    assert (shape.latent + shape.rope_dim) * shape.layers == elements
    assert not shape.converted


@pytest.mark.parametrize(
    "model, elements",
    [("qwen2.5-72b", 163_840), ("llama-3.1-405b", 258_048), ("llama-3.1-70b", 163_840), ("llama-3.1-8b", 65_536)],
)
def test_grouped_cache_of_the_neighbours_has_the_published_size(model, elements):
    _, shape = attention_shape(model)
    assert 2 * shape.kv_heads * shape.head_dim * shape.layers == elements
    assert shape.converted


def test_mha_with_the_heads_of_v3_caches_57_times_as_much():
    _, shape = attention_shape("v3")
    assert 2 * shape.heads * shape.head_dim * shape.layers == 1_998_848


@pytest.mark.parametrize("model, billions", [("v2-lite", 15.71), ("v2", 235.74), ("v3", 671.03)])
def test_fields_add_up_to_the_published_parameters(model, billions):
    """Every field that sizes a weight matrix takes part, norms excepted."""
    fields, (_, shape) = MODELS[model], attention_shape(model)
    hidden, layers, dense = shape.hidden, shape.layers, fields["first_k_dense_replace"]
    experts = fields["n_routed_experts"] + fields["n_shared_experts"]
    moe = experts * 3 * hidden * fields["moe_intermediate_size"] + fields["n_routed_experts"] * hidden
    ffn = dense * 3 * hidden * fields["intermediate_size"] + (layers - dense) * moe
    total = layers * mla_parameters(shape) + ffn + 2 * fields["vocab_size"] * hidden
    assert total / 1e9 == pytest.approx(billions, abs=0.006)


@pytest.mark.parametrize(
    "model, billions",
    [("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.55), ("llama-3.1-405b", 405.85), ("qwen2.5-72b", 72.71)],
)
def test_dense_fields_add_up_to_the_published_parameters(model, billions):
    fields, (_, shape) = MODELS[model], attention_shape(model)
    attention = 2 * shape.hidden * shape.head_dim * (shape.heads + shape.kv_heads)
    layer = attention + 3 * shape.hidden * fields["intermediate_size"]
    total = shape.layers * layer + 2 * fields["vocab_size"] * shape.hidden
    assert total / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize("model, mscale", [("v2-lite", 0.707), ("v2", 0.707), ("v3", 1.0)])
def test_deepseek_models_carry_their_yarn(model, mscale):
    _, shape = attention_shape(model)
    assert shape.yarn == Yarn(factor=40, original_length=4096, beta_fast=32, beta_slow=1, mscale=mscale)
    assert (shape.rope_base, shape.norm_eps) == (10000.0, 1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_every_bundled_model_has_one_shape_whatever_its_case(model):
    assert attention_shape(model) == attention_shape(model.upper())
    label, shape = attention_shape(model)
    assert label == model
    assert shape.dtype == "bfloat16"
    assert 1 < shape.kv_heads < shape.heads
    assert shape.heads % shape.kv_heads == 0


def test_bundled_models_are_the_conversion_target_of_their_size():
    """A model of V3's head size and width converts to V3's own latents."""
    _, v3 = attention_shape("v3")
    _, llama = attention_shape("llama-3.1-405b")
    for name in ("head_dim", "latent", "query_latent", "nope_dim", "rope_dim", "value_dim", "kv_heads"):
        assert getattr(llama, name) == getattr(v3, name)


def test_llama_style_converts_by_its_head_size(written):
    label, shape = attention_shape(written(LLAMA))
    assert label == "My-Model"
    assert shape == AttentionShape(
        hidden=2048,
        heads=32,
        kv_heads=8,
        layers=16,
        head_dim=64,
        latent=256,
        query_latent=None,
        nope_dim=64,
        rope_dim=32,
        value_dim=64,
        rope_base=500000.0,
        norm_eps=1e-5,
        converted=True,
    )


def test_qwen_style_takes_the_head_size_from_the_hidden_size(written, recwarn):
    _, shape = attention_shape(written(QWEN))
    assert (shape.head_dim, shape.latent, shape.query_latent, shape.rope_base) == (128, 512, 1536, 1e6)
    assert shape.yarn == Yarn(factor=4.0, original_length=32768, mscale=1.0)
    assert not recwarn.list, "the window is switched off in this file"


def test_mistral_style_warns_about_its_window(written):
    path = written(MISTRAL)
    with pytest.warns(UserWarning, match=r"config\.json: sliding_window 4096 is ignored"):
        _, shape = attention_shape(path)
    assert (shape.head_dim, shape.heads, shape.converted) == (128, 32, True), "head_dim is not hidden over heads"


def test_deepseek_style_keeps_its_own_latent(written):
    _, shape = attention_shape(written(DEEPSEEK))
    assert shape == AttentionShape(
        hidden=1024,
        heads=12,
        kv_heads=6,
        layers=4,
        head_dim=64,
        latent=256,
        query_latent=None,
        nope_dim=64,
        rope_dim=32,
        value_dim=48,
        rope_base=20000.0,
        yarn=Yarn(mscale=0.707),
    )


@pytest.mark.parametrize("hidden, query_latent", [(4096, 1536), (4032, None)])
def test_a_query_latent_begins_at_hidden_size_4096(written, hidden, query_latent):
    _, shape = attention_shape(written({**LLAMA, "hidden_size": hidden, "head_dim": 128}))
    assert shape.query_latent == query_latent


@pytest.mark.parametrize(
    "heads, kv_heads, groups",
    [(32, 4, 4), (32, 32, 8), (32, 1, 8), (32, None, 8), (12, 12, 6), (8, 8, 4), (7, 7, 1), (1, 1, 1)],
)
def test_gqa_has_the_models_own_groups_or_up_to_eight(written, heads, kv_heads, groups):
    fields = {**LLAMA, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    assert attention_shape(written(fields))[1].kv_heads == groups


def test_a_folder_and_any_json_name_will_do(written, tmp_path):
    path = written(LLAMA, "Tiny Llama")
    assert attention_shape(str(tmp_path / "Tiny Llama"))[0] == "Tiny-Llama"
    other = tmp_path / "mine.json"
    other.write_text(json.dumps(LLAMA))
    assert attention_shape(str(other)) == ("mine", attention_shape(path)[1])


def test_a_bundled_model_written_to_a_file_reads_the_same(written):
    for name, fields in MODELS.items():
        assert attention_shape(written(fields, name)) == attention_shape(name)


@pytest.mark.parametrize(
    "fields, said",
    [
        (without(LLAMA, "hidden_size", "num_hidden_layers"), ["missing hidden_size, num_hidden_layers"]),
        (without(LLAMA, "model_type"), ["missing model_type"]),
        (without(DEEPSEEK, "kv_lora_rank", "v_head_dim"), ["missing kv_lora_rank, v_head_dim"]),
        (without(DEEPSEEK, "q_lora_rank"), ["missing q_lora_rank"]),
        ({}, ["model_type", "hidden_size", "num_attention_heads", "num_hidden_layers"]),
        ({**LLAMA, "hidden_size": -2048}, ["hidden_size is -2048"]),
        ({**LLAMA, "num_attention_heads": 0}, ["num_attention_heads is 0"]),
        ({**LLAMA, "num_hidden_layers": 16.5}, ["num_hidden_layers is 16.5"]),
        ({**LLAMA, "head_dim": "64"}, ['head_dim is "64"']),
        ({**LLAMA, "num_key_value_heads": True}, ["num_key_value_heads is true"]),
        ({**LLAMA, "head_dim": -1, "hidden_size": [2048]}, ["hidden_size is [2048]", "head_dim is -1"]),
        ({**without(LLAMA, "hidden_size"), "head_dim": 0}, ["missing hidden_size", "head_dim is 0"]),
        ({**without(LLAMA, "head_dim"), "num_attention_heads": 24}, ["hidden_size is 2048", "head_dim"]),
        ({**LLAMA, "num_key_value_heads": 5}, ["num_key_value_heads is 5", "num_attention_heads, 32"]),
        ({**LLAMA, "num_key_value_heads": 64}, ["num_key_value_heads is 64"]),
        ({**LLAMA, "head_dim": 66}, ["head_dim is 66"]),
        ({**LLAMA, "rope_theta": 0}, ["rope_theta is 0"]),
        ({**LLAMA, "rms_norm_eps": float("nan")}, ["rms_norm_eps is NaN"]),
        ({**LLAMA, "rope_scaling": "yarn"}, ['rope_scaling is "yarn"', "an object"]),
        ({**LLAMA, "rope_scaling": {"type": 3}}, ["rope_scaling.type is 3"]),
        ({**LLAMA, "rope_scaling": {"type": "yarn"}}, ["rope_scaling.factor", "original_max_position_embeddings"]),
        ({**QWEN, "rope_scaling": {**QWEN["rope_scaling"], "factor": -4}}, ["rope_scaling.factor is -4"]),
        (
            {**QWEN, "rope_scaling": {**QWEN["rope_scaling"], "mscale": 1.0, "mscale_all_dim": 0.5}},
            ["rope_scaling.mscale_all_dim is 0.5"],
        ),
        ({**DEEPSEEK, "qk_rope_head_dim": 33}, ["qk_rope_head_dim is 33", "even"]),
        ({**DEEPSEEK, "qk_nope_head_dim": 65}, ["qk_nope_head_dim is 65", "even"]),
        ({**DEEPSEEK, "q_lora_rank": 0}, ["q_lora_rank is 0"]),
        ({"model_type": "mamba", "hidden_size": 768}, ['model_type is "mamba"', *GROUPED, *LATENT]),
        ("[1, 2]", ["list", "object"]),
        ("{'hidden_size': 1}", ["not JSON", "line 1"]),
        ("", ["not JSON"]),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_its_fields(written, fields, said):
    path = written(fields)
    with pytest.raises(ValueError) as refusal:
        attention_shape(path)
    for words in [path, *said]:
        assert words in str(refusal.value)


def test_an_unreadable_file_is_refused_by_name(tmp_path):
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.json", tmp_path, tmp_path / "no" / "such", binary):
        with pytest.raises(ValueError, match=str(path)):
            attention_shape(str(path))


def test_an_unknown_name_is_answered_with_what_was_meant_and_what_there_is():
    with pytest.raises(ValueError, match=r"did you mean llama-3\.1-8b") as refusal:
        attention_shape("lama-3.1-8b")
    assert all(name in str(refusal.value) for name in MODELS)
    with pytest.raises(ValueError, match="zzz is no bundled model and no file; bundled: v2-lite"):
        configuration("zzz")
