"""Lanes of a measurement made thinner, for a page to draw and for the repository to keep.

A stretch of time is stood for by the reading that lies furthest from the lane's median, so that a dip of a clock that
lasted one reading is still there. Loses the shape within a stretch, and means: those are in a record's telemetry.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Lane = list[float | None]


def thinned(lanes: Mapping[str, Any], most: int) -> dict[str, Any]:
    """What `Sampler.lanes` gives, with at most `most` readings a lane; `seconds` are those of a stretch's first."""
    gpus = lanes.get("gpus")
    return {
        "gpus": [_thinned(one, most) for one in gpus] if isinstance(gpus, list) else [],
        "host": _thinned(lanes.get("host"), most),
    }


def _thinned(device: Any, most: int) -> dict[str, Lane]:
    """Of one device; nothing of what has no moments, and no lane of another length than they."""
    found = device if isinstance(device, Mapping) else {}
    seconds = found.get("seconds")
    if not isinstance(seconds, list) or not seconds:
        return {}
    step = -(-len(seconds) // most)
    starts = range(0, len(seconds), step)
    kept: dict[str, Lane] = {"seconds": [seconds[at] for at in starts]}
    for name, lane in found.items():
        if name != "seconds" and isinstance(lane, list) and len(lane) == len(seconds):
            values = [value if isinstance(value, (int, float)) else None for value in lane]
            known = [value for value in values if value is not None]
            if known:
                middle = statistics.median(known)
                kept[name] = [_furthest(values[at : at + step], middle) for at in starts]
    return kept


def _furthest(values: Sequence[float | None], middle: float) -> float | None:
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: abs(value - middle)) if known else None
