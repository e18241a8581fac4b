"""Medians and ratios with intervals that survive noise: distribution-free, and honest about correlated samples.

Times on a shared machine are skewed, drift, and come in modes, so nothing here assumes a normal distribution. Rounds
next to each other resemble each other, so the bootstrap draws blocks of consecutive rounds, not single ones
(moving-block bootstrap, Kuensch 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 400
RESAMPLED_MEDIANS, NESTED, MIN_NESTED = 400, 20_000, 20
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A median with the interval that holds it at `CONFIDENCE`; `low` and `high` are infinite-width until known."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval over the value: 0.01 is plus or minus one per cent. Infinite while unknown."""
        return (self.high - self.low) / (2 * self.value) if self.value > 0 else math.inf


def median_estimate(values: Array, seed: int = 0) -> Estimate:
    """Median of `values` [rounds], in order of measurement, by a circular moving-block bootstrap.

    Raises ValueError on an empty or non-finite array: a figure never comes from nothing.
    """
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a median needs finite values, got {values.size} of them")
    n = values.size
    value = float(np.median(values))
    if n < 5:
        return Estimate(value, -math.inf, math.inf)
    block = max(1, round(n ** (1 / 3)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n, size=(RESAMPLES, math.ceil(n / block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n] % n
    medians = np.median(values[index], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def ratio_estimate(values: Array, baseline: Array) -> Estimate:
    """Median of values[i] / baseline[i] over rounds in which both were measured; paired, so common drift cancels.

    Raises ValueError when the arrays differ in length.
    """
    if values.shape != baseline.shape:
        raise ValueError(f"paired rounds differ in number: {values.size} and {baseline.size}")
    logs = median_estimate(np.log(values) - np.log(baseline))
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))


def unpaired_ratio_estimate(values: Array, baseline: Array) -> Estimate:
    """Ratio of two medians that were measured apart; the intervals add up, so drift is not cancelled."""
    top, bottom = median_estimate(values), median_estimate(baseline)
    if bottom.low <= 0:
        return Estimate(top.value / bottom.value, 0.0, math.inf)
    return Estimate(top.value / bottom.value, top.low / bottom.high, top.high / bottom.low)


def outliers(values: Array) -> int:
    """How many values lie more than three interquartile ranges outside the quartiles. Flagged, never dropped."""
    q1, q3 = np.quantile(values, [0.25, 0.75])
    spread = 3 * (q3 - q1)
    return int(np.count_nonzero((values < q1 - spread) | (values > q3 + spread)))


def nested_estimate(groups: Sequence[Array], confidence: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """Mean over groups of each one's median, such as logarithms of ratios by process, [rounds] in order of measurement.

    The interval is that of a nested bootstrap with shrinkage (Davison and Hinkley 1997, section 3.8): groups are drawn
    with replacement, in each the median of blocks of consecutive rounds. Before that the groups' medians are drawn
    together by as much as noise within them explains, or that noise would count twice. Raises ValueError without
    groups and for a group that is empty or not finite.
    """
    if not groups or any(group.size == 0 or not np.isfinite(group).all() for group in groups):
        raise ValueError("an estimate needs groups of finite values")
    medians = np.array([np.median(group) for group in groups])
    value = float(medians.mean())
    if min(group.size for group in groups) < MIN_NESTED:
        return Estimate(value, -math.inf, math.inf)
    rng = np.random.default_rng(seed)
    noise = np.stack([_block_medians(group, rng) for group in groups]) - medians[:, None]
    drawn = rng.integers(0, len(groups), size=(NESTED, len(groups)))
    within = noise[drawn, rng.integers(0, RESAMPLED_MEDIANS, size=drawn.shape)]
    means = (_shrunk(medians, float(noise.var(axis=1).mean()))[drawn] + within).mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _shrunk(medians: Array, noise: float) -> Array:
    """Medians [groups] moved towards their mean until they vary as groups would without noise of that variance."""
    if medians.size < 2:
        return medians
    variance, mean = float(medians.var(ddof=1)), float(medians.mean())
    share = math.sqrt(max(0.0, variance - noise) / variance) if variance > 0 else 0.0
    found: Array = mean + share * (medians - mean)
    return found


def _block_medians(values: Array, rng: np.random.Generator) -> Array:
    """Medians [RESAMPLED_MEDIANS] of `values` drawn anew in circular blocks of 4 rounds and more."""
    n = values.size
    block = max(4, round(n ** (1 / 3)))
    starts = rng.integers(0, n, size=(RESAMPLED_MEDIANS, math.ceil(n / block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLED_MEDIANS, -1)[:, :n] % n
    medians: Array = np.median(values[index], axis=1)
    return medians
