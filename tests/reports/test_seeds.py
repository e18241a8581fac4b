"""Trainings that differ in their seed: the mean's interval, curves by step, names that are one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from reports import seeds
from tests.reports import made_objective

# Two-sided 95 % points of Student's t by degrees of freedom, as printed in tables.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@pytest.mark.parametrize(("freedom", "factor"), STUDENT.items())
def test_the_interval_is_student_s(freedom: int, factor: float) -> None:
    found = [float(n) for n in range(freedom + 1)]
    mean, low, high = seeds.mean_interval(found)
    error = math.sqrt(sum((v - mean) ** 2 for v in found) / freedom / len(found))
    assert mean == freedom / 2 and high - mean == pytest.approx(factor * error)
    assert mean - low == pytest.approx(high - mean)


def test_one_value_has_no_bounds_and_many_have_those_of_ten() -> None:
    assert seeds.mean_interval([1.5]) == (1.5, -math.inf, math.inf)
    mean, _, high = seeds.mean_interval([0.0, 1.0] * 50)
    assert high - mean == pytest.approx(2.262 * math.sqrt(0.25 * 100 / 99) / 10)


def test_equal_values_have_an_interval_of_nothing() -> None:
    assert seeds.mean_interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0, None, "2"])
def test_a_curve_with_a_hole_is_none_at_all(bad: object) -> None:
    whole = made_objective.loss_record(0, "mtp")
    found = seeds.points(whole, "validation_bits")
    assert list(found) == [1.0, *(50.0 * n for n in range(1, 9))]
    holed = [*whole.series["validation_bits"][:-1], bad]
    series = {**whole.series, "validation_bits": holed}
    assert seeds.points(replace(whole, series=series), "validation_bits") == {}  # type: ignore[arg-type]
    assert seeds.points(whole, "no_such_series") == {}


@pytest.mark.parametrize(
    ("sizes", "name"),
    [("s120-seed7", "m/s120"), ("s120-seed12-fp32", "m/s120-fp32"), ("seed3", "m/"), ("s120-seeds", "m/s120-seeds")],
)
def test_names_without_the_seed(sizes: str, name: str) -> None:
    assert seeds.without_seed(replace(made_objective.loss_record(0, "ntp"), model="m", sizes=sizes)) == name
