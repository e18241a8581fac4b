"""Quantizing by its definition: bounds, ties, scales, zeros, bad values, ragged sizes, an oracle of plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from impls.linear.margin import clear_of_ties, near_tie
from impls.linear.quantize import FLOOR, GRAINS, LARGEST, dequantize, largest_of, quantize, scale_of, spread
from impls.linear.quantize_views import by_blocks, by_tiles
from impls.linear.shape import FORMS, VALUES, QuantizeShape
from impls.linear.values import draw

SIZES = st.integers(1, 300)
E4M3_VALUES = sorted(
    {0.0}
    | {m * 2.0**-9 for m in range(1, 8)}
    | {(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)}
)


def drawn(values: str, rows: int, length: int, seed: int) -> torch.Tensor:
    return draw(values, rows, length, torch.Generator().manual_seed(seed))


def nearest(value: float) -> float:
    """The nearest E4M3 value, ties to the even one: by search, from the format's definition."""
    size = abs(value)
    place = min(range(len(E4M3_VALUES)), key=lambda i: (abs(E4M3_VALUES[i] - size), i % 2))
    return math.copysign(E4M3_VALUES[place], value)


def test_the_format_has_the_values_it_is_defined_to_have():
    every = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    assert every.tolist() == E4M3_VALUES and E4M3_VALUES[-1] == LARGEST


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.sampled_from(GRAINS), st.booleans(), st.sampled_from(VALUES), st.integers(0, 2**31))
def test_every_value_is_within_half_a_step_and_no_scale_is_larger_than_needed(
    rows, length, grain, power_of_two, values, seed
):
    x_RL = drawn(values, rows, length, seed)
    made = quantize(x_RL, grain, power_of_two)
    assert made.payload.shape == x_RL.shape and made.payload.is_contiguous() and made.scale.is_contiguous()
    scale_RL = spread(made.scale, grain, rows, length).expand(rows, length).double()
    step_RL = torch.maximum(2.0**-9 * scale_RL, x_RL.double().abs() * 2.0**-3)
    off_RL = (dequantize(made.wide(torch.float64)) - x_RL.double()).abs()
    assert bool((off_RL <= step_RL / 2 * (1 + 1e-6)).all())
    needed = largest_of(x_RL, grain).clamp_min(FLOOR).double() / LARGEST
    ratio = made.scale.double() / needed
    if power_of_two:
        assert bool((made.scale.frexp().mantissa == 0.5).all())
        assert float(ratio.min()) >= 1 - 1e-7 and float(ratio.max()) < 2
    else:
        assert float((ratio - 1).abs().max()) < 1e-7


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 140), st.sampled_from(VALUES), st.booleans(), st.integers(0, 2**31))
def test_payloads_are_what_a_search_through_the_format_finds(rows, length, values, power_of_two, seed):
    x_RL = drawn(values, rows, length, seed).bfloat16()
    made = quantize(x_RL, "tile", power_of_two)
    scale_RL = spread(made.scale, "tile", rows, length)
    for x, s, q in zip(x_RL.flatten(), scale_RL.flatten(), made.payload.float().flatten(), strict=True):
        assert float(q) == nearest(float(x.float() / s))


def test_ties_go_to_the_even_payload():
    x = torch.tensor([[448.0, 17.0, 19.0, -17.0, -19.0, 1.5 * 2**-9, 2**-10, 1.01 * 2**-10, -(2.0**-10)]])
    made = quantize(x, "tile")  # its scale is 1
    assert made.scale.tolist() == [[1.0]]
    assert made.payload.float().tolist() == [[448.0, 16.0, 20.0, -16.0, -20.0, 2**-8, 0.0, 2**-9, -0.0]]


@pytest.mark.parametrize("grain", GRAINS)
def test_scales_belong_to_their_own_grain(grain):
    """One large value changes its own grain and no other."""
    x_RL = torch.ones(300, 300)
    x_RL[140, 150] = 1e4
    changed_RL = spread(quantize(x_RL, grain).scale, grain, 300, 300).expand(300, 300) > 1
    rows, columns = {"tensor": (300, 300), "row": (1, 300), "tile": (1, 128), "block": (128, 128)}[grain]
    expected = torch.zeros_like(changed_RL)
    top, left = 140 // rows * rows, 150 // columns * columns
    expected[top : top + rows, left : left + columns] = True
    assert torch.equal(changed_RL, expected)


def test_layouts_are_the_contracts():
    x_RL = torch.randn(130, 300)
    shapes = {grain: tuple(quantize(x_RL, grain).scale.shape) for grain in GRAINS}
    assert shapes == {"tensor": (1, 1), "row": (130, 1), "tile": (3, 130), "block": (2, 3)}
    with pytest.raises(ValueError, match="grain is 'column'"):
        quantize(x_RL, "column")


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("grain", GRAINS)
def test_zeros_stay_zeros_with_the_scale_of_the_floor(grain, power_of_two):
    made = quantize(torch.zeros(130, 260), grain, power_of_two)
    assert not made.payload.float().any() and not dequantize(made).any()
    assert torch.equal(made.scale, scale_of(torch.tensor(FLOOR), power_of_two).expand_as(made.scale))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("grain", GRAINS)
def test_a_grain_with_a_bad_value_is_nan_and_no_other_is(grain, bad, power_of_two):
    x_RL = torch.ones(300, 300)
    x_RL[140, 150] = bad
    made = quantize(x_RL, grain, power_of_two)
    bad_RL = dequantize(made).isnan()
    assert torch.equal(bad_RL, ~spread(made.scale, grain, 300, 300).expand(300, 300).isfinite())
    size = {"tensor": 300 * 300, "row": 300, "tile": 128, "block": 128 * 128}[grain]
    assert bool(bad_RL[140, 150]) and int(bad_RL.sum()) == size


def test_powers_of_two_are_exact_at_the_edges():
    """A scale that is a power of two stays; one epsilon more is the next."""
    powers = torch.tensor([2.0**e for e in range(-20, 60)])
    assert torch.equal(scale_of(powers * LARGEST, True)[8:], powers[8:])
    above = torch.nextafter(powers * LARGEST, torch.tensor(math.inf))
    assert torch.equal(scale_of(above, True)[8:], 2 * powers[8:])
    assert scale_of(torch.tensor(0.0), True).item() == 2.0**-22  # the floor, 2.23e-7, from there up
    huge = torch.tensor(torch.finfo(torch.float32).max)
    assert scale_of(huge, True).item() == 2.0**120


def test_values_below_the_floor_vanish_as_they_are_counted():
    made = quantize(torch.tensor([[1e-4 * 2.0**-19, 1e-4 * 2.0**-17, 1e-12]]), "tile")
    assert [bool(value) for value in made.payload.float()[0]] == [False, True, False]


def test_subnormal_numbers_of_fp32_do_no_harm():
    made = quantize(torch.full((2, 130), 1e-40), "tile")
    assert not made.payload.float().any() and bool(made.scale.isfinite().all())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.sampled_from(VALUES), st.integers(0, 2**31))
def test_views_equal_the_definition_to_the_bit(rows, columns, power_of_two, values, seed):
    x_RL = drawn(values, rows * 128, columns * 128, seed)
    for made, grain in ((by_tiles(x_RL, power_of_two), "tile"), (by_blocks(x_RL, power_of_two), "block")):
        expected = quantize(x_RL, grain, power_of_two)
        assert torch.equal(made.payload.view(torch.uint8), expected.payload.view(torch.uint8))
        assert torch.equal(made.scale, expected.scale) and made.grain == grain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_drawn_inputs_are_clear_of_ties(form, dtype, draw_generator):
    shape = QuantizeShape(256, 256, form, dtype)
    x_MU = draw("gaussian", 256, shape.width, draw_generator).to(shape.torch_dtype)
    cleared = clear_of_ties(x_MU, "fp8", shape)
    assert cleared.dtype == shape.torch_dtype and cleared.is_contiguous()
    assert float((cleared != x_MU).float().mean()) < 0.02
    if shape.fused:
        return
    x_RL = cleared.T.contiguous() if form == "transposed" else cleared
    grain = "block" if form == "blocks" else "tile"
    assert not near_tie(x_RL, grain, False).any()
    scale = scale_of(largest_of(x_RL, grain), False)
    multiplied = (x_RL.float() * spread(1 / scale, grain, *x_RL.shape)).to(torch.float8_e4m3fn)
    assert torch.equal(multiplied.view(torch.uint8), quantize(x_RL, grain).payload.view(torch.uint8))


def test_what_is_drawn_without_care_is_not_clear(draw_generator):
    x_RL = draw("gaussian", 512, 512, draw_generator).bfloat16()
    assert int(near_tie(x_RL, "tile", False).sum()) > 20
