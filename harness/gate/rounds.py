"""Rounds of the timing gate: each has a slot of every arm, wherever that runs; torch is not needed to ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable

ROLL_ROUNDS = 8
LEAST_ROUNDS, MOST_ROUNDS = 24, 4000


def timed(
    seconds: float, one_round: Callable[[], dict[str, float]], roll: Callable[[], object]
) -> dict[str, list[float]]:
    """Rounds for so many seconds: nanoseconds [rounds] by arm. `roll` goes on to other inputs."""
    rounds: list[dict[str, float]] = []
    begin = time.monotonic()
    while len(rounds) < MOST_ROUNDS:
        if len(rounds) % ROLL_ROUNDS == 0:
            roll()
        rounds.append(one_round())
        if time.monotonic() - begin > seconds and len(rounds) >= LEAST_ROUNDS:
            break
    return {arm: [times[arm] for times in rounds] for arm in rounds[0]}
