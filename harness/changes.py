"""Where a series of latencies changed its level: penalised least squares on logarithms, all series at once.

The exact minimum of squared deviations from piecewise constant levels plus a penalty a change, by dynamic programming
(optimal partitioning, Jackson et al. 2005; PELT, Killick, Fearnhead and Eckley 2012, finds the same and prunes, which
saves nothing where changes are few). The penalty is twice the logarithm of all points looked at, in units of the
long-run variance: the universal threshold (Donoho and Johnstone 1994) for everything on the page together. Scale and
autocorrelation come from differences of neighbours by median absolute deviation, so that changes do not inflate them.
Bursts shorter than the least segment are clipped to their neighbourhood first (Hampel 1974), so one bad run is no
change. Wins over a threshold on neighbours, which sees neither drift nor slow steps; loses the newest one or two runs,
of which nobody can tell whether they stay, and calls a steady drift a staircase.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

LEAST = 3  # runs a level must hold
FEW = 8  # runs below which nothing is called a change
SMALLEST = 0.02  # changes of level up to so much are none
FLOOR = 1e-3  # relative: less noise than this is rounding
CLIP = 3.0
CAUTION = 8.0  # an estimate of noise from few runs is uncertain: it is raised by 1 + CAUTION / runs
ROWS = 64
Array = NDArray[np.float64]


def change_points(logs: Array, smallest: float = SMALLEST) -> list[list[int]]:
    """Positions at which each series begins a new level.

    `logs` [series, runs] are logarithms of latencies in order of time, NaN where a series was not measured; positions
    are columns. A change of up to `smallest`, relative, is none.
    """
    counts = np.isfinite(logs).sum(axis=1)
    found: list[list[int]] = [[] for _ in range(len(logs))]
    long = np.flatnonzero(counts >= FEW)
    if long.size == 0:
        return found
    penalty = 2 * math.log(int(counts[long].sum()))
    for start in range(0, long.size, ROWS):
        some = long[start : start + ROWS]
        packed, columns = _packed(logs[some], counts[some])
        clipped, variances = _steadied(packed, counts[some])
        levels = _partition(clipped, counts[some], penalty * variances)
        for row, series in enumerate(some):
            places = _kept(packed[row, : counts[series]], levels[row], math.log1p(smallest))
            found[series] = [int(columns[row, place]) for place in places]
    return found


def _packed(logs: Array, counts: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Measured values [series, runs] moved to the left and centred, NaN behind; and the columns they came from."""
    order = np.argsort(~np.isfinite(logs), axis=1, kind="stable")[:, : int(counts.max())]
    packed = np.take_along_axis(logs, order, axis=1)
    packed[np.arange(packed.shape[1])[None, :] >= counts[:, None]] = np.nan
    centred: Array = packed - np.nanmedian(packed, axis=1, keepdims=True)
    return centred, order


def _steadied(packed: Array, counts: NDArray[np.int64]) -> tuple[Array, Array]:
    """Values without short bursts [series, runs], 0 behind the last, and long-run variances [series]."""
    near = np.stack([_neighbourhood(row[:count], packed.shape[1]) for row, count in zip(packed, counts, strict=True)])
    scale = np.sqrt(np.maximum(_difference_variance(packed, 1) / 2, FLOOR**2))[:, None]
    clipped = np.clip(packed, near - CLIP * scale, near + CLIP * scale)
    one, two = _difference_variance(clipped, 1), _difference_variance(clipped, 2)
    known = one > 0
    rho = float(np.clip(np.median(two[known] / one[known]) - 1, 0, 0.8)) if known.any() else 0.0
    variance = np.maximum(one / 2 / (1 - rho), FLOOR**2) * (1 + rho) / (1 - rho) * (1 + CAUTION / counts) ** 2
    return np.nan_to_num(clipped), variance


def _neighbourhood(values: Array, width: int) -> Array:
    """Running median [width] over twice `LEAST` neighbours, mirrored at the ends, NaN behind the last."""
    padded = np.pad(values, LEAST, mode="reflect")
    found = np.full(width, np.nan)
    found[: values.size] = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * LEAST + 1), axis=1)
    return found


def _difference_variance(values: Array, lag: int) -> Array:
    """Variance [series] of differences over `lag` runs, from their median absolute deviation."""
    steps = values[:, lag:] - values[:, :-lag]
    middle = np.nanmedian(steps, axis=1, keepdims=True)
    found: Array = (1.4826 * np.nanmedian(np.abs(steps - middle), axis=1)) ** 2
    return found


def _partition(values: Array, counts: NDArray[np.int64], penalties: Array) -> list[list[int]]:
    """Where levels begin in each row of `values` [series, runs], the first aside, at the least penalised cost.

    The cost of runs s..t around their mean is the sum of squares less (S_t - S_s)^2 / (t - s), S being running sums;
    sums of squares telescope and are left out.
    """
    rows, width = values.shape
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(values, axis=1)], axis=1)
    best = np.full((rows, width + 1), np.inf)
    best[:, 0] = -penalties
    last = np.zeros((rows, width + 1), dtype=np.int64)
    inverse, room = 1 / np.arange(1, width + 1), np.empty((rows, width + 1))
    for end in range(LEAST, width + 1):
        starts = end - LEAST + 1
        gain = np.subtract(sums[:, end, None], sums[:, :starts], out=room[:, :starts])
        gain *= gain
        gain *= inverse[end - 1 :: -1][:starts]
        cost = np.subtract(best[:, :starts], gain, out=gain)
        place = cost.argmin(axis=1)
        best[:, end] = cost[np.arange(rows), place] + penalties
        last[:, end] = place
    found = []
    for row in range(rows):
        end, places = int(counts[row]), []
        while (end := int(last[row, end])) > 0:
            places.append(end)
        found.append(places[::-1])
    return found


def _kept(values: Array, places: list[int], smallest: float) -> list[int]:
    """Changes of more than `smallest` between medians, the least of the others taken out first."""
    kept = list(places)
    while kept:
        steps = np.abs(np.diff(levels(values, kept)))
        least = int(steps.argmin())
        if steps[least] > smallest:
            return kept
        del kept[least]
    return kept


def levels(values: Array, places: list[int]) -> Array:
    """Medians [levels] between changes at `places`."""
    ends = [0, *places, len(values)]
    return np.asarray([np.nanmedian(values[a:b]) for a, b in itertools.pairwise(ends)])
