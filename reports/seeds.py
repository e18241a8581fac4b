"""What pages share about trainings that differ in their seed alone: curves, names, and a mean with its interval.

Student's t supposes that differences between seeds are about normal. It widens where they are few: of two seeds it is
13 times the standard error, and no interval comes of one.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

from harness.record import Record

from .view import plain

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # two-sided, by degrees of freedom from 1
Points = dict[float, float]


def mean_interval(found: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95 % interval by Student's t; bounds are infinite for one value.

    Beyond ten values the interval is that of ten, which is a little too wide.
    """
    mean = statistics.mean(found)
    if len(found) < 2:
        return mean, -math.inf, math.inf
    half = T95[min(len(found) - 2, len(T95) - 1)] * statistics.stdev(found) / math.sqrt(len(found))
    return mean, mean - half, mean + half


def points(record: Record, series: str) -> Points:
    """Value by step; empty unless every step has a finite positive value."""
    steps, found = record.series.get("step") or (), record.series.get(series) or ()
    pairs = [(plain(s), plain(v)) for s, v in zip(steps, found, strict=False)]
    kept = {s: v for s, v in pairs if s is not None and v is not None and math.isfinite(v) and v > 0}
    return kept if len(kept) == len(steps) == len(found) else {}


def without_seed(record: Record) -> str:
    """Model and sizes: `byte-d128/s120-fp32`; equal for trainings that differ in it alone."""
    return f"{record.model}/{re.sub(r'-?seed[0-9]+', '', record.sizes)}"
