"""Causal attention of expanded heads, the inner kernel of prefill and training, for all techniques.

MLA comes with its own head sizes here, 192 for queries and keys and 128 for values; GQA and MQA with fewer key-value
heads. Wins nothing: it writes out the scores, a block of rows at a time. It says what the fused kernels must compute.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness import implementation

from .inputs import SequenceKernelInputs, TrainKernelInputs, TrainKernelResult
from .plain import attend_causal
from .rope import softmax_scale
from .shape import SequenceShape
from .training import trained_kernel

TECHNIQUES = ("mha", "gqa", "mqa", "mla")


@implementation("attention.prefill_kernel", technique=TECHNIQUES, kind="reference")
def prefill_kernel(w: None, shape: SequenceShape) -> Callable[[SequenceKernelInputs], Tensor]:
    """Queries, keys and values to heads' outputs."""

    def call(inputs: SequenceKernelInputs) -> Tensor:
        scale = softmax_scale(shape, inputs.q_BTHE.shape[-1])
        return attend_causal(inputs.q_BTHE, inputs.k_BTGE, inputs.v_BTGV, scale)

    return call


@implementation("attention.train_kernel", technique=TECHNIQUES, kind="reference")
def train_kernel(w: None, shape: SequenceShape) -> Callable[[TrainKernelInputs], TrainKernelResult]:
    """Outputs, and gradients of queries, keys and values by autograd."""
    return trained_kernel(lambda q, k, v: attend_causal(q, k, v, softmax_scale(shape, q.shape[-1])))
