"""The references against transformers' DeepSeek-V3 and Llama attention, which share no code with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from impls.attention.rope import frequencies
from impls.attention.shape import AttentionShape, SequenceShape, Yarn

deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
llama = pytest.importorskip("transformers.models.llama.modeling_llama")
LENGTH = 24


def causal_mask() -> torch.Tensor:
    return torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]


def run(module, rotary, x_BTD: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(LENGTH)[None]
    with torch.no_grad():
        return module(x_BTD, position_embeddings=rotary(x_BTD, positions), attention_mask=causal_mask())[0]


@pytest.mark.parametrize("query_latent", (24, None))
@pytest.mark.parametrize("yarn", (None, Yarn(factor=40.0, original_length=16), Yarn(factor=4.0, original_length=16)))
def test_mla_is_deepseek_v3s(registry, draw, model, query_latent, yarn):
    model = replace(model, query_latent=query_latent, yarn=yarn, rope_dim=16)
    rope = {"rope_type": "default", "rope_theta": model.rope_base}
    if yarn is not None:
        rope |= {
            "rope_type": "yarn",
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original_length,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
            "mscale": yarn.mscale,
            "mscale_all_dim": yarn.mscale,
        }
    config = deepseek.DeepseekV3Config(
        hidden_size=model.hidden,
        num_attention_heads=model.heads,
        num_key_value_heads=model.heads,
        q_lora_rank=query_latent,
        kv_lora_rank=model.latent,
        qk_nope_head_dim=model.nope_dim,
        qk_rope_head_dim=model.rope_dim,
        v_head_dim=model.value_dim,
        max_position_embeddings=int(16 * (yarn.factor if yarn else 8)),
        rope_parameters=rope,
        attn_implementation="eager",
    )
    theirs = deepseek.DeepseekV3Attention(config, 0).eval()
    shape = SequenceShape(model, 2, LENGTH)
    w, inputs = draw(registry.operations["attention.prefill"], shape, "mla")
    up_HUC = torch.cat((w.w_uk_HNC, w.w_uv_HVC), 1)
    state = {
        "kv_a_proj_with_mqa.weight": torch.cat((w.w_dkv_CD, w.w_kr_RD)),
        "kv_a_layernorm.weight": w.kv_norm_C,
        "kv_b_proj.weight": up_HUC.flatten(0, 1),
        "o_proj.weight": w.wo_DHV.flatten(1),
    }
    if query_latent is None:
        state["q_proj.weight"] = w.w_uq_HEQ.flatten(0, 1)
    else:
        state |= {
            "q_a_proj.weight": w.w_dq_QD,
            "q_a_layernorm.weight": w.q_norm_Q,
            "q_b_proj.weight": w.w_uq_HEQ.flatten(0, 1),
        }
    theirs.load_state_dict(state, strict=True)
    expected = run(theirs, deepseek.DeepseekV3RotaryEmbedding(config), inputs.x_BTD)
    result = registry.reference("attention.prefill", "mla").setup(w, shape)(inputs)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def halves(w_HED: torch.Tensor) -> torch.Tensor:
    """Rows from interleaved pairs to Llama's order: first all first halves of pairs, then all second halves."""
    return w_HED.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2).flatten(0, 1)


@pytest.mark.parametrize("technique", ("mha", "gqa", "mqa"))
def test_keys_and_values_per_head_are_llamas(registry, draw, model, technique):
    model = replace(model, hidden=48)  # transformers wants a multiple of the heads
    groups = {"mha": model.heads, "gqa": model.kv_heads, "mqa": 1}[technique]
    config = llama.LlamaConfig(
        hidden_size=model.hidden,
        num_attention_heads=model.heads,
        num_key_value_heads=groups,
        head_dim=model.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_base},
        attn_implementation="eager",
    )
    theirs = llama.LlamaAttention(config, 0).eval()
    shape = SequenceShape(model, 2, LENGTH)
    w, inputs = draw(registry.operations["attention.prefill"], shape, technique)
    theirs.load_state_dict(
        {
            "q_proj.weight": halves(w.wq_HED),
            "k_proj.weight": halves(w.wk_GED),
            "v_proj.weight": w.wv_GED.flatten(0, 1),
            "o_proj.weight": w.wo_DHE.flatten(1),
        },
        strict=True,
    )
    expected = run(theirs, llama.LlamaRotaryEmbedding(config), inputs.x_BTD)
    result = registry.reference("attention.prefill", technique).setup(w, shape)(inputs)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_yarn_frequencies_are_transformers():
    model = AttentionShape(hidden=64, heads=1, kv_heads=1, layers=1, yarn=Yarn())
    config = deepseek.DeepseekV3Config(
        hidden_size=64,
        num_attention_heads=1,
        qk_rope_head_dim=64,
        max_position_embeddings=163840,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
    )
    theirs = deepseek.DeepseekV3RotaryEmbedding(config).inv_freq
    torch.testing.assert_close(frequencies(model, 64, model.yarn).float(), theirs, rtol=1e-5, atol=0)
