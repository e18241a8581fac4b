# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""FP8 kernels of ours in Triton's interpreter, as the harness judges them, and what bad input becomes.

They run in a process of their own, started by test_triton_linear.py; anywhere else the file is skipped.
"""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in its own process, with TRITON_INTERPRET=1", allow_module_level=True)

from harness.registry import load

load("impls")

from harness.gate.arithmetic import mend
from impls.linear import triton_gemm, triton_quantize
from impls.linear.quantize import Quantized, quantize
from impls.linear.shape import FORMS, GroupedShape, LinearShape, QuantizeShape

mend()
ODD, WHOLE = LinearShape(70, 40, 200, "float32"), LinearShape(128, 64, 256, power_of_two=True)
ONE = LinearShape(1, 33, 130, "float32", values="outliers")


@pytest.mark.parametrize("shape", [ODD, WHOLE, ONE], ids=["odd", "whole", "one-row"])
@pytest.mark.parametrize("operation", ["fprop", "dgrad", "wgrad"])
def test_product_is_judged_correct(operation, shape, judge):
    judge(f"linear.{operation}", "fp8/triton", shape)


@pytest.mark.parametrize("shape", [ODD, ONE], ids=["odd", "one-row"])
def test_layer_in_training_is_judged_correct(shape, judge):
    judge("linear.layer_train", "fp8/triton", shape)


@pytest.mark.parametrize("operation", ["grouped", "grouped_dgrad", "grouped_wgrad"])
def test_grouped_contender_is_judged_correct(operation, judge):
    judge(f"linear.{operation}", "fp8/triton", GroupedShape(3, 384, 40, 136, 1.0, "float32"))


@pytest.mark.parametrize("form", FORMS)
def test_quantizer_is_judged_correct(form, judge):
    dtype = "float32" if form in ("tiles", "silu") else "bfloat16"
    judge("linear.quantize", "fp8/triton", QuantizeShape(34, 140, form, dtype, dtype == "float32"))


@pytest.mark.parametrize("block", [True, False])
def test_both_forms_of_one_reading_are_the_definition_s(block):
    x, grain = torch.randn(150, 300), "block" if block else "tile"
    made = triton_quantize.squares(x, False, block=block, straight=True, turned=True)
    for one, true in zip(made, (quantize(x, grain), quantize(x.T.contiguous(), grain)), strict=True):
        assert torch.equal(one.payload.view(torch.uint8), true.payload.view(torch.uint8))
        assert torch.equal(one.scale, true.scale)


@pytest.mark.parametrize("grain", ["block", "tile"])
def test_a_bad_value_is_nan_in_its_row_and_in_no_other(grain):
    x = torch.randn(40, 300)
    x[5, 200] = torch.inf
    w = quantize(torch.randn(48, 300), grain)
    made = triton_gemm.multiply(triton_quantize.tiles(x, False), w, torch.float32)
    assert bool(made[5].isnan().all()) and int(made.isnan().sum()) == 48


def test_nothing_is_written_for_no_rows_and_zeros_for_nothing_summed():
    none, some = torch.empty(0, 16), quantize(torch.randn(8, 16), "tile")
    empty = Quantized(none.to(torch.float8_e4m3fn), torch.empty(1, 0), "tile")
    assert triton_gemm.multiply(empty, some, torch.float32).shape == (0, 8)
    short = Quantized(some.payload[:, :0], some.scale[:0], "tile")
    assert not triton_gemm.multiply(short, short, torch.float32).any()


def test_weights_of_groups_without_rows_do_not_matter():
    ends_E = torch.tensor([0, 128, 128], dtype=torch.int32)
    x, w = quantize(torch.randn(128, 48), "tile"), quantize(torch.randn(40, 48), "block")
    alone = triton_gemm.multiply(x, w, torch.float32)
    bad = torch.full_like(w.scale, torch.nan)
    stacked = Quantized(torch.stack([w.payload] * 3), torch.stack([bad, w.scale, bad]), "block")
    assert torch.equal(triton_gemm.multiply_grouped(x, stacked, ends_E, torch.float32), alone)
