"""Triton kernels carried out by the interpreter: a wrong one is stopped without a GPU."""

from __future__ import annotations

import pytest

from harness.gate.kernels import judge
from harness.gate.options import GateOptions
from harness.gate.revision import Stopped

pytest.importorskip("triton")

KERNELS = """
import os
import torch
import triton
import triton.language as tl
from harness import implementation

NEEDS = ("cuda", "triton")

@triton.jit
def product(x, w, y, more, N: tl.constexpr):
    row, column = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    found = tl.dot(tl.load(x + row * N + column), tl.load(w + row * N + column), input_precision="ieee")
    tl.store(y + row * N + column, found + more)

def launching(weights, shape, more):
    def call(x):
        y = torch.empty_like(x)
        product[(1,)](x, weights, y, more, N=shape.size)
        return y
    return call

@implementation("toy.product", technique="plain", kind="optimized", needs=NEEDS)
def right(weights, shape):
    assert torch.cuda.get_device_properties(0).multi_processor_count == 132
    return launching(weights, shape, 0.0)

@implementation("toy.product", technique="plain", kind="optimized", needs=NEEDS)
def wrong(weights, shape):
    return launching(weights, shape, 1.0)

@implementation("toy.product", technique="plain", kind="optimized", needs=NEEDS)
def crashing(weights, shape):
    os._exit(3)

@implementation("toy.product", technique="plain", kind="optimized", needs=NEEDS, supports=lambda shape: "too large")
def elsewhere(weights, shape):
    raise AssertionError("not asked")
"""
CASES = """
from impls.toy.contract import Square
from harness import Workload

def kernels():
    return [Workload("toy.product", "square", "n16", Square(16), tiers=())]
"""


def test_what_the_interpreter_shows(checkout, tmp_path):
    (checkout.folder / "impls/toy/kernels.py").write_text(KERNELS)
    (checkout.folder / "benches/gate_cases.py").write_text(CASES)
    found = judge(GateOptions(root=str(checkout.folder), timeout=20.0), tmp_path / "log")
    told = {case.contender: (case.kind, case.code, case.reason) for case in found}
    assert set(told) == {"plain/right", "plain/wrong", "plain/crashing"}
    assert told["plain/right"] == ("same", 0, "right in Triton's interpreter")
    assert told["plain/wrong"][:2] == ("incorrect", 5) and "output is off by" in told["plain/wrong"][2]
    assert told["plain/crashing"][:2] == ("incorrect", 5) and "exit status 3" in told["plain/crashing"][2]


def test_a_head_that_does_not_load_stops_it(checkout, tmp_path):
    (checkout.folder / "impls/toy/kernels.py").write_text("raise RuntimeError('half done')")
    with pytest.raises(Stopped, match="the working tree does not load: RuntimeError: half done") as stopped:
        judge(GateOptions(root=str(checkout.folder)), tmp_path / "log")
    assert stopped.value.code == 4
