"""MLA decode on a paged latent cache: split-KV attention in Triton, BF16 or FP16 pages and FP8 pages.

Absorbed queries [B, T, H, 512 + 64] attend to pages of 64 tokens through a page table; a second kernel merges the
splits by their log-sum-exp. No host synchronisation, shapes alone decide the launch, so a CUDA graph can hold it.

Wins over products in PyTorch: scores never reach memory and the cache is read once for 16, 32 or 64 query rows.
Loses to kernels with warp roles: a program here loads, multiplies and takes exponentials in turn, one program a
processor. More than 64 rows read a page once per block of 64 (from L2, mostly) and stay under half the matrix rate.
Slots at and past a sequence's length may hold any finite numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..triton_jit import TensorDescriptor
from . import triton_latent_kernels as kernels
from .cache import FP8_GROUP, FP8_LATENT, FP8_ROPE, FP8_ROW, FP8_SCALES

PAGE = 64
PROGRAM_PAGES = 4  # what starting a program costs, in pages
MERGE_PAGES = 0.05  # what merging another split costs


@dataclass(frozen=True)
class Launch:
    """How to run one shape: query rows a program, its warps and pipeline stages, and splits of a sequence."""

    rows: int
    warps: int
    stages: int
    splits: int


@lru_cache
def launch_for(batch: int, rows: int, length: int, fp8: bool, processors: int) -> Launch:
    """The launch for `rows` query rows (new tokens x heads) a sequence and sequences of up to `length` tokens."""
    block = 16 if rows <= 16 else 32 if rows <= 32 and not fp8 else 64
    warps = 8 if fp8 or block == 64 else 4
    return Launch(block, warps, 2, _splits(batch * math.ceil(rows / block), math.ceil(length / PAGE), processors))


def _splits(programs: int, pages: int, resident: int) -> int:
    """Splits with the least time, in pages: waves of `resident` programs, each with its start-up, and the merge.

    At most four waves by splitting, so that partial results stay small beside the cache.
    """

    def time(splits: int) -> float:
        waves = math.ceil(programs * splits / resident)
        return waves * (math.ceil(pages / splits) + PROGRAM_PAGES) + MERGE_PAGES * splits

    return min(range(1, max(1, min(pages, 4 * resident // programs)) + 1), key=time)


def latent_decode(
    q_BTHK: Tensor, pages: Tensor, table_BN: Tensor, lengths_B: Tensor, scale: float, launch: Launch
) -> Tensor:
    """Latent outputs [B, T, H, 512] in the dtype of `q`, which is [B, T, H, 576] and contiguous.

    pages      [P, 64, 576] in the dtype of `q`, or uint8 [P, 64, 656] (512 E4M3, 4 float32 scales, 64 BF16)
    table_BN   int32: the page of each 64 tokens of a sequence
    lengths_B  int32, at least T, the new tokens included; query t sees all but the T - 1 - t last tokens
    """
    batch, tokens, heads, _ = q_BTHK.shape
    rows = tokens * heads
    o_BTHC = torch.empty(batch, tokens, heads, FP8_LATENT, dtype=q_BTHK.dtype, device=q_BTHK.device)
    parts, lse = o_BTHC, o_BTHC
    if launch.splits > 1:
        parts = torch.empty(batch, launch.splits, rows, FP8_LATENT, dtype=torch.float32, device=q_BTHK.device)
        lse = torch.empty(batch, launch.splits, rows, dtype=torch.float32, device=q_BTHK.device)
    kernel, cache = _kernel(pages, launch)
    kernel[(math.ceil(rows / launch.rows), launch.splits, batch)](
        q_BTHK,
        table_ptr=table_BN,
        lengths_ptr=lengths_B,
        o_ptr=parts,
        lse_ptr=lse,
        scale=scale * math.log2(math.e),
        rows=rows,
        heads=heads,
        table_stride=table_BN.stride(0),
        splits=launch.splits,
        ROWS=launch.rows,
        STAGES=launch.stages,
        PAGE=PAGE,
        C=FP8_LATENT,
        R=FP8_ROPE,
        num_warps=launch.warps,
        **cache,
    )
    if launch.splits > 1:
        padded = 1 << (launch.splits - 1).bit_length()
        kernels.merge[(rows, batch, 4)](
            parts, lse, o_BTHC, rows, launch.splits, SPLITS=padded, CHUNK=min(16, padded), COLUMNS=128, C=FP8_LATENT
        )
    return o_BTHC


def _kernel(pages: Tensor, launch: Launch) -> tuple[Any, dict[str, Any]]:
    """The kernel for a cache format, and the cache and constants it takes."""
    if pages.dtype != torch.uint8:
        slots = pages.view(-1, FP8_LATENT + FP8_ROPE)
        kernel = kernels.attend_turned if launch.rows <= 32 else kernels.attend_direct
        tiles = {"latents": _tiles(slots[:, :FP8_LATENT]), "rope": _tiles(slots[:, FP8_LATENT:])}
        return kernel, tiles
    rows = pages.view(-1, FP8_ROW)
    return kernels.attend_turned_fp8 if launch.rows <= 16 else kernels.attend_direct_fp8, {
        "latents": _tiles(rows[:, :FP8_LATENT].view(torch.float8_e4m3fn)),
        "rope": _tiles(rows[:, FP8_SCALES:].view(torch.bfloat16)),
        "scales_ptr": rows[:, FP8_LATENT:FP8_SCALES].view(torch.float32),
        "GROUP": FP8_GROUP,
        "ROW_BYTES": FP8_ROW,
    }


def _tiles(columns: Tensor) -> Any:
    """A page of some columns of the slots as one asynchronous copy."""
    return TensorDescriptor.from_tensor(columns, [PAGE, columns.shape[1]])
