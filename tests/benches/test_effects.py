"""Effects of choices, from figures whose effects are known."""

from __future__ import annotations

import itertools

import pytest

from benches.effects import interactions, left_out, main_effects, steps_up

SETTINGS = list(itertools.product((False, True), repeat=3))


def test_independent_factors_come_back_whatever_is_asked():
    """Each choice multiplies by its own factor: no interactions, and the order does not matter."""
    factors = (2.0, 0.5, 3.0)
    values = {}
    for settings in SETTINGS:
        values[settings] = 7.0
        for on, factor in zip(settings, factors, strict=True):
            values[settings] *= factor if on else 1
    for asked in (main_effects, left_out, steps_up):
        assert asked(values, ratio=True) == pytest.approx(factors)
    assert list(interactions(values, ratio=True).values()) == pytest.approx([1, 1, 1])


def test_what_two_choices_do_together_is_told_apart():
    """y = 1 + a + 10 b + 4 a b: half of the interaction is in each main effect, all of it in the last step."""
    values = {(a, b, c): 1.0 + a + 10 * b + 4 * a * b for a, b, c in SETTINGS}
    assert main_effects(values, ratio=False) == pytest.approx([3, 12, 0])
    assert interactions(values, ratio=False) == pytest.approx({(0, 1): 4, (0, 2): 0, (1, 2): 0})
    assert left_out(values, ratio=False) == pytest.approx([5, 14, 0])
    assert steps_up(values, ratio=False) == pytest.approx([1, 14, 0])


def test_missing_combinations_and_impossible_ratios_are_refused():
    values = dict.fromkeys(SETTINGS, 1.0)
    with pytest.raises(ValueError, match="ratios need figures above zero"):
        main_effects({**values, SETTINGS[0]: 0.0}, ratio=True)
    del values[SETTINGS[3]]
    with pytest.raises(ValueError, match="1 of 8 combinations have no figure"):
        main_effects(values, ratio=False)
