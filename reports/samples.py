"""The raw samples of a case: medians against the floor, in order of measurement, and their distribution.

Contenders differ by orders of magnitude while what matters in raw samples (drift, modes, spikes) is per cent, so each
contender's samples are drawn relative to its own median.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.record import Record
from harness.units import digits, full, show, some, whole

from . import facts
from .figure import MAX_SERIES, Plot, Trace, line, log_axis, marks, named_axis, rounded
from .markup import Html, join, tag
from .table import number, row, table
from .view import View

POINTS = 2000  # of a figure: what a browser draws at once as SVG
STEP = 1e-4  # of its median, to which a drawn sample is rounded
LANE = 0.42
FEW = 60  # samples that can be drawn larger
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A contender whose samples are drawn; `samples` in nanoseconds, in the order measured, `rounds` of each."""

    record: Record
    samples: Array
    rounds: Array

    @cached_property
    def median(self) -> float:
        """Of the samples, nanoseconds."""
        return float(np.median(self.samples))

    @cached_property
    def relative(self) -> Array:
        """Each sample over the median."""
        return self.samples / self.median

    @cached_property
    def drift(self) -> float:
        """Median of the second half over that of the first, less one."""
        return drift(self.samples)


def drawn_of(view: View, record: Record) -> Drawn:
    """A record with its samples; where their rounds are missing they are counted."""
    samples, rounds = view.run.samples(record), view.run.rounds(record)
    return Drawn(
        record, samples, rounds if rounds.shape == samples.shape else np.arange(samples.size, dtype=np.float64)
    )


def figures(view: View, case: facts.Case) -> Html | None:
    """Medians, samples in order and distribution; None without any latency."""
    if not case.passed:
        return None
    drawn = chosen(case)
    found = [drawn_of(view, record) for record in drawn]
    kept = [one for one in found if one.samples.size]
    plots = [medians(view, case)]
    if kept:
        half = lane_half(kept)
        plots += [in_order(view, case, kept, half), distribution(view, kept, 1.5 * half)]
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
    numbers = table(["Contender", ">Latency", ">Floor"], rows, label="Medians")
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


def in_order(view: View, case: facts.Case, drawn: Sequence[Drawn], half: float) -> Plot:
    """Samples over rounds, each contender in a lane about its own median: drift, bursts and modes show here.

    `half` is what half a lane stands for. A trace's `x` counts rounds from the sample before, its `y` steps of `STEP`
    from its median, which the script turns into rounds and places in a lane: small numbers that repeat need little
    room.
    """
    lanes = list(reversed(drawn))
    steady = max(drawn, key=lambda one: abs(one.drift))
    moved = f"{show(abs(steady.drift), 'share')} ({steady.record.contender})"
    rows = []
    for one in drawn:
        times = [show(float(v), "ns") for v in (one.median, one.samples.min(), one.samples.max())]
        cells = [whole(one.samples.size), *times, show(one.drift, "share")]
        rows.append(row([one.record.contender, *(number(text) for text in cells)]))
    axis = {
        "tickvals": list(range(len(lanes))),
        "ticktext": [html.escape(one.record.contender) for one in lanes],
        "range": [-0.6, len(lanes) - 0.4],
        "zeroline": False,
    }
    scale = {"step": STEP, "half": half, "reach": LANE, "medians": [rounded(one.median) for one in lanes]}
    few = max(one.rounds.max() for one in lanes) < 10
    layout = {
        "xaxis": {"title": {"text": "Round"}, **({"dtick": 1} if few else {})},
        "yaxis": axis,
        "showlegend": False,
        "hovermode": "closest",
        "meta": {"words": "nanoseconds", "lanes": scale},
    }
    return Plot(
        "order",
        "Samples in the order measured",
        f"From first to second half no contender's median moved by more than {moved}.",
        [lane(view, one, POINTS // len(drawn)) for one in lanes],
        layout,
        table(["Contender", ">Samples", ">Median", ">Least", ">Greatest", ">Drift"], rows, label="Samples in order"),
        note=f"Each line is a contender's own median, each lane {show(half, 'share')} up and down; samples beyond "
        f"stand at its edge. {left_out(case, drawn)}".strip(),
        height=110 + 58 * len(drawn),
    )


def lane(view: View, one: Drawn, most: int) -> Trace:
    """At most `most` samples of a contender as whole steps off its median."""
    picked = spaced(one.samples.size, most)
    hover = f"{html.escape(one.record.contender)}, round %{{x}}: %{{customdata}} of its median<extra></extra>"
    steps = np.diff(one.rounds[picked], prepend=0).astype(int).tolist()
    trace = line(one.record.contender, steps, [], view.palette.look(one.record), hover)
    marker = {**trace["marker"], "size": 3.5 if picked.size > FEW else 7}
    off = np.rint((one.relative[picked] - 1) / STEP).astype(int).tolist()
    return {**trace, "mode": "markers", "marker": marker, "y": off}


def distribution(view: View, drawn: Sequence[Drawn], half: float) -> Plot:
    """Share of samples below each latency relative to the median: a steep line is a steady contender."""
    traces, rows = [], []
    shares = np.linspace(0, 1, 101)
    spreads = {}
    for one in drawn:
        name = one.record.contender
        found = np.quantile(one.relative, shares)
        spreads[name] = float(found[90] - found[10])
        hover = f"{html.escape(name)}: %{{y:.0%}} of samples below %{{x:.3f}} of its median<extra></extra>"
        look = view.palette.look(one.record)
        curve = line(name, [round(float(v), 4) for v in found], shares.tolist(), look, hover)
        traces.append(curve | {"mode": "lines"})
        cells = [number(show(float(found[at]) * one.median, "ns")) for at in (5, 25, 50, 75, 95)]
        rows.append(row([name, *cells]))
    widest = max(spreads, key=lambda name: spreads[name])
    takeaway = f"The middle 80 % of samples span at most {show(spreads[widest], 'share')} of the median ({widest})."
    layout = {
        "xaxis": {"title": {"text": "Over own median"}, "range": [1 - half, 1 + half]},
        "yaxis": {"title": {"text": "Share of samples below"}, "range": [0, 1], "tickformat": ".0%"},
        "hovermode": "closest",
    }
    numbers = table(["Contender", ">5 %", ">25 %", ">50 %", ">75 %", ">95 %"], rows, label="Distribution")
    return Plot("distribution", "Distribution of the samples", takeaway, traces, layout, numbers)


def spaced(count: int, most: int = 200) -> NDArray[np.int64]:
    """At most `most` evenly spaced positions, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def drift(values: Array) -> float:
    """Median of the second half over that of the first, less one."""
    half = values.size // 2
    return float(np.median(values[half:]) / np.median(values[:half]) - 1) if half else 0.0


def lane_half(drawn: Sequence[Drawn]) -> float:
    """What half a lane stands for: wide enough for the middle of every contender, blind to its spikes."""
    ends = [np.quantile(one.relative, [0.1, 0.9]) for one in drawn]
    return max(2.0 * max(float(max(high - 1, 1 - low)) for low, high in ends), 0.002)


def left_out(case: facts.Case, drawn: Sequence[Drawn]) -> str:
    """What these figures do not draw, in a sentence."""
    words = []
    most = POINTS // len(drawn)
    if any(one.samples.size > most for one in drawn):
        words.append(f"Of more than {most} samples, {most} evenly spaced ones are drawn.")
    else:
        words.append("Every recorded sample is drawn.")
    if len(drawn) < len(case.passed):
        words.append(f"Not drawn: {some(len(case.passed) - len(drawn), 'contender')}.")
    return " ".join(words)
