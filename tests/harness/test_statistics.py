"""Intervals must hold what they promise on the distributions that timers produce."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics import median_estimate, outliers, ratio_estimate, unpaired_ratio_estimate


def skewed(rng, n, scale=100.0):
    """A floor with a long tail, as timers give."""
    return scale * (1 + rng.gamma(1.5, 0.02, n))


@pytest.mark.parametrize("n", [20, 60, 200])
def test_the_interval_holds_the_true_median_about_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    true = np.median(skewed(rng, 200_000))
    held = sum(e.low <= true <= e.high for e in (median_estimate(skewed(rng, n)) for _ in range(300)))
    assert held / 300 > 0.88


def test_pairing_cancels_drift_that_would_hide_a_difference():
    rng = np.random.default_rng(1)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, 200)))
    slow, fast = 1.05 * drift * skewed(rng, 200), drift * skewed(rng, 200)
    paired, apart = ratio_estimate(slow, fast), unpaired_ratio_estimate(slow, fast)
    assert paired.low > 1.03 and paired.high < 1.07
    assert apart.low < 1.0 < apart.high


def test_equal_arms_are_not_told_apart():
    rng = np.random.default_rng(2)
    flagged = 0
    for _ in range(200):
        drift = np.exp(np.cumsum(rng.normal(0, 0.03, 80)))
        estimate = ratio_estimate(drift * skewed(rng, 80), drift * skewed(rng, 80))
        flagged += estimate.low > 1.02 or estimate.high < 0.98
    assert flagged <= 2


def test_blocks_widen_the_interval_of_correlated_samples():
    rng = np.random.default_rng(3)
    steps = np.repeat(rng.normal(100, 10, 25), 8)
    shuffled = rng.permutation(steps)
    assert median_estimate(steps).half_width > 1.3 * median_estimate(shuffled).half_width


def test_few_samples_have_no_interval():
    estimate = median_estimate(np.array([3.0, 1.0, 2.0]))
    assert estimate.value == 2.0 and estimate.half_width == np.inf


@pytest.mark.parametrize("bad", [[], [1.0, np.nan], [np.inf]])
def test_a_median_never_comes_from_nothing(bad):
    with pytest.raises(ValueError, match="finite"):
        median_estimate(np.array(bad))


def test_unequal_rounds_are_refused():
    with pytest.raises(ValueError, match="differ in number"):
        ratio_estimate(np.ones(3), np.ones(4))


def test_outliers_are_counted_not_dropped():
    values = np.concatenate([np.linspace(99, 101, 100), [500.0, 600.0]])
    assert outliers(values) == 2
    assert median_estimate(values).value == pytest.approx(100, abs=0.1)
