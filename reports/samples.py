"""The raw samples of a case: medians against the floor, in order of measurement, and their distribution.

Contenders differ by orders of magnitude while what matters in raw samples (drift, modes, spikes) is per cent, so each
contender's samples are drawn relative to its own median.
"""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from harness.record import Record
from harness.units import digits, full, show, some, whole

from . import facts
from .figure import MAX_SERIES, Plot, Trace, line, log_axis, marks, named_axis, rounded
from .markup import Html, join, tag
from .table import number, row, table
from .view import View

POINTS = 200
LANE = 0.42
Array = NDArray[np.float64]


def figures(view: View, case: facts.Case) -> Html | None:
    """Medians, samples in order and distribution; None without any latency."""
    if not case.passed:
        return None
    drawn = chosen(case)
    values = {record.contender: view.run.samples(record) for record in drawn}
    kept = [record for record in drawn if values[record.contender].size]
    plots = [medians(view, case)]
    if kept:
        plots += [in_order(view, case, kept, values), distribution(view, case, kept, values)]
    missing = None if kept else tag("p", "The raw samples of this case are missing or damaged.", class_="caution")
    return join(missing, *(plot.html() for plot in plots))


def chosen(case: facts.Case) -> list[Record]:
    """At most as many contenders as a plot can carry: the best of each technique, the baseline, then the fastest."""
    first = [best for name in facts.techniques(case.records) if (best := case.best(name)) is not None]
    order = [*first, *([case.baseline] if case.baseline is not None else []), *case.passed]
    kept = list({record.contender: record for record in order}.values())[:MAX_SERIES]
    return sorted(kept, key=lambda record: record.figures["latency"].value)


def medians(view: View, case: facts.Case, name: str = "medians", title: str | None = None) -> Plot:
    """Latency of each contender with its interval, and the floor of its technique where that is known."""
    shown = case.passed[:24]
    traces: list[Trace] = []
    for technique in facts.techniques(shown)[: MAX_SERIES - 1]:
        traces.append(dots(view, technique, [r for r in shown if r.technique == technique]))
    floors = [(r, value) for r in shown if (value := r.value("floor")) is not None]
    if floors:
        words = [f"floor {show(v, 'ns')}" for _, v in floors]
        traces.append(marks("floor", [v for _, v in floors], [r.contender for r, _ in floors], words))
    values = [r.figures["latency"].value for r in shown] + [v for _, v in floors]
    axes = {"xaxis": log_axis("Latency", values, "ns"), "yaxis": named_axis([r.contender for r in shown])}
    layout = {**axes, "hovermode": "closest"}
    best, last = case.passed[0], case.passed[-1]
    takeaway = f"{best.contender} is the only contender with a latency: {full(best.figures['latency'], 'ns')}."
    if best is not last:
        spread = last.figures["latency"].value / best.figures["latency"].value
        takeaway = f"From {best.contender} to {last.contender} the medians spread over a factor of {digits(spread)}."
    rows = [
        row([r.contender, number(full(r.figures["latency"], "ns")), number(view.show(r, "floor"))]) for r in case.passed
    ]
    numbers = table(["Contender", ">Latency", ">Floor"], rows)
    height = 150 + 30 * len(shown)
    title = title or ("Medians against the floor" if floors else "Medians")
    return Plot(name, title, takeaway, traces, layout, numbers, height=height)


def dots(view: View, technique: str, found: list[Record]) -> Trace:
    """A technique's medians as markers with intervals."""
    colour = view.palette.hue(found[0].study, technique)
    ends = [(r.figures["latency"].value, r.figures["latency"].low, r.figures["latency"].high) for r in found]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(technique),
        "x": [rounded(v) for v, _, _ in ends],
        "y": [html.escape(r.contender) for r in found],
        "marker": {"color": colour, "size": 10, "symbol": [view.palette.look(r).marker for r in found]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": colour,
            "thickness": 1.5,
            "width": 4,
            "array": [rounded((h if h is not None else v) - v) for v, _, h in ends],
            "arrayminus": [rounded(v - (b if b is not None else v)) for v, b, _ in ends],
        },
        "text": [html.escape(f"{r.contender}: {full(r.figures['latency'], 'ns')}") for r in found],
        "hovertemplate": "%{text}<extra></extra>",
    }


def in_order(view: View, case: facts.Case, drawn: list[Record], values: dict[str, Array]) -> Plot:
    """Samples over rounds, each contender in a lane about its own median: drift, bursts and modes show here."""
    traces, rows = [], []
    half = lane_half(drawn, values)
    for lane, record in enumerate(reversed(drawn)):
        found = values[record.contender]
        rounds = view.run.rounds(record)
        steps = rounds if rounds.shape == found.shape else np.arange(found.size, dtype=np.float64)
        picked = spaced(found.size)
        relative = found[picked] / np.median(found)
        height = lane + np.clip((relative - 1) / half, -1, 1) * LANE
        hover = f"{html.escape(record.contender)}, round %{{x}}: %{{customdata}} of its median<extra></extra>"
        trace = line(record.contender, steps[picked].tolist(), height.tolist(), view.palette.look(record), hover)
        marker = {**trace["marker"], "size": 3.5}
        traces.append(
            {**trace, "mode": "markers", "marker": marker, "customdata": [rounded(v) for v in relative.tolist()]}
        )
    for record in drawn:
        found = values[record.contender]
        times = [show(float(v), "ns") for v in (np.median(found), found.min(), found.max())]
        cells = [whole(found.size), *times, show(drift(found), "share")]
        rows.append(row([record.contender, *(number(text) for text in cells)]))
    steady = max(drawn, key=lambda r: abs(drift(values[r.contender])))
    moved = f"{show(abs(drift(values[steady.contender])), 'share')} ({steady.contender})"
    lanes = {
        "tickvals": list(range(len(drawn))),
        "ticktext": [html.escape(r.contender) for r in reversed(drawn)],
        "range": [-0.6, len(drawn) - 0.4],
        "zeroline": False,
    }
    return Plot(
        "order",
        "Samples in the order measured",
        f"From first to second half no contender's median moved by more than {moved}.",
        traces,
        {"xaxis": {"title": {"text": "Round"}}, "yaxis": lanes, "showlegend": False, "hovermode": "closest"},
        table(["Contender", ">Samples", ">Median", ">Least", ">Greatest", ">Drift"], rows),
        note=f"Each line is a contender's own median, each lane {show(half, 'share')} up and down; samples beyond "
        f"stand at its edge. {left_out(case, drawn, values)}".strip(),
        height=110 + 58 * len(drawn),
    )


def distribution(view: View, case: facts.Case, drawn: list[Record], values: dict[str, Array]) -> Plot:
    """Share of samples below each latency relative to the median: a steep line is a steady contender."""
    traces, rows = [], []
    shares = np.linspace(0, 1, 101)
    half = 1.5 * lane_half(drawn, values)
    spreads = {}
    for record in drawn:
        found = values[record.contender]
        relative = np.quantile(found / np.median(found), shares)
        spreads[record.contender] = float(relative[90] - relative[10])
        hover = f"{html.escape(record.contender)}: %{{y:.0%}} of samples below %{{x:.3f}} of its median<extra></extra>"
        curve = line(
            record.contender, [rounded(v) for v in relative], shares.tolist(), view.palette.look(record), hover
        )
        traces.append(curve | {"mode": "lines"})
        cells = [number(show(q, "ns")) for q in np.quantile(found, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()]
        rows.append(row([record.contender, *cells]))
    widest = max(spreads, key=lambda name: spreads[name])
    takeaway = f"The middle 80 % of samples span at most {show(spreads[widest], 'share')} of the median ({widest})."
    layout = {
        "xaxis": {"title": {"text": "Over own median"}, "range": [1 - half, 1 + half]},
        "yaxis": {"title": {"text": "Share of samples below"}, "range": [0, 1], "tickformat": ".0%"},
        "hovermode": "closest",
    }
    numbers = table(["Contender", ">5 %", ">25 %", ">50 %", ">75 %", ">95 %"], rows)
    return Plot("distribution", "Distribution of the samples", takeaway, traces, layout, numbers)


def spaced(count: int) -> NDArray[np.int64]:
    """At most `POINTS` evenly spaced positions, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def drift(values: Array) -> float:
    """Median of the second half over that of the first, less one."""
    half = values.size // 2
    return float(np.median(values[half:]) / np.median(values[:half]) - 1) if half else 0.0


def lane_half(drawn: list[Record], values: dict[str, Array]) -> float:
    """What half a lane stands for: wide enough for the middle of every contender, blind to its spikes."""
    spreads = []
    for record in drawn:
        relative = values[record.contender] / np.median(values[record.contender])
        low, high = np.quantile(relative, [0.1, 0.9])
        spreads.append(2.0 * max(high - 1, 1 - low))
    return max(float(max(spreads)), 0.002)


def left_out(case: facts.Case, drawn: list[Record], values: dict[str, Array]) -> str:
    """What these figures do not draw, in a sentence."""
    words = []
    if any(values[r.contender].size > POINTS for r in drawn):
        words.append(f"Of more than {POINTS} samples, {POINTS} evenly spaced ones are drawn.")
    if len(drawn) < len(case.passed):
        words.append(f"Not drawn: {some(len(case.passed) - len(drawn), 'contender')}.")
    return " ".join(words)
