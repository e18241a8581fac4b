# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""Products divided along the summed axis, in Triton's interpreter.

They run in a process of their own, started by test_triton_split.py; anywhere else the file is skipped.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in its own process, with TRITON_INTERPRET=1", allow_module_level=True)

from harness.registry import load

load("impls")

from harness.gate.arithmetic import mend
from impls.linear import triton_gemm
from impls.linear.quantize import dequantize, quantize
from impls.linear.triton_split import SLICES, Plan, launch

mend()
EVERY = [one for slices in SLICES.values() for one in slices]


@pytest.mark.parametrize("one", EVERY, ids=lambda one: f"{one.rows}x{one.columns}")
@pytest.mark.parametrize(("rows", "outs", "ins"), [(1, 33, 130), (70, 200, 400), (130, 16, 1040), (17, 128, 16)])
def test_every_division_is_the_exact_product(one, rows, outs, ins):
    generator = torch.Generator().manual_seed(rows)
    a = quantize(torch.randn(rows, ins, generator=generator), "tile")
    b = quantize(torch.randn(outs, ins, generator=generator), "block")
    a, b = (replace(x, payload=triton_gemm.aligned_operand(x.payload)) for x in (a, b))
    truth = dequantize(a.wide(torch.float64)) @ dequantize(b.wide(torch.float64)).T
    steps = -(-ins // 128)
    for parts in {1, min(2, steps), min(3, steps), steps}:
        made = torch.full((rows, outs), torch.nan)
        launch(a, b, made, Plan(one, parts))
        assert float((made - truth).norm() / truth.norm()) < 3e-6, parts


@pytest.mark.parametrize("rows", [1, 40])
def test_a_bad_value_is_nan_in_its_row_and_in_no_other(rows):
    x = torch.randn(rows, 700)
    x[rows // 2, 200] = torch.inf
    made = triton_gemm.multiply(quantize(x, "tile"), quantize(torch.randn(48, 700), "block"), torch.float32)
    assert bool(made[rows // 2].isnan().all()) and int(made.isnan().sum()) == 48
