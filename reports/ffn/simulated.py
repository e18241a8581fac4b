"""What placements of experts promise for more ranks than there are: tokens counted, nothing timed.

Simulated ranks are open marks without lines, in a figure of their own: they look like nothing that was measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import digits, listed, some, whole

from ..figure import MAX_SERIES, Plot, length_axis, line, log_axis
from ..palette import HUES, MARKERS, Look
from ..table import row, table
from ..view import View, mapping, plain
from .cases import PARALLEL, capped, of, skew
from .ranks import SIMULATED, busiest, order


@dataclass(frozen=True)
class Promise:
    """A simulated placement: the busiest rank's tokens over the mean, by number of ranks."""

    implementation: str
    setting: str
    exponent: float
    points: tuple[tuple[float, float], ...]

    @property
    def title(self) -> str:
        """Placement and what it is for, without the word that the figure says already."""
        return ", ".join(filter(None, (self.implementation.removeprefix(SIMULATED), self.setting)))


def promises(view: View) -> list[Promise]:
    """Simulated placements, a line each: the most skewed routing first."""
    found: dict[tuple[str, str, float], dict[float, float]] = {}
    for case in of(view, (PARALLEL,)):
        for record in case.records:
            count, value = rank_count(record), busiest(record)
            if record.implementation.startswith(SIMULATED) and count and value is not None:
                rest = "-".join(word for word in record.sizes.split("-") if not re.fullmatch(r"r\d+", word))
                key = (record.implementation, f"{record.model} {rest}".strip(), skew(record))
                found.setdefault(key, {})[count] = value
    lines = [Promise(*key, tuple(sorted(points.items()))) for key, points in found.items()]
    return sorted(lines, key=lambda p: (-p.exponent, p.setting, order(p.implementation)))


def rank_count(record: Record) -> float | None:
    """Ranks of a case, from its shape or its sizes."""
    known = plain(mapping(record.shape).get("ranks"))
    written = re.search(r"(?:^|-)r(\d+)(?:-|$)", record.sizes)
    return known or (float(written[1]) if written and int(written[1]) else None)


def simulated_plot(view: View) -> Plot | None:
    """Busiest rank over mean against the number of ranks, open marks; None without simulations."""
    found = promises(view)
    if not found:
        return None
    shown = found[:MAX_SERIES]
    settings = list(dict.fromkeys(item.setting for item in shown))
    traces = []
    for item in shown:
        hue = HUES[order(item.implementation)[0] % len(HUES)]
        look = Look(hue, "dot", f"{MARKERS[settings.index(item.setting) % len(MARKERS)]}-open", 1.0)
        words = [
            f"simulated: {item.title}, {whole(n)} ranks: busiest {digits(v)} times the mean" for n, v in item.points
        ]
        title = item.title if len(settings) > 1 else item.implementation.removeprefix(SIMULATED)
        found_line = line(f"{title} (simulated)", [n for n, _ in item.points], [v for _, v in item.points], look, words)
        traces.append(found_line | {"mode": "markers", "marker": {**found_line["marker"], "size": 9}})
    counts = [n for item in shown for n, _ in item.points]
    values = [v for item in shown for _, v in item.points if v > 0]
    layout = {
        "xaxis": length_axis(apart(counts), "Ranks (simulated)"),
        "yaxis": log_axis("Busiest rank's tokens over the mean", [1.0, *values], "count"),
        "hovermode": "closest",
    }
    rows = [row([p.title, ", ".join(f"{whole(n)}: {digits(v)}" for n, v in p.points)]) for p in found]
    more = f" In the table: {some(len(found) - len(shown), 'more line')}." if len(found) > len(shown) else ""
    return Plot(
        "simulated",
        f"Simulated, not measured: the busiest rank against the number of ranks, {settings[0]}"
        if len(settings) == 1
        else "Simulated, not measured: the busiest rank against the number of ranks",
        promised(found),
        traces,
        layout,
        table(["Placement (simulated)", "Busiest rank over mean, by ranks"], capped(rows), class_="prose"),
        note=f"Counted from the experts' loads on one machine: tokens, no time and no exchange. 1 is even.{more}",
    )


def apart(counts: Sequence[float]) -> list[float]:
    """The counts whose labels have room beside each other on a logarithmic axis."""
    kept: list[float] = []
    for count in sorted(set(counts)):
        if not kept or count >= 1.3 * kept[-1]:
            kept.append(count)
    return kept


def promised(found: Sequence[Promise]) -> str:
    """Each placement of the first setting at the largest number of ranks that most of them have."""
    first = [item for item in found if item.setting == found[0].setting]
    counts = [n for item in first for n, _ in item.points]
    most = max(counts, key=lambda n: (counts.count(n), n))
    told = [
        f"{digits(value)} ({item.implementation.removeprefix(SIMULATED)})"
        for item in first
        for n, value in item.points
        if n == most
    ]
    where = f"{some(round(most), 'rank')} ({found[0].setting})"
    return f"Simulated for {where}, the busiest has {listed(told)} times the mean."
