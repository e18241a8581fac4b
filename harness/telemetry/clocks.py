"""Which measurements of a run were taken at a lower clock than the others, and are worth taking again.

A GPU that others heat, or that was throttled a moment ago, runs below the clock of the rest of the run, and every time
is longer by as much. The measure is the run's own median, not the clock of a data sheet: under a power limit none
reaches that. What the measured code itself brings about, a power cap under heavy products, comes back each time; it is
marked as throttling and not repeated.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

SHARE = 0.05
LEAST = 3  # measurements before there is a median to speak of
OWN = "power cap"


class Clocks:
    """The median SM clocks of a run's measurements so far."""

    def __init__(self) -> None:
        self._medians: list[float] = []

    def low(self, window: Mapping[str, Any] | None) -> str | None:
        """In words, that a measurement's clock was more than `SHARE` below the run's median; None if it was not."""
        clock = _median(window)
        if clock is None or window is None or len(self._medians) < LEAST or OWN in window.get("throttle", ()):
            return None
        usual = statistics.median(self._medians)
        if clock >= (1 - SHARE) * usual:
            return None
        return f"the SM clock was {clock:,.0f} MHz, {1 - clock / usual:.0%} below the run's median of {usual:,.0f} MHz"

    def add(self, window: Mapping[str, Any] | None) -> None:
        """One more measurement."""
        clock = _median(window)
        if clock is not None:
            self._medians.append(clock)


def _median(window: Mapping[str, Any] | None) -> float | None:
    found = (window or {}).get("sm_clock_mhz")
    return None if found is None else float(found["median"])
