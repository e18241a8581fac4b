"""What each of several on-off choices does to a figure, from all their combinations: no order of the steps decides.

With figures of all 2^n combinations the main effect of a choice is its effect averaged over every setting of the
others; an interaction says how much the effect of one depends on another. Leaving one out of all is what removing it
costs at the top of the ladder, taking one step after another what adding it buys on the way up. Figures that are times,
bytes or rates are compared as ratios (`ratio=True`: means of logarithms), others as differences. Wins over a ladder by
not depending on its order. Loses where a combination is missing: nothing is told then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

Settings = tuple[bool, ...]


def main_effects(values: Mapping[Settings, float], ratio: bool) -> list[float]:
    """By choice: mean over the others of with over without it (a ratio), or with less without (a difference)."""
    y = _scaled(values, ratio)
    return [_back(_mean(_effect(y, settings, at) for settings in y), ratio) for at in range(_count(y))]


def interactions(values: Mapping[Settings, float], ratio: bool) -> dict[tuple[int, int], float]:
    """By pair: the effect of the first with the second on, over (less) its effect with the second off."""
    y = _scaled(values, ratio)
    found = {}
    for a, b in itertools.combinations(range(_count(y)), 2):
        found[a, b] = _back(_mean(_effect(y, _set(s, b, True), a) - _effect(y, _set(s, b, False), a) for s in y), ratio)
    return found


def left_out(values: Mapping[Settings, float], ratio: bool) -> list[float]:
    """By choice: everything over (less) everything without it."""
    y = _scaled(values, ratio)
    return [_back(_effect(y, (True,) * _count(y), at), ratio) for at in range(_count(y))]


def steps_up(values: Mapping[Settings, float], ratio: bool) -> list[float]:
    """By choice, in order: what adding it does to those before it."""
    y, count = _scaled(values, ratio), _count(values)
    rungs = [tuple(at < rung for at in range(count)) for rung in range(count + 1)]
    return [_back(y[upper] - y[lower], ratio) for lower, upper in itertools.pairwise(rungs)]


def _scaled(values: Mapping[Settings, float], ratio: bool) -> dict[Settings, float]:
    """Raises ValueError for a combination that is missing, and for a ratio of what is not positive."""
    missing = set(itertools.product((False, True), repeat=_count(values))) - set(values)
    if missing:
        raise ValueError(f"{len(missing)} of {len(missing) + len(values)} combinations have no figure")
    if ratio and min(values.values()) <= 0:
        raise ValueError("ratios need figures above zero")
    return {settings: math.log(value) if ratio else value for settings, value in values.items()}


def _count(values: Mapping[Settings, float]) -> int:
    return len(next(iter(values), ()))


def _effect(y: Mapping[Settings, float], settings: Settings, at: int) -> float:
    return y[_set(settings, at, True)] - y[_set(settings, at, False)]


def _set(settings: Settings, at: int, on: bool) -> Settings:
    return (*settings[:at], on, *settings[at + 1 :])


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _back(value: float, ratio: bool) -> float:
    return math.exp(value) if ratio else value
