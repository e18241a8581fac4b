"""The projections of one attention layer, for keys and values per head and for MLA.

Matrices map as in the papers, y = W h, one output a row. Entries are drawn with variance 1 / inputs, so that hidden
states of unit variance stay of unit variance throughout.
Shape suffixes: D hidden, H heads, G key-value heads, E head size (MLA: nope + rope), Q query latent (the hidden state
where there is none), C latent, N nope, R rope, V value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .shape import AttentionShape, DecodeShape, SequenceShape


@dataclass(frozen=True)
class MhaWeights:
    """MHA, GQA (G < H) and MQA (G = 1)."""

    wq_HED: Tensor
    wk_GED: Tensor
    wv_GED: Tensor
    wo_DHE: Tensor


@dataclass(frozen=True)
class MlaWeights:
    """Multi-head Latent Attention (DeepSeek-V2 §2.1, DeepSeek-V3 eqs 1-11).

    w_uq_HEQ holds W^UQ and W^QR of a head, nope rows first. Without a query latent (V2-Lite) it applies to the hidden
    state, and w_dq_QD and q_norm_Q are None.
    """

    w_dq_QD: Tensor | None
    q_norm_Q: Tensor | None
    w_uq_HEQ: Tensor
    w_dkv_CD: Tensor
    kv_norm_C: Tensor
    w_kr_RD: Tensor
    w_uk_HNC: Tensor
    w_uv_HVC: Tensor
    wo_DHV: Tensor


def kv_heads(model: AttentionShape, technique: str) -> int:
    """Key-value heads: all of them in MHA, the model's groups in GQA, one in MQA."""
    return {"mha": model.heads, "gqa": model.kv_heads, "mqa": 1}[technique]


def draw_weights(
    shape: DecodeShape | SequenceShape, technique: str, generator: torch.Generator
) -> MhaWeights | MlaWeights:
    """Random weights in the model's dtype on the generator's device."""
    model = shape.model

    def matrix(*sizes: int, inputs: int) -> Tensor:
        entries = torch.randn(sizes, generator=generator, device=generator.device, dtype=model.torch_dtype)
        return entries.mul_(inputs**-0.5)

    def norm(size: int) -> Tensor:
        return 1 + 0.1 * matrix(size, inputs=1)

    if technique == "mla":
        query = model.query_latent or model.hidden
        return MlaWeights(
            w_dq_QD=matrix(query, model.hidden, inputs=model.hidden) if model.query_latent else None,
            q_norm_Q=norm(query) if model.query_latent else None,
            w_uq_HEQ=matrix(model.heads, model.nope_dim + model.rope_dim, query, inputs=query),
            w_dkv_CD=matrix(model.latent, model.hidden, inputs=model.hidden),
            kv_norm_C=norm(model.latent),
            w_kr_RD=matrix(model.rope_dim, model.hidden, inputs=model.hidden),
            w_uk_HNC=matrix(model.heads, model.nope_dim, model.latent, inputs=model.latent),
            w_uv_HVC=matrix(model.heads, model.value_dim, model.latent, inputs=model.latent),
            wo_DHV=matrix(model.hidden, model.heads, model.value_dim, inputs=model.heads * model.value_dim),
        )
    groups, size = kv_heads(model, technique), model.head_dim
    return MhaWeights(
        wq_HED=matrix(model.heads, size, model.hidden, inputs=model.hidden),
        wk_GED=matrix(groups, size, model.hidden, inputs=model.hidden),
        wv_GED=matrix(groups, size, model.hidden, inputs=model.hidden),
        wo_DHE=matrix(model.hidden, model.heads, size, inputs=model.heads * size),
    )
