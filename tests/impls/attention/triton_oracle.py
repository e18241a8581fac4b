"""Paged decode in plain PyTorch, and the launches and shapes at which the Triton kernels must equal it.

Run as a script it compares them in this process: under TRITON_INTERPRET=1 on a CPU, else on the GPU.
"""

from __future__ import annotations

import dataclasses
import sys

import torch
from torch import Tensor

from impls.attention.cache import Fp8LatentCache, LatentCache, quantize
from impls.attention.triton_latent_decode import Launch, latent_decode
from impls.attention.triton_mla import contiguous, paged

SCALE = 0.07
GARBAGE = 4.0


def drawn(lengths: list[int], tokens: int, heads: int, fp8: bool, dtype: torch.dtype, device: str, seed: int = 0):
    """Queries [B, T, H, 576], the paged cache with garbage past each length, lengths (int32)."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (len(lengths), max(lengths))
    c = torch.randn(*shape, 512, generator=generator, device=device)
    r = torch.randn(*shape, 64, generator=generator, device=device)
    for row, length in enumerate(lengths):
        c[row, length:] *= GARBAGE
        r[row, length:] *= GARBAGE
    rope_dtype = torch.bfloat16 if fp8 else dtype
    c, r = c.to(dtype), r.to(rope_dtype)
    cache = Fp8LatentCache(quantize(c, r)) if fp8 else LatentCache(c, r)
    q = torch.randn(len(lengths), tokens, heads, 576, generator=generator, device=device)
    q[..., :512] *= 0.5
    return q.to(dtype), paged(cache), torch.tensor(lengths, dtype=torch.int32, device=device)


def expected(q: Tensor, cache, lengths: Tensor) -> Tensor:
    """Latent outputs in FP64, one query at a time."""
    plain = contiguous(cache, cache.table_BN.shape[1] * 64)
    c, r = plain.read(torch.float64) if isinstance(plain, Fp8LatentCache) else (plain.c_BSC, plain.r_BSR)
    out = torch.empty(*q.shape[:3], 512, dtype=torch.float64, device=q.device)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            end = int(lengths[b]) - q.shape[1] + 1 + t
            keys = torch.cat((c[b, :end], r[b, :end]), -1).double()
            weights = (q[b, t].double() @ keys.T * SCALE).softmax(-1)
            out[b, t] = weights @ keys[:, :512]
    return out


def compare(launch: Launch, lengths: list[int], tokens: int, heads: int, fp8: bool, dtype, device: str) -> float:
    """Relative Frobenius error of one launch."""
    q, cache, lengths_B = drawn(lengths, tokens, heads, fp8, dtype, device)
    truth = expected(q, cache, lengths_B)
    result = latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, launch).double()
    return float((result - truth).norm() / truth.norm())


SMALL = [
    # lengths, new tokens, heads
    ([1], 1, 1),
    ([64, 1, 65], 1, 3),
    ([2, 63, 130], 2, 9),
    ([200], 2, 16),
]
LARGE = [
    ([1], 1, 16),
    ([5000, 3], 1, 9),
    ([777, 64, 4096], 2, 16),
    ([130, 2049], 2, 128),
    ([1, 63, 64, 65, 127, 128, 129], 1, 64),
    ([4097], 1, 128),
    ([70000, 31], 1, 32),
]
PLANS = {False: ((16, 4, 2), (32, 4, 2), (64, 8, 2)), True: ((16, 8, 2), (64, 8, 2))}


def main(words: list[str]) -> int:
    """Try every launch, or that of `words` alone (fp8|bf16 rows warps stages); print what is wrong, and return 1 if
    anything is."""
    interpreted = not torch.cuda.is_available()
    device, dtype, shapes = ("cpu", torch.float16, SMALL) if interpreted else ("cuda", torch.bfloat16, LARGE)
    limit = 2e-3 if interpreted else 6e-3
    plans = [(fp8, plan) for fp8, some in PLANS.items() for plan in some]
    if words:
        plans = [(words[0] == "fp8", tuple(int(word) for word in words[1:]))]
    wrong = tried = 0
    for fp8, plan in plans:
        for lengths, tokens, heads in shapes:
            for splits in (1, 3) if interpreted else (1, 2, 5, 40, 132):
                launch = Launch(*plan, splits)
                error = compare(launch, lengths, tokens, heads, fp8, dtype, device)
                tried += 1
                if not error < limit:
                    wrong += 1
                    print(f"{dataclasses.astuple(launch)} fp8={fp8} {lengths} t{tokens} h{heads}: {error:.2e}")
    print(f"{tried} tried, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
