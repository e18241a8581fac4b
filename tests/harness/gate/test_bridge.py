"""Shapes and weights cross over to the base's classes; a changed contract is said before numbers."""

from __future__ import annotations

import enum
import sys
import types
from dataclasses import replace

import pytest
import torch

from harness.contract import Cost, Operation
from harness.gate.bridge import Bridge, Changed, compare

SOURCE = """
import enum
from dataclasses import dataclass, field
from typing import NamedTuple

class Mode(enum.Enum):
    A = 1
    B = 2

@dataclass(frozen=True)
class Inner:
    size: int

@dataclass(frozen=True)
class Shape:
    inner: Inner
    mode: Mode = Mode.A
    names: tuple[str, ...] = ()

class Pair(NamedTuple):
    left: object
    right: object

class Plain:
    pass
"""


@pytest.fixture
def packages():
    """Two loaded packages, `headpkg` and `basepkg`, and a way to give the base other source."""

    def load(name, source):
        module = types.ModuleType(f"{name}.shapes")
        sys.modules[f"{name}.shapes"] = module
        exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
        return module

    head, base = load("headpkg", SOURCE), load("basepkg", SOURCE)
    yield head, base, lambda source: load("basepkg", source)
    for name in ("headpkg.shapes", "basepkg.shapes"):
        sys.modules.pop(name)


BRIDGE = Bridge("headpkg", "basepkg")


def test_everything_becomes_the_bases_and_tensors_are_shared(packages):
    head, base, _ = packages
    tensor = torch.ones(2)
    tree = {"a": [head.Shape(head.Inner(3), head.Mode.B, ("x",))], "b": head.Pair(tensor, head.Mode.A), "c": 1.5}
    made = BRIDGE(tree)
    assert type(made["a"][0]) is base.Shape and type(made["a"][0].inner) is base.Inner
    assert made["a"][0].mode is base.Mode.B and made["a"][0].names == ("x",) and made["c"] == 1.5
    assert type(made["b"]) is base.Pair and made["b"].left is tensor and made["b"].right is base.Mode.A


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("    size: int", "    size: int\n    more: int = 0", "Inner has other fields: more is gone"),
        ("    inner: Inner\n", "", "Shape has other fields: inner is new"),
        ("    size: int", "    length: int", "Inner has other fields: size is new, length is gone"),
        ("class Inner:", "class Outer:", "the base has no Inner in shapes"),
        ("    B = 2\n", "", "Mode.B is new"),
        ("@dataclass(frozen=True)\nclass Inner:\n    size: int", "class Inner:\n    pass", "another kind of class"),
        (
            "    size: int",
            "    size: int\n    def __post_init__(self):\n        raise ValueError('even sizes only')",
            "Inner of the base refuses the values: even sizes only",
        ),
    ],
)
def test_a_changed_class_is_a_changed_contract(packages, before, after, said):
    head, _, reload = packages
    source = SOURCE.replace(before, after)
    assert source != SOURCE
    reload(source.replace("inner: Inner", "inner: object") if "Outer" in after else source)
    with pytest.raises(Changed, match=said.replace(".", r"\.")):
        BRIDGE(head.Shape(head.Inner(3), head.Mode.B))


def test_a_new_field_that_says_nothing_new_crosses_over(packages):
    head, _, reload = packages
    base = reload(SOURCE.replace("    mode: Mode = Mode.A\n", "").replace("    names: tuple[str, ...] = ()\n", ""))
    assert BRIDGE(head.Shape(head.Inner(3))) == base.Shape(base.Inner(3))
    with pytest.raises(Changed, match="names is new"):
        BRIDGE(head.Shape(head.Inner(3), names=("x",)))


def test_what_is_no_dataclass_cannot_cross_over(packages):
    head, _, _ = packages
    with pytest.raises(Changed, match="Plain, which is no dataclass"):
        BRIDGE(head.Plain())


OPERATION = Operation(
    name="toy.op",
    weights=lambda shape, technique, generator: None,
    inputs=lambda shape, technique, generator: None,
    cost=lambda shape, technique: Cost(10, 1, 1, "float32"),
    tokens=lambda shape: 4,
    baseline=(),
)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tokens": lambda shape: 5}, "tokens changed from 5 to 4"),
        ({"mutable": ("cache",)}, "the mutable fields changed from"),
        ({"cost": lambda shape, technique: Cost(11, 1, 1, "float32")}, "cost changed from"),
    ],
)
def test_what_can_be_read_off_a_contract_must_be_equal(change, said):
    compare(OPERATION, OPERATION, None, None, "plain")
    with pytest.raises(Changed, match=said):
        compare(OPERATION, replace(OPERATION, **change), None, None, "plain")


def test_enums_of_libraries_are_shared():
    class Colour(enum.Enum):
        RED = 1

    assert BRIDGE(Colour.RED) is Colour.RED
