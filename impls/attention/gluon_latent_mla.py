"""MLA decode's inner kernel on pages, by the Gluon kernel for Hopper.

Wins over the Triton kernel at nearly every size measured on an H200, by 1.1 to 3 times (batch 8, 8192 tokens, 16 heads:
the same), for pages come in while others are multiplied, and with unlike lengths, which load all processors alike
(docs/mla_decode.md). Loses time where a sequence is a few pages: planning and merging are launches of their own.
Latents of an FP8 cache are multiplied in FP16, which has all their bits from 4e-4 in size; latents over 1023, which a
normalised latent cannot reach, count as 1023. Made for Triton 3.6, whose Gluon is experimental; elsewhere it is not
listed as able.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness import Prepared, implementation

from ..gluon_jit import NEEDS
from .gluon_latent_decode import latent_decode, plan_for
from .inputs import DecodeKernelInputs
from .reference_mla import mla_scale
from .shape import DecodeShape
from .triton_mla import LAYOUT, contiguous, no_pages, paged

SUPPORTED = "3.6."


def unfit(shape: DecodeShape) -> str | None:
    """Why a shape is not taken, or None."""
    try:
        import triton
    except ModuleNotFoundError:
        return None  # `needs` says so
    if not triton.__version__.startswith(SUPPORTED):
        return f"Gluon is experimental: made for Triton {SUPPORTED}x, this is {triton.__version__}"
    if shape.model.torch_dtype != torch.bfloat16:
        return f"made for BF16 queries, not {shape.model.dtype}"
    return no_pages(shape)


@implementation("attention.decode_kernel", technique="mla", kind="optimized", name="gluon", needs=NEEDS, supports=unfit)
def decode_kernel(w: None, shape: DecodeShape) -> Prepared:
    """Absorbed queries over a cache that has the new tokens already; the plan is part of the call."""
    scale = mla_scale(shape)

    def call(inputs: DecodeKernelInputs) -> Tensor:
        cache, q_BTHK = inputs.cache, inputs.q_BTHE.contiguous()
        rows = q_BTHK.shape[1] * q_BTHK.shape[2]
        plan = plan_for(inputs.lengths_B, rows, cache.pages.dtype == torch.uint8)
        return latent_decode(q_BTHK, cache.pages, cache.table_BN, inputs.lengths_B, scale, plan)

    return Prepared(
        call,
        pack=lambda inputs: replace(inputs, cache=paged(inputs.cache)),
        unpack=lambda packed: replace(packed, cache=contiguous(packed.cache, shape.slots)),
        layout=LAYOUT,
    )
