"""The tensors that contenders share, as objects: which they are, where their memory lies, what sizes they have.

Values are compared by digests (`verify.py`). A contender can also put another tensor in an input's place, or resize
one, and then everybody after it would fail; this notices and sets it back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from .tree import named_tensors


class Frame:
    """The tensors and the fields that hold them under some trees, when it was made."""

    def __init__(self, *trees: Any) -> None:
        self._fields = [field for tree in trees for field in _fields(tree)]
        self._tensors = [_kept(n, tensor) for tree in trees for n, tensor in named_tensors(tree).items()]

    def changed(self) -> str | None:
        """The first field or tensor that is not what it was, or None."""
        for owner, name, value in self._fields:
            if getattr(owner, name, None) is not value:
                return name
        return next((name for name, tensor, _, _, form in self._tensors if _form(tensor) != form), None)

    def mend(self) -> None:
        """Set all back; memory that was given away is there again, with other values and perhaps elsewhere."""
        for owner, name, value in self._fields:
            object.__setattr__(owner, name, value)
        for _, tensor, alias, size, form in self._tensors:
            if _form(tensor) != form:
                with suppress(RuntimeError):
                    alias.untyped_storage().resize_(size)
                    tensor.data = alias
        self._tensors = [_kept(name, tensor) for name, tensor, *_ in self._tensors]


def _kept(name: str, tensor: Tensor) -> tuple[str, Tensor, Tensor, int, Any]:
    """A tensor, an alias of its memory, that memory's bytes, and its form."""
    return name, tensor, tensor.detach(), tensor.untyped_storage().nbytes(), _form(tensor)


def _form(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...], torch.dtype, int]:
    storage = tensor.untyped_storage()
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, storage.nbytes())


def _fields(tree: Any) -> Iterator[tuple[Any, str, Any]]:
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            value = getattr(tree, field.name)
            yield tree, field.name, value
            yield from _fields(value)
