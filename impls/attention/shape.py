"""Sizes of the attention operations: what a workload chooses, and all that an implementation may specialise on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Yarn:
    """YaRN context extension (arXiv 2309.00071) as DeepSeek-V2 and V3 use it: on the rotated part only."""

    factor: float = 40.0
    original_length: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0


@dataclass(frozen=True)
class AttentionShape:
    """One attention layer's sizes, for every technique of the comparison.

    MHA, GQA and MQA use `heads`, `kv_heads` (GQA's groups) and `head_dim`, and rotate the whole head. MLA uses
    `heads` with `nope_dim + rope_dim` for queries and keys, `value_dim` for values, a key-value latent of `latent`
    and, unless it is None, a query latent of `query_latent`.
    """

    hidden: int
    heads: int
    kv_heads: int
    layers: int
    head_dim: int = 128
    latent: int = 512
    query_latent: int | None = None
    nope_dim: int = 128
    rope_dim: int = 64
    value_dim: int = 128
    rope_base: float = 10000.0
    yarn: Yarn | None = None
    norm_eps: float = 1e-6
    converted: bool = False
    dtype: str = "bfloat16"

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def sliced(self, ranks: int) -> AttentionShape:
        """The slice one of `ranks` tensor-parallel ranks computes: heads divided, latents whole.

        Raises ValueError when the heads do not divide.
        """
        if self.heads % ranks:
            raise ValueError(f"{self.heads} heads cannot be sliced over {ranks} ranks")
        return replace(self, heads=self.heads // ranks, kv_heads=max(1, self.kv_heads // ranks))


@dataclass(frozen=True)
class SequenceShape:
    """Prefill and training: `batch` sequences of `length` tokens, causal."""

    model: AttentionShape
    batch: int
    length: int


@dataclass(frozen=True)
class DecodeShape:
    """Decoding `new_tokens` per sequence against a cache of `length` tokens each, or ragged up to that.

    cache   "native": the layer's dtype; "fp8": 656 bytes a token (MLA only; see cache.py)
    ragged  lengths uniform in half to full, drawn once from the sizes
    """

    model: AttentionShape
    batch: int
    length: int
    new_tokens: int = 1
    ragged: bool = False
    cache: str = "native"

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens in the cache of each sequence before the call."""
        if not self.ragged:
            return (self.length,) * self.batch
        generator = torch.Generator().manual_seed(self.batch * 1_000_003 + self.length)
        drawn = torch.randint(self.length // 2, self.length + 1, (self.batch,), generator=generator)
        return tuple(int(n) for n in drawn)

    @property
    def slots(self) -> int:
        """Cache slots a sequence: the longest length and the new tokens, whose slots are preallocated."""
        return max(self.lengths) + self.new_tokens
