"""A line of latencies as a small drawing in a table's cell: no axes, the levels behind it, a dot where they change."""

from __future__ import annotations

import numpy as np

from harness.timeline import Machine

from .markup import Html, tag

WIDTH, HEIGHT, BINS = 132, 26, 44


def spark(machine: Machine, line: int) -> Html:
    """Medians of neighbours at `BINS` places from the line's first run to its last, on a logarithmic scale."""
    runs = machine.measured(line)
    logs = np.log(machine.latency[line, runs])
    starts = np.unique(np.linspace(0, runs.size - 1, min(BINS, runs.size)).round().astype(int))
    near = np.minimum(starts[:, None] + np.arange(max(1, runs.size // BINS)), runs.size - 1)
    drawn = np.median(logs[near], axis=1)
    steps = np.log(machine.levels(line))
    low, high = min(drawn.min(), steps.min()), max(drawn.max(), steps.max())
    middle, reach = (low + high) / 2, max((high - low) / 2, 0.02)
    x = [round(WIDTH * int(start) / max(runs.size - 1, 1)) for start in starts]
    y = [_height(float(value), middle, reach) for value in drawn]
    points = " ".join(f"{a},{b}" for a, b in zip(x, y, strict=True))
    dots = []
    for place, level in zip(machine.points[line], steps[1:], strict=True):
        at = round(WIDTH * float(np.searchsorted(runs, place)) / max(runs.size - 1, 1))
        dots.append(tag("circle", cx=at, cy=_height(float(level), middle, reach), r=2))
    return tag(
        "svg",
        tag("polyline", points=points),
        dots,
        class_="spark",
        width=WIDTH,
        height=HEIGHT,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        aria_hidden="true",
    )


def _height(value: float, middle: float, reach: float) -> int:
    return round(HEIGHT / 2 - (value - middle) / reach * (HEIGHT / 2 - 3))
