"""FLOPs and bytes of each operator that a call dispatches, counted from its operands in an untimed call.

FLOPs are torch's own formulas (`torch.utils.flop_counter`): products, convolutions, attention. Bytes are those of the
operands and results, each once, which is the least that a cold cache must move. Neither is known of operators that
choose what they read (gathers), of attention with a mask that formulas do not see, and of kernels that no operator
launches, such as Triton's. Views move nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

CHOOSING = ("index", "gather", "scatter", "embedding", "take", "select_backward", "slice_backward", "bincount")
ATTENTION_ON_CPU = "aten::_scaled_dot_product_flash_attention_for_cpu"  # torch has no formula of its own for it
OVERWRITING = ("copy_", "fill_", "zero_", "normal_", "uniform_")


@dataclass
class Work:
    """Of all calls of one operator together; None where unknown."""

    count: int = 0
    flops: float | None = 0.0
    bytes: float | None = 0.0

    def add(self, flops: float | None, moved: float | None) -> None:
        """One more call."""
        self.count += 1
        self.flops = None if flops is None or self.flops is None else self.flops + flops
        self.bytes = None if moved is None or self.bytes is None else self.bytes + moved


class Traffic(TorchDispatchMode):
    """Counts inside the block; `work` is by the name that a profiler shows, such as `aten::mm`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work: defaultdict[str, Work] = defaultdict(Work)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.work[func._schema.name].add(_flops(func, args, kwargs, result), _bytes(func, args, kwargs, result))
        return result


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> float | None:
    """None where torch has no formula, or one that would count what a causal mask leaves out."""
    formula = flop_registry.get(func._overloadpacket)
    if func._schema.name == ATTENTION_ON_CPU:
        formula = flop_registry.get(torch.ops.aten._scaled_dot_product_flash_attention)
    if formula is None:
        return None
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    if given.get("is_causal") or given.get("attn_bias") is not None or given.get("attn_mask") is not None:
        return None
    try:
        return float(formula(*args, **kwargs, out_val=result))
    except Exception:  # a formula for other arguments than these
        return None


def _bytes(func: Any, args: Any, kwargs: Any, result: Any) -> float | None:
    name = func._schema.name.removeprefix("aten::")
    if func.is_view:
        return 0.0
    if any(word in name for word in CHOOSING):
        return None
    results, operands = _tensors(result), _tensors([args, kwargs])
    held = {tensor.untyped_storage().data_ptr() for tensor in operands}
    if not func._schema.is_mutable and results and all(t.untyped_storage().data_ptr() in held for t in results):
        return 0.0
    if name in OVERWRITING:
        operands = operands[1:]
    return float(sum(_size(tensor) for tensor in operands) + sum(_size(tensor) for tensor in results))


def _size(tensor: Tensor) -> int:
    """Bytes that a tensor covers: an expanded one repeats its storage and no more."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for leaf in torch.utils._pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and not any(leaf is other for other in found):
            found.append(leaf)
    return found
