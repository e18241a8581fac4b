"""Routing in two Triton launches: logits in parts, then scores, groups, choice and gate values together.

Wins over a chain of PyTorch operations by launches, and by reading x and the router once in their own dtype. Loses at
thousands of tokens to a library product for the logits, which keeps more of the router's matrix in registers.
Shape suffixes: M tokens, D hidden, E experts, K chosen, S parts of the logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..triton_jit import TensorDescriptor
from . import triton_routing_kernels as kernels
from .routing import Routing
from .shape import Router
from .weights import RouterWeights

COLUMNS = 64
PROCESSORS = 128
MOST_PARTS = 32


@dataclass(frozen=True)
class LogitsLaunch:
    """Tokens and experts of a program, its warps, the columns of D it takes, and how many such parts there are."""

    tokens: int
    experts: int
    warps: int
    share: int
    parts: int


def padded(count: int) -> int:
    """The power of two at or above `count`."""
    return 1 << (count - 1).bit_length()


@lru_cache(maxsize=256)
def logits_launch(tokens: int, experts: int, hidden: int) -> LogitsLaunch:
    """Blocks that grow with the tokens, so that the router is not read too often, and parts until processors are busy.

    One wave of programs, and at most 32 parts, which the second kernel adds up one after the other.
    """
    rows, most = (64, 64) if tokens <= 128 else (128, 128) if tokens <= 2048 else (128, 256)
    columns = max(16, min(most, padded(experts)))
    programs = math.ceil(tokens / rows) * math.ceil(experts / columns)
    parts = max(1, min(MOST_PARTS, PROCESSORS // programs, math.ceil(hidden / COLUMNS)))
    share = math.ceil(math.ceil(hidden / COLUMNS) / parts) * COLUMNS
    return LogitsLaunch(rows, columns, 8 if rows * columns >= 128 * 128 else 4, share, math.ceil(hidden / share))


def route(x_MD: Tensor, w: RouterWeights) -> Routing:
    """Gates in FP32 and experts in int64, [M, K], the best expert of a token first.

    Both factors are 16-bit, or FP32, which is multiplied without TF32; logits and scores are FP32.
    """
    rule, (tokens, hidden) = w.rule, x_MD.shape
    launch = logits_launch(tokens, rule.experts, hidden)
    parts_SME = torch.empty(launch.parts, tokens, rule.experts, dtype=torch.float32, device=x_MD.device)
    grid = (math.ceil(tokens / launch.tokens), math.ceil(rule.experts / launch.experts), launch.parts)
    kernels.logits[grid](
        TensorDescriptor.from_tensor(x_MD, [launch.tokens, COLUMNS]),
        TensorDescriptor.from_tensor(w.matrix_ED, [launch.experts, COLUMNS]),
        parts_SME,
        tokens,
        rule.experts,
        hidden,
        launch.share,
        M=launch.tokens,
        E=launch.experts,
        K=COLUMNS,
        STAGES=4,
        PRECISION="ieee",
        num_warps=launch.warps,
    )
    return select(parts_SME, w.bias_E, rule)


def select(parts_SME: Tensor, bias_E: Tensor | None, rule: Router) -> Routing:
    """The same from logits in FP32, which are the sum of S parts, one launch."""
    parts, tokens, _ = parts_SME.shape
    gates_MK = torch.empty(tokens, rule.top_k, dtype=torch.float32, device=parts_SME.device)
    experts_MK = torch.empty(tokens, rule.top_k, dtype=torch.int64, device=parts_SME.device)
    group_size = rule.experts // rule.groups
    limited = rule.top_groups < rule.groups
    kernels.select[(tokens,)](
        parts_SME,
        parts_SME if bias_E is None else bias_E,
        gates_MK,
        experts_MK,
        tokens,
        rule.experts,
        group_size if limited else rule.experts,
        rule.scale,
        SIGMOID=rule.biased,
        NORMALISE=rule.normalise,
        GROUPS=rule.groups if limited else 1,
        TOP_GROUPS=rule.top_groups if limited else 1,
        TOP_K=rule.top_k,
        PARTS=parts,
        G=padded(rule.groups) if limited else 1,
        N=padded(group_size if limited else rule.experts),
        CHOICES=padded(rule.top_k),
        num_warps=1,
    )
    return Routing(gates_MK, experts_MK)
