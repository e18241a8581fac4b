"""MLA decode on a paged latent cache by the Gluon kernel: launches, and what a launch takes of a processor.

Shape suffixes: B batch, T new tokens, H heads, N pages a sequence, M = T x H query rows, P parts, C = 512 latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..triton_jit import processors
from . import gluon_latent_kernels as kernels
from .cache import FP8_LATENT, FP8_ROPE, FP8_ROW, FP8_SCALES
from .gluon_latent_plan import Plan, merge, planned

PAGE = 64
WIDTH = FP8_LATENT + FP8_ROPE
RAISED = 64.0  # FP16 has all bits of latents of an FP8 cache from 4e-4 in size, and 1023 for larger ones


@dataclass(frozen=True)
class Launch:
    """How to run one shape: query rows a program; what shared memory holds, half pages that are multiplied, pages'
    rotated keys, half pages as an FP8 cache stores them, and messages; and registers of a thread, at first, of the
    warps that sum, that convert, and of the one that copies."""

    rows: int
    rooms: int
    stored: int
    halves: int
    slots: int
    registers: int
    summing: int
    converting: int
    copying: int


LAUNCHES = {
    (16, False): Launch(16, 5, 3, 0, 2, 128, 128, 24, 40),
    (32, False): Launch(32, 5, 2, 0, 2, 128, 136, 24, 40),
    (64, False): Launch(64, 4, 2, 0, 1, 128, 184, 24, 32),
    (16, True): Launch(16, 4, 2, 3, 2, 96, 120, 64, 40),
    (32, True): Launch(32, 4, 2, 2, 2, 96, 120, 64, 40),
    (64, True): Launch(64, 3, 2, 2, 1, 96, 168, 48, 24),
}


def launch_for(rows: int, fp8: bool) -> Launch:
    """The launch for `rows` query rows (new tokens x heads) a sequence."""
    return LAUNCHES[16 if rows <= 16 else 32 if rows <= 32 else 64, fp8]


def parts_for(rows: int, launch: Launch, processors: int) -> int:
    """Parts of the work, so that parts times blocks of rows fill the processors once."""
    return max(1, processors // math.ceil(rows / launch.rows))


def plan_for(lengths_B: Tensor, rows: int, fp8: bool) -> Plan:
    """The plan that `latent_decode` takes; it depends on lengths, not on the layer."""
    return planned(lengths_B, parts_for(rows, launch_for(rows, fp8), processors(lengths_B.device)), PAGE)


@dataclass(frozen=True)
class Pieces:
    """Outputs [B, T, H, 512] of sequences that are whole in a part, and for the others normalised sums in FP32
    [P, 2, M, 512] with their log2-sum-exp [P, 2, M]; what is of no sequence is not written."""

    o: Tensor
    parts: Tensor
    lse: Tensor


def attended(q_BTHK: Tensor, pages: Tensor, table_BN: Tensor, lengths_B: Tensor, scale: float, plan: Plan) -> Pieces:
    """What `latent_decode` merges; the same arguments."""
    batch, tokens, heads, _ = q_BTHK.shape
    rows, fp8, device = tokens * heads, pages.dtype == torch.uint8, q_BTHK.device
    launch = launch_for(rows, fp8)
    o_BTHC = torch.empty(batch, tokens, heads, FP8_LATENT, dtype=q_BTHK.dtype, device=device)
    parts = torch.empty(plan.parts, 2, rows, FP8_LATENT, dtype=torch.float32, device=device)
    lse = torch.empty(plan.parts, 2, rows, dtype=torch.float32, device=device)
    blocks = math.ceil(rows / launch.rows)
    queries = q_BTHK.view(-1, WIDTH)
    kernels.attend[(plan.parts * blocks,)](
        copies(queries, launch.rows, FP8_LATENT // 2),
        copies(queries, launch.rows, FP8_ROPE),
        *cache_copies(pages),
        table_BN,
        lengths_B,
        plan.starts,
        o_BTHC,
        parts,
        lse,
        scale * math.log2(math.e),
        rows,
        heads,
        table_BN.stride(0),
        blocks,
        ROWS=launch.rows,
        FP8=fp8,
        RAISED=RAISED if fp8 else 1.0,
        ROOMS=launch.rooms,
        STORED=launch.stored,
        HALVES=launch.halves,
        SLOTS=launch.slots,
        SUM_REGISTERS=launch.summing,
        CONVERT_REGISTERS=launch.converting,
        COPY_REGISTERS=launch.copying,
        num_warps=4,
        maxnreg=launch.registers,
    )
    return Pieces(o_BTHC, parts, lse)


def latent_decode(
    q_BTHK: Tensor, pages: Tensor, table_BN: Tensor, lengths_B: Tensor, scale: float, plan: Plan
) -> Tensor:
    """Latent outputs [B, T, H, 512] in the dtype of `q`, which is BF16 [B, T, H, 576] and contiguous.

    pages      BF16 [P, 64, 576], or uint8 [P, 64, 656] (512 E4M3, 4 float32 scales, 64 BF16)
    table_BN   int32: the page of each 64 tokens of a sequence
    lengths_B  int32, at least T, the new tokens included; query t sees all but the T - 1 - t last tokens
    plan       of these lengths, for any number of parts
    """
    pieces = attended(q_BTHK, pages, table_BN, lengths_B, scale, plan)
    merge(pieces.parts, pieces.lse, plan, pieces.o.flatten(1, 2))
    return pieces.o


def cache_copies(pages: Tensor) -> tuple[Any, Any, Any]:
    """Latents, scales and rotated keys of the slots, as copies of a page; without scales the latents stand in."""
    slots = pages.view(-1, pages.shape[-1])
    if pages.dtype != torch.uint8:
        latents = copies(slots, PAGE, 256)
        return latents, latents, copies(slots, PAGE, FP8_ROPE)
    return (
        copies(slots[:, :FP8_LATENT].view(torch.float8_e4m3fn), PAGE, 256),
        copies(slots[:, FP8_LATENT:FP8_SCALES].view(torch.float32), PAGE, 4),
        copies(slots[:, FP8_SCALES:FP8_ROW].view(torch.bfloat16), PAGE, FP8_ROPE),
    )


def copies(matrix: Tensor, rows: int, columns: int) -> Any:
    """A matrix as asynchronous copies of [rows, columns]."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    names = {torch.bfloat16: gl.bfloat16, torch.float32: gl.float32, torch.float8_e4m3fn: gl.float8e4nv}
    layout = gl.NVMMASharedLayout.get_default_for([rows, columns], names[matrix.dtype])
    return TensorDescriptor.from_tensor(matrix, [rows, columns], layout)
