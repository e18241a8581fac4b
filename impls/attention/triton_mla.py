"""MLA decode on pages: the absorbed layer and its inner kernel, with `latent_decode` for the attention.

The cache lies in pages of 64 tokens in shuffled order, as a server that hands out pages has it. Wins where the cache's
bytes bind: nothing but the latents is read, once for all heads of a program, ragged lengths cost what they hold. Loses
at one short sequence, where products with the weights and launches are the time.
Shape suffixes: B batch, T new tokens, S slots, H heads, N pages a sequence, P pages, C latent, R rope, K = C + R.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import Prepared, implementation

from ..triton_jit import processors
from .cache import FP8_LATENT, FP8_ROPE, Fp8LatentCache, LatentCache, no_fp8_row
from .inputs import DecodeKernelInputs
from .reference_mla import mla_scale
from .shape import DecodeShape
from .triton_latent_decode import PAGE, latent_decode, launch_for
from .triton_latent_layer import paged_layer
from .weights import MlaWeights

LAYOUT = "pages of 64, shuffled"
NEEDS = ("cuda", "triton")


def no_pages(shape: DecodeShape) -> str | None:
    """Why the kernel cannot take a shape, or None."""
    model = shape.model
    if (model.latent, model.rope_dim) != (FP8_LATENT, FP8_ROPE):
        return f"made for a latent of {FP8_LATENT} + {FP8_ROPE}, this one has {model.latent} + {model.rope_dim}"
    if model.torch_dtype.itemsize != 2:
        return "made for 16-bit queries"
    return no_fp8_row(shape)


@dataclass(frozen=True)
class PagedCache:
    """Pages [P, 64, K] or, in FP8, uint8 [P, 64, 656], and the page (int32) of each 64 tokens of a sequence."""

    pages: Tensor
    table_BN: Tensor

    def attend(self, q_BTHK: Tensor, lengths_B: Tensor, shape: DecodeShape, scale: float) -> Tensor:
        """Latent outputs [B, T, H, C]; `lengths` (int32) include the new tokens."""
        batch, tokens, heads, _ = q_BTHK.shape
        fp8 = self.pages.dtype == torch.uint8
        launch = launch_for(batch, tokens * heads, shape.slots, fp8, processors(q_BTHK.device))
        return latent_decode(q_BTHK.contiguous(), self.pages, self.table_BN, lengths_B, scale, launch)


def paged(cache: LatentCache | Fp8LatentCache) -> PagedCache:
    """A cache's rows in pages of a random order; the last page of a sequence is filled up with zeros."""
    rows = cache.bytes_BSN if isinstance(cache, Fp8LatentCache) else torch.cat((cache.c_BSC, cache.r_BSR), -1)
    batch, slots, width = rows.shape
    count = -(-slots // PAGE)
    generator = torch.Generator().manual_seed(batch * count)
    table_BN = torch.randperm(batch * count, generator=generator).view(batch, count).to(rows.device)
    pages = rows.new_zeros(batch * count, PAGE, width)
    for table_N, rows_SK in zip(table_BN, rows, strict=True):
        full = slots // PAGE
        pages[table_N[:full]] = rows_SK[: full * PAGE].unflatten(0, (full, PAGE))
        if full < count:
            pages[table_N[full:], : slots - full * PAGE] = rows_SK[None, full * PAGE :]
    return PagedCache(pages, table_BN.to(torch.int32))


def contiguous(cache: PagedCache, slots: int) -> LatentCache | Fp8LatentCache:
    """The inverse of `paged`, for caches of `slots` slots a sequence."""
    rows = cache.pages[cache.table_BN].flatten(1, 2)[:, :slots]
    if rows.dtype == torch.uint8:
        return Fp8LatentCache(rows)
    return LatentCache(*rows.split((FP8_LATENT, FP8_ROPE), -1))


def _prepared(call: object, shape: DecodeShape) -> Prepared:
    return Prepared(
        call,
        pack=lambda inputs: replace(inputs, cache=paged(inputs.cache)),
        unpack=lambda packed: replace(packed, cache=contiguous(packed.cache, shape.slots)),
        layout=LAYOUT,
    )


@implementation("attention.decode", technique="mla", kind="optimized", name="triton", needs=NEEDS, supports=no_pages)
def decode(w: MlaWeights, shape: DecodeShape) -> Prepared:
    """One step of decoding."""
    scale = mla_scale(shape)

    def attend(q_BTHK: Tensor, cache: PagedCache, lengths_B: Tensor) -> Tensor:
        return cache.attend(q_BTHK, lengths_B, shape, scale)

    return _prepared(paged_layer(w, shape, attend), shape)


@implementation(
    "attention.decode_kernel", technique="mla", kind="optimized", name="triton", needs=NEEDS, supports=no_pages
)
def decode_kernel(w: None, shape: DecodeShape) -> Prepared:
    """Absorbed queries over a cache that has the new tokens already."""
    scale = mla_scale(shape)

    def call(inputs: DecodeKernelInputs) -> Tensor:
        return inputs.cache.attend(inputs.q_BTHE, inputs.lengths_B, shape, scale)

    return _prepared(call, shape)
