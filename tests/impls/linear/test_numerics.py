"""The numerics: how promotion matters, what outliers do to coarse scales, and that figures are what they say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import verify
from impls.linear import numerics, tensor_core
from impls.linear.inputs import draw_wgrad
from impls.linear.quantize import dequantize, quantize
from impls.linear.shape import VALUES, LinearShape
from impls.linear.values import draw

TECHNIQUES = ("fp8", "fp8-row", "fp8-tensor")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 300), st.booleans(), st.integers(0, 2**31))
def test_with_enough_bits_the_accumulator_is_exact(rows, outs, length, promote, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(-8, 9, (n, length), generator=generator).double() for n in (rows, outs))
    assert torch.equal(tensor_core.product(a, b, promote, bits=30), a @ b.T)


def test_a_step_cuts_off_what_is_below_the_largest():
    """2^13 and 1 stand together in 13 bits after the leading one, 2^14 and 1 do not."""
    empty = torch.zeros(1, 1, dtype=torch.float64)
    one = torch.ones(1, 2, dtype=torch.float64)
    assert tensor_core.step(empty, torch.tensor([[2.0**13, 1.0]]).double(), one).item() == 2**13 + 1
    assert tensor_core.step(empty, torch.tensor([[2.0**14, 1.0]]).double(), one).item() == 2**14
    full = torch.full((1, 1), -(2.0**14), dtype=torch.float64)
    assert tensor_core.step(full, torch.tensor([[1.0, -1.0]]).double(), one).item() == -(2**14)
    low = torch.full((1, 1), 1 + 2.0**-13, dtype=torch.float64)
    assert tensor_core.step(low, torch.tensor([[2.0, -2.0]]).double(), one).item() == 1
    assert tensor_core.step(full, torch.tensor([[3.0, 4.0]]).double(), one).item() == -(2**14) + 2 + 4


@pytest.mark.parametrize(("bits", "lost", "promoted"), [(13, 0.077, 0.0021), (14, 0.040, 0.0011), (15, 0.020, 0.0005)])
def test_positive_sums_lose_what_is_published_and_promotion_saves_it(bits, lost, promoted):
    """arXiv 2412.19437 §3.3.2: "nearly 2 %" at 4096."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(32, 4096, generator=generator) for _ in range(2))
    exact = a.double() @ b.double().T
    assert numerics.relative(tensor_core.product(a, b, False, bits), exact) == pytest.approx(lost, rel=0.1)
    assert numerics.relative(tensor_core.product(a, b, True, bits), exact) == pytest.approx(promoted, rel=0.15)


def test_promotion_keeps_the_error_of_zero_mean_sums_from_growing():
    found = numerics.curves("fp8", "gaussian", 4096, False)
    assert found["k"] == [128, 256, 512, 1024, 2048, 4096]
    assert found["accumulation_error"][0] == pytest.approx(found["promoted_error"][0], rel=1e-6)
    assert found["accumulation_error"][-1] > 4 * found["accumulation_error"][0]
    assert max(found["promoted_error"]) < 1.5 * min(found["promoted_error"])


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("technique", ["bf16", *TECHNIQUES])
def test_curves_end_at_the_figures_and_are_finite(technique, values):
    found = numerics.curves(technique, values, 256, False)
    assert all(len(series) == 2 and all(0 <= value < 1e4 for value in series) for series in found.values())
    whole = numerics.quantization_error(technique, "fprop", values, 256, False)
    assert found["quantization_error"][-1] == pytest.approx(whole, rel=1e-9)
    assert ("promoted_error" in found) == (technique != "bf16")


def test_gaussian_numbers_lose_what_e4m3_loses_at_any_grain():
    for technique in TECHNIQUES:
        assert numerics.quantization_error(technique, "fprop", "gaussian", 2048, False) == pytest.approx(0.037, rel=0.1)
        assert numerics.activations(technique, "gaussian", 2048, False)[2] == pytest.approx(0.0217, rel=0.05)


def test_outliers_are_a_tile_s_own_business():
    fine, row, tensor = (numerics.activations(technique, "outliers", 4096, False) for technique in TECHNIQUES)
    assert fine[0] < 0.02 < row[0] < tensor[0]
    assert fine[2] < 0.03 < 4 * fine[2] < row[2] < tensor[2]


def test_nothing_saturates_and_small_gradients_vanish_below_the_floor():
    for technique in TECHNIQUES:
        for values in VALUES:
            assert numerics.activations(technique, values, 1024, False)[1] == 0
    assert numerics.activations("fp8", "gradients", 1024, False)[0] > 0.05


def test_saturation_is_counted_where_a_scale_is_too_small(draw_generator):
    x_RL = draw("gaussian", 4, 256, draw_generator)
    made = quantize(x_RL / 4, "tile")
    assert numerics.lost(x_RL, made)[1] > 0.1
    assert numerics.lost(x_RL, quantize(x_RL, "tile")) == (0.0, 0.0)


def test_gradients_of_the_weight_lose_most():
    """Both of its operands are activations, one of them rounded twice."""
    errors = [numerics.quantization_error("fp8", which, "gaussian", 1024, False) for which in numerics.PRODUCTS]
    assert errors[2] > 1.1 * max(errors[:2])
    assert all(0.03 < error < 0.06 for error in errors)


def test_the_accumulator_s_error_is_above_what_an_fp32_result_is_held_to():
    """Why a GPU's FP8 wgrad needs a limit of its own: FP32 rounding allows 2e-6, the best FP8 hardware gives 4e-4."""
    shape = LinearShape(1024, 48, 48)
    given = draw_wgrad(shape, "fp8", torch.Generator().manual_seed(0))
    dy, x = (dequantize(one.wide(torch.float64)) for one in (given.dy, given.x))
    promoted, whole = (verify.distance(tensor_core.product(dy, x, p), dy @ x.T) for p in (True, False))
    assert verify.least_limit(torch.float32).error < promoted.error < 2.0**-10 < whole.error
    assert promoted.worst < 2.0**-8
