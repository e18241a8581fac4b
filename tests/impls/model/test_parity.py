"""The whole model against transformers' DeepSeek-V3, which shares no code with it: MLA, dense block, mixtures, head."""

from __future__ import annotations

import pytest
import torch

from impls.ffn.shape import Router
from impls.model.decoder import Decoder
from impls.model.generation import Plain
from impls.model.shape import ModelShape, small_shape

deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
LENGTH = 24


@pytest.fixture
def ours() -> Decoder:
    rule = Router(8, 2, score="sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5)
    model = Decoder(small_shape(hidden=64, layers=3, head_dim=16, width=24, router=rule, leading=1), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # gains of 1 would hide a norm in the wrong place
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for mixture in model.mixtures:
            mixture.bias_E.copy_(0.2 * torch.randn(8, generator=generator))
    return model


def their_config(shape: ModelShape):
    attention, rule = shape.attention, shape.rule
    return deepseek.DeepseekV3Config(
        vocab_size=shape.symbols,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn.dense_width("dense"),
        moe_intermediate_size=shape.ffn.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.heads,
        n_shared_experts=shape.ffn.shared,
        n_routed_experts=rule.experts,
        num_experts_per_tok=rule.top_k,
        n_group=rule.groups,
        topk_group=rule.top_groups,
        norm_topk_prob=rule.normalise,
        routed_scaling_factor=rule.scale,
        first_k_dense_replace=shape.leading,
        q_lora_rank=None,
        kv_lora_rank=attention.latent,
        qk_nope_head_dim=attention.nope_dim,
        qk_rope_head_dim=attention.rope_dim,
        v_head_dim=attention.value_dim,
        rms_norm_eps=attention.norm_eps,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": attention.rope_base},
        attn_implementation="eager",
        experts_implementation="eager",
    )


def swiglu(prefix: str, held) -> dict[str, torch.Tensor]:
    gate_WD, up_WD = held.w_in_UD.chunk(2)
    return {
        f"{prefix}.gate_proj.weight": gate_WD,
        f"{prefix}.up_proj.weight": up_WD,
        f"{prefix}.down_proj.weight": held.w_out_DW,
    }


def their_state(model: Decoder) -> dict[str, torch.Tensor]:
    state = {"model.embed_tokens.weight": model.embedding_VD, "lm_head.weight": model.head_VD}
    state["model.norm.weight"] = model.norm.gain_C
    for number, block in enumerate(model.blocks):
        layer, w = f"model.layers.{number}", block.attention.held.weights(torch.float32)
        feed = block.ffn.held.weights(torch.float32)
        state |= {
            f"{layer}.input_layernorm.weight": block.attention_norm.gain_C,
            f"{layer}.post_attention_layernorm.weight": block.ffn_norm.gain_C,
            f"{layer}.self_attn.q_proj.weight": w.w_uq_HEQ.flatten(0, 1),
            f"{layer}.self_attn.kv_a_proj_with_mqa.weight": torch.cat((w.w_dkv_CD, w.w_kr_RD)),
            f"{layer}.self_attn.kv_a_layernorm.weight": w.kv_norm_C,
            f"{layer}.self_attn.kv_b_proj.weight": torch.cat((w.w_uk_HNC, w.w_uv_HVC), 1).flatten(0, 1),
            f"{layer}.self_attn.o_proj.weight": w.wo_DHV.flatten(1),
        }
        if number < model.shape.leading:
            state |= swiglu(f"{layer}.mlp", feed)
            continue
        state |= swiglu(f"{layer}.mlp.shared_experts", feed.shared) | {
            f"{layer}.mlp.gate.weight": feed.router.matrix_ED,
            f"{layer}.mlp.gate.e_score_correction_bias": feed.router.bias_E,
            f"{layer}.mlp.experts.gate_up_proj": feed.w_in_EUD,
            f"{layer}.mlp.experts.down_proj": feed.w_out_EDW,
        }
    return state


@torch.no_grad()
def test_logits_are_deepseek_v3s(ours):
    theirs = deepseek.DeepseekV3ForCausalLM(their_config(ours.shape)).eval()
    theirs.load_state_dict(their_state(ours), strict=True)
    given_BT = torch.randint(256, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    expected, found = theirs(given_BT).logits, ours(given_BT).logits_BTV
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    lengths_B = torch.tensor([LENGTH, LENGTH])
    tokens = theirs.generate(given_BT, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(Plain(ours, 2, LENGTH, 8).run(given_BT, lengths_B).symbols_BN, tokens[:, LENGTH:])
