"""Carries shapes, weights and inputs of the head over to the base's classes, and tells where the contract has changed.

The base's implementations are loaded under another package name and know only their own classes, so a head's
`DecodeShape` would not pass for theirs. Each dataclass of the head becomes the base's of the same name, with the same
tensors in it. What cannot be carried over, or means something else there, is a changed contract: two numbers under
different contracts are not compared. Loses on contracts that hold anything but dataclasses, tensors and plain values.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..contract import Operation
from ..entrant import Side
from ..verify import distance


class Changed(Exception):
    """The contract is another one in the base; the message says in what."""


class Bridge:
    """From classes of the package `head` to those of the package `base`; both are loaded."""

    def __init__(self, head: str, base: str) -> None:
        self._head, self._base = head, base

    def __call__(self, tree: Any) -> Any:
        """`tree` with every dataclass, named tuple and enum member of the head as the base's; the rest is shared.

        Raises Changed where the base has no such class, another one, or where something else of the head's is held.
        """
        if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
            return self._dataclass(tree)
        if isinstance(tree, enum.Enum):
            return self._member(tree)
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return self._twin(type(tree))(*(self(item) for item in tree))
        if isinstance(tree, (list, tuple)):
            return type(tree)(self(item) for item in tree)
        if isinstance(tree, dict):
            return {key: self(item) for key, item in tree.items()}
        if self._ours(type(tree)):
            raise Changed(f"it holds a {type(tree).__qualname__}, which is no dataclass and cannot be carried over")
        return tree

    def _dataclass(self, tree: Any) -> Any:
        twin = self._twin(type(tree))
        mine = {field.name: field for field in dataclasses.fields(tree) if field.init}
        other = {field.name for field in dataclasses.fields(twin) if field.init}
        changes = [f"{n} is new" for n in mine if n not in other and not _default(mine[n], getattr(tree, n))]
        changes += [f"{n} is gone" for n in sorted(other) if n not in mine]
        if changes:
            raise Changed(f"{type(tree).__qualname__} has other fields: {', '.join(changes)}")
        try:
            return twin(**{name: self(getattr(tree, name)) for name in mine if name in other})
        except (TypeError, ValueError) as error:
            raise Changed(f"{type(tree).__qualname__} of the base refuses the values: {error}") from error

    def _member(self, member: enum.Enum) -> Any:
        try:
            return self._twin(type(member))[member.name]
        except KeyError:
            raise Changed(f"{type(member).__qualname__}.{member.name} is new") from None

    def _ours(self, kind: type) -> bool:
        return kind.__module__ == self._head or kind.__module__.startswith(f"{self._head}.")

    def _twin(self, kind: type) -> Any:
        if not self._ours(kind):
            return kind
        found: Any = sys.modules.get(self._base + kind.__module__.removeprefix(self._head))
        for name in kind.__qualname__.split("."):
            found = getattr(found, name, None)
        if not isinstance(found, type):
            where = kind.__module__.removeprefix(f"{self._head}.")
            raise Changed(f"the base has no {kind.__qualname__} in {where}")
        same = dataclasses.is_dataclass(found) == dataclasses.is_dataclass(kind)
        if not same:
            raise Changed(f"{kind.__qualname__} is another kind of class")
        return found

    def operation(self, head: Operation, base: Operation, shape: Any) -> Operation:
        """The base's contract with weights and inputs that the head's draws, whatever shape it is asked for."""

        def carried(draw: Callable[..., Any]) -> Callable[..., Any]:
            return lambda _, technique, generator: self(draw(shape, technique, generator))

        return dataclasses.replace(
            base, weights=carried(head.weights), inputs=carried(head.inputs), variants=lambda _: {}
        )


def _default(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a value is its field's default, as of one that says nothing new."""
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return value is field.default or (isinstance(value, (int, float, str, tuple)) and bool(value == field.default))


def compare(head: Operation, base: Operation, shape: Any, own: Any, technique: str) -> None:
    """Raises Changed where the two contracts, asked of the same workload, differ in what can be read off them.

    `own` is the shape in the base's classes.
    """
    parts: Mapping[str, tuple[Any, Any]] = {
        "the mutable fields": (head.mutable, base.mutable),
        "tokens": (head.tokens(shape), base.tokens(own)),
        "cost": (_cost(head, shape, technique), _cost(base, own, technique)),
    }
    for name, (now, then) in parts.items():
        if now != then:
            raise Changed(f"{name} changed from {then} to {now}")


def _cost(operation: Operation, shape: Any, technique: str) -> Any:
    cost = operation.cost(shape, technique)
    return None if cost is None else dataclasses.asdict(cost)


def require_same_truth(head: Side, base: Side) -> None:
    """Raises Changed when the two references, given the same inputs, return or write something else."""
    for word, mine, other in (
        ("returns", head.truth.values, base.truth.values),
        ("writes", head.truth.written, base.truth.written),
    ):
        if mine.keys() != other.keys():
            raise Changed(f"the reference {word} {_listed(mine)}, in the base {_listed(other)}")
        for name, value in mine.items():
            _same(name, value, other[name], head.truth.limits[name].error)
    if head.truth.dtypes != base.truth.dtypes:
        raise Changed("the reference returns another dtype")


def _same(name: str, value: torch.Tensor, other: torch.Tensor, limit: float) -> None:
    if value.shape != other.shape:
        raise Changed(f"{name} of the reference has shape {list(value.shape)}, in the base {list(other.shape)}")
    off = distance(value, other).error
    if off > limit:
        raise Changed(f"the references differ: {name} is off by {off:.1e}, limit {limit:.1e}")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
