"""Log-probabilities of given symbols without their logits: log-softmax and gather over a few hundred rows at a time.

The whole way keeps logits of every position and symbol, their log-softmax and, in the backward pass, its gradient: at
4096 positions and DeepSeek-V3's 129,280 symbols 2.1 GB each in FP32. Here the forward pass keeps one number a row, the
log of the sum; the backward pass computes a chunk's logits again, of which the gradient is p less the one-hot symbol,
times what comes back, and hands them on at once. Wins memory: a chunk of logits instead of three times all. Loses one
product of the head more; nothing where the vocabulary is small.
Shape suffixes: M rows, N rows of a chunk, D hidden, V symbols.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 256


def whole_logs(x_MD: Tensor, w_VD: Tensor, targets_M: Tensor) -> Tensor:
    """By definition: log-softmax of all logits, then the target's; FP32 or wider, [M]."""
    logits_MV = F.linear(x_MD, w_VD.to(x_MD.dtype))
    logs_MV = logits_MV.to(torch.promote_types(x_MD.dtype, torch.float32)).log_softmax(-1)
    return logs_MV.gather(1, targets_M[:, None])[:, 0]


class ChunkedLogs(torch.autograd.Function):
    """The same of x [M, D], head [V, D] and targets int64 [M], a chunk of logits at a time. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, w_VD: Tensor, targets_M: Tensor) -> Tensor:
        """Log-probabilities [M] in FP32 or wider; the products are in the dtype of `x`."""
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        cast_VD = w_VD.to(x_MD.dtype)
        found_M = torch.empty(len(x_MD), dtype=wide, device=x_MD.device)
        sums_M = torch.empty_like(found_M)
        for rows in _chunks(len(x_MD)):
            logits_NV = (x_MD[rows] @ cast_VD.T).to(wide)
            torch.logsumexp(logits_NV, -1, out=sums_M[rows])
            found_M[rows] = logits_NV.gather(1, targets_M[rows, None])[:, 0] - sums_M[rows]
        ctx.save_for_backward(x_MD, w_VD, targets_M, sums_M)
        return found_M

    @staticmethod
    def backward(ctx: Any, d_M: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of the rows and of the head."""
        x_MD, w_VD, targets_M, sums_M = ctx.saved_tensors
        cast_VD, wide = w_VD.to(x_MD.dtype), sums_M.dtype
        dx_MD, dw_VD = torch.empty_like(x_MD), torch.zeros_like(w_VD, dtype=wide)
        for rows in _chunks(len(x_MD)):
            p_NV = (x_MD[rows] @ cast_VD.T).to(wide).sub_(sums_M[rows, None]).exp_()
            at_N1 = targets_M[rows, None]
            p_NV.scatter_add_(1, at_N1, torch.full_like(at_N1, -1, dtype=wide))
            d_NV = p_NV.mul_(-d_M[rows, None].to(wide)).to(x_MD.dtype)
            torch.mm(d_NV, cast_VD, out=dx_MD[rows])
            if x_MD.dtype == wide:
                dw_VD.addmm_(d_NV.T, x_MD[rows])
            else:
                dw_VD += d_NV.T @ x_MD[rows]
        return dx_MD, dw_VD.to(w_VD.dtype), None


def chunked_logs(x_MD: Tensor, w_VD: Tensor, targets_M: Tensor) -> Tensor:
    """`ChunkedLogs` as a function."""
    return ChunkedLogs.apply(x_MD, w_VD, targets_M)


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]
