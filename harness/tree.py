"""Walk the tensors inside weights, inputs and outputs, whatever dataclasses, tuples and dicts hold them.

The harness knows nothing of attention or experts; it clones, casts, compares and counts what a contract hands it by
walking that structure. Nothing but dataclasses, lists, tuples and dicts is entered; anything else is left as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def map_tensors(fn: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """A copy of `tree` with every tensor `t` replaced by `fn(t)`; containers are rebuilt, other leaves are shared."""
    if isinstance(tree, Tensor):
        return fn(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return dataclasses.replace(
            tree, **{f.name: map_tensors(fn, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.init}
        )
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(fn, item) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(fn, item) for item in tree)
    if isinstance(tree, dict):
        return {key: map_tensors(fn, item) for key, item in tree.items()}
    return tree


def named_tensors(tree: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor of `tree` by its dotted path, for example `cache.k`; a bare tensor is named `output`."""
    if isinstance(tree, Tensor):
        return {path or "output": tree}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        items = [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree)]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        items = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, (list, tuple)):
        items = [(str(i), item) for i, item in enumerate(tree)]
    elif isinstance(tree, dict):
        items = [(str(key), item) for key, item in tree.items()]
    else:
        return {}
    found: dict[str, Tensor] = {}
    for name, item in items:
        found.update(named_tensors(item, f"{path}.{name}" if path else name))
    return found


def clone(tree: Any) -> Any:
    """A deep copy of the tensors of `tree`."""
    return map_tensors(lambda t: t.detach().clone(), tree)


def cast(tree: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors of 16 bits and more in `dtype`; integers and 8-bit formats, which are storage, stay."""
    return map_tensors(lambda t: t.to(dtype) if t.is_floating_point() and t.element_size() > 1 else t, tree)


def storage_bytes(tree: Any) -> int:
    """Bytes of the distinct storages under `tree`; two views of one allocation count once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in named_tensors(tree).values()}
    return sum(storages.values())
