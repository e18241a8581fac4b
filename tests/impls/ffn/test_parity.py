"""The mixture against transformers' DeepSeek-V3 and Mixtral layers: other people's code, the same numbers in FP32."""

from __future__ import annotations

import pytest
import torch

from impls.ffn.inputs import draw_tokens
from impls.ffn.reference import mixture_forward
from impls.ffn.routing import route
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.weights import MoeWeights, draw_weights

transformers = pytest.importorskip("transformers")
D, W, E, K, SHARED, TOKENS = 64, 24, 16, 4, 2, 50


def drawn(rule: Router, shared: int) -> tuple[MoeWeights, torch.Tensor]:
    shape = TokenShape(FfnShape(D, W, shared, rule, "float32"), TOKENS, 0.7)
    generator = torch.Generator().manual_seed(0)
    return draw_weights(shape, "moe", generator), draw_tokens(shape, "moe", generator).x_MD


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def by_expert(gates_MK: torch.Tensor, experts_MK: torch.Tensor) -> torch.Tensor:
    """Gate values [M, E], zero for experts not chosen."""
    return torch.zeros(TOKENS, E).scatter(1, experts_MK, gates_MK)


def fill_experts(experts: torch.nn.Module, w: MoeWeights) -> None:
    experts.gate_up_proj.data.copy_(w.w_in_EUD)
    experts.down_proj.data.copy_(w.w_out_EDW)


def fill_shared(mlp: torch.nn.Module, w: MoeWeights) -> None:
    gate_WD, up_WD = w.shared.w_in_UD.chunk(2)
    mlp.gate_proj.weight.data.copy_(gate_WD)
    mlp.up_proj.weight.data.copy_(up_WD)
    mlp.down_proj.weight.data.copy_(w.shared.w_out_DW)


@torch.no_grad()
def test_deepseek_v3_routing_and_layer():
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as theirs

    rule = Router(E, K, "sigmoid", groups=4, top_groups=2, normalise=True, scale=2.5)
    w, x_MD = drawn(rule, SHARED)
    config = theirs.DeepseekV3Config(
        hidden_size=D,
        moe_intermediate_size=W,
        n_routed_experts=E,
        num_experts_per_tok=K,
        n_shared_experts=SHARED,
        n_group=4,
        topk_group=2,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    )
    config._experts_implementation = "eager"
    layer = theirs.DeepseekV3MoE(config)
    layer.gate.weight.data.copy_(w.router.matrix_ED)
    layer.gate.e_score_correction_bias.copy_(w.router.bias_E)
    fill_experts(layer.experts, w)
    fill_shared(layer.shared_experts, w)
    _, gates_MK, experts_MK = layer.gate(x_MD)
    ours = route(x_MD, w.router)
    assert torch.equal(ours.experts_MK.sort().values, experts_MK.sort().values)
    dense = [
        torch.zeros(TOKENS, E).scatter(1, e, g) for e, g in ((experts_MK, gates_MK), (ours.experts_MK, ours.gates_MK))
    ]
    close(dense[1], dense[0])
    close(mixture_forward(w, x_MD), layer(x_MD[None])[0])


@torch.no_grad()
def test_mixtral_layer():
    from transformers.models.mixtral import modeling_mixtral as theirs

    w, x_MD = drawn(Router(8, 2, normalise=True), 0)
    config = theirs.MixtralConfig(hidden_size=D, intermediate_size=W, num_local_experts=8, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    layer = theirs.MixtralSparseMoeBlock(config)
    layer.gate.weight.data.copy_(w.router.matrix_ED)
    fill_experts(layer.experts, w)
    result = layer(x_MD[None])
    close(mixture_forward(w, x_MD), (result[0] if isinstance(result, tuple) else result)[0])
