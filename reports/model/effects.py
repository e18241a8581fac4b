"""What each of several on-off choices does to a figure, from the combinations that have one.

The main effect of a choice is the mean of its effect over every setting of the others in which both sides have a
figure; an interaction says how much the effect of one depends on another. Both carry how far apart the settings are,
and how many there were: a combination that could not run costs its settings, not the whole analysis. Figures that are
times, bytes or rates are compared as ratios (means of logarithms), others as differences. Over complete figures the
values are those that `make ladder` prints; a test holds the two together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Settings = tuple[bool, ...]
Values = Mapping[Settings, float]


@dataclass(frozen=True)
class Effect:
    """A mean over settings of the other choices, with the least and the greatest of them, one by one in `each`."""

    each: tuple[float, ...]
    ratio: bool
    most: int

    @property
    def value(self) -> float:
        """The mean, of logarithms for a ratio."""
        return _back(math.fsum(self.each) / len(self.each), self.ratio)

    @property
    def low(self) -> float:
        """The least of all settings."""
        return _back(min(self.each), self.ratio)

    @property
    def high(self) -> float:
        """The greatest of all settings."""
        return _back(max(self.each), self.ratio)

    @property
    def size(self) -> float:
        """How far from no effect, either way."""
        return abs(math.fsum(self.each) / len(self.each))

    @property
    def agreeing(self) -> int:
        """In how many settings the effect has the mean's direction."""
        mean = math.fsum(self.each)
        return sum(value * mean > 0 for value in self.each)

    @property
    def partial(self) -> bool:
        """Whether a setting is missing."""
        return len(self.each) < self.most


def main(values: Values, ratio: bool, at: int) -> Effect | None:
    """With the choice over (less) without it; None where no setting has both."""
    y = _scaled(values, ratio)
    others = _others(values, at)
    found = [e for settings in others if (e := _effect(y, settings, at)) is not None]
    return Effect(tuple(found), ratio, len(others)) if found else None


def interaction(values: Values, ratio: bool, a: int, b: int) -> Effect | None:
    """The effect of one choice with the other on, over (less) its effect with the other off."""
    y = _scaled(values, ratio)
    others = _others(values, a, b)
    found = []
    for settings in others:
        on, off = _effect(y, _set(settings, b, True), a), _effect(y, _set(settings, b, False), a)
        if on is not None and off is not None:
            found.append(on - off)
    return Effect(tuple(found), ratio, len(others)) if found else None


def left_out(values: Values, ratio: bool, at: int) -> float | None:
    """Everything over (less) everything without the choice."""
    effect = _effect(_scaled(values, ratio), (True,) * _count(values), at)
    return None if effect is None else _back(effect, ratio)


def rungs(count: int) -> list[Settings]:
    """None of the choices, the first, the first two, ... all."""
    return [tuple(at < rung for at in range(count)) for rung in range(count + 1)]


def steps_up(values: Values, ratio: bool) -> list[float | None]:
    """By choice, in order: what adding it does to those before it."""
    y = _scaled(values, ratio)
    pairs = itertools.pairwise(rungs(_count(values)))
    return [_back(y[b] - y[a], ratio) if a in y and b in y else None for a, b in pairs]


def _scaled(values: Values, ratio: bool) -> dict[Settings, float]:
    if not ratio:
        return dict(values)
    return {settings: math.log(value) for settings, value in values.items() if value > 0}


def _count(values: Iterable[Settings]) -> int:
    return len(next(iter(values), ()))


def _others(values: Values, *fixed: int) -> list[Settings]:
    """Every setting of the other choices, with the fixed ones off."""
    sides = [(False,) if at in fixed else (False, True) for at in range(_count(values))]
    return list(itertools.product(*sides))


def _effect(y: Mapping[Settings, float], settings: Settings, at: int) -> float | None:
    on, off = y.get(_set(settings, at, True)), y.get(_set(settings, at, False))
    return None if on is None or off is None else on - off


def _set(settings: Settings, at: int, on: bool) -> Settings:
    return (*settings[:at], on, *settings[at + 1 :])


def _back(value: float, ratio: bool) -> float:
    return math.exp(value) if ratio else value
