"""A training step whose logits never stand in memory together: head and loss over a few hundred rows at a time.

The gradient of a mean cross-entropy by its logits is known as soon as the logits are, so each chunk of rows leaves its
share of the gradients of the hidden states and of the head, and its logits are gone before the next one's. With K
further symbols that holds one chunk of logits instead of K + 1 times all of them, which is what Gloeckle et al.
(arXiv 2404.19737, §2) get by running their heads one after another. Wins memory with a large vocabulary or many depths,
and time where logits fall out of the caches. Loses a little time where they would have fitted.
Shape suffixes: M rows, D hidden, V symbols, B sequences, T symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness import implementation

from .inputs import Stepped, Windows
from .reference import OBJECTIVES, WEIGHT
from .shape import StepShape
from .weights import Weights, model_of

ROWS = 256


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy in nats of x [M, D] times the head [V, D]^T against targets int64 [M]. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x_MD: Tensor, w_VD: Tensor, targets_M: Tensor) -> Tensor:
        """Loss and both gradients, chunk by chunk; the products are in the dtype of `x`."""
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        cast_VD = w_VD.to(x_MD.dtype)
        dx_MD, dw_VD = torch.empty_like(x_MD), torch.zeros_like(w_VD, dtype=wide)
        total = torch.zeros((), dtype=wide, device=x_MD.device)
        for start in range(0, len(x_MD), ROWS):
            rows = slice(start, min(start + ROWS, len(x_MD)))
            logs_NV = (x_MD[rows] @ cast_VD.T).to(wide).log_softmax(-1)
            at_N1 = targets_M[rows, None]
            total -= logs_NV.gather(1, at_N1).sum()
            d_NV = logs_NV.exp_()
            d_NV.scatter_add_(1, at_N1, torch.full_like(at_N1, -1, dtype=wide))
            d_NV = d_NV.div_(len(x_MD)).to(x_MD.dtype)
            torch.mm(d_NV, cast_VD, out=dx_MD[rows])
            dw_VD += d_NV.T @ x_MD[rows]
        ctx.save_for_backward(dx_MD, dw_VD.to(w_VD.dtype))
        return total / len(x_MD)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        """Both, times the gradient of the loss."""
        dx_MD, dw_VD = ctx.saved_tensors
        return dx_MD * scale.to(dx_MD.dtype), dw_VD * scale.to(dw_VD.dtype), None


def stepping(
    technique: str, form: str | None = None, product: str = "reference"
) -> Callable[[Weights, StepShape], Callable[[Windows], Stepped]]:
    """objective.train_step of a technique; `form` and `product` as in `Decoder`."""

    def setup(weights: Weights, shape: StepShape) -> Callable[[Windows], Stepped]:
        model = model_of(weights, shape.of(technique), form, product)
        names, values = zip(*model.named_parameters(), strict=True)
        depths = model.shape.ahead
        shares = [1.0] * depths
        if technique == "mtp":  # the mean over T positions of which T - k have such a symbol
            shares = [WEIGHT / depths * (shape.length - depth) / shape.length for depth in range(1, depths + 1)]

        def call(inputs: Windows) -> Stepped:
            with torch.enable_grad():
                streams, _ = model.streams(inputs.given_BT[:, :-1])
                losses = []
                for depth, (x_BTD, norm) in enumerate(zip(streams, model.norms, strict=True)):
                    targets_M = inputs.given_BT[:, depth + 1 :].flatten()
                    losses.append(HeadLoss.apply(norm(x_BTD).flatten(0, 1), model.head_VD, targets_M))
                whole = losses[0] + sum(share * loss for share, loss in zip(shares, losses[1:], strict=True))
                gradients = torch.autograd.grad(whole, values)
            loss, *further = (one.detach() for one in losses)
            return Stepped(loss, tuple(further), dict(zip(names, gradients, strict=True)))

        return call

    setup.__doc__ = f"Forward and backward, the loss of {technique}, logits a chunk of rows at a time."
    return setup


for _technique in OBJECTIVES:
    implementation("objective.train_step", technique=_technique, kind="optimized", name="chunked")(stepping(_technique))
