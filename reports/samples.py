"""The raw samples of a case: medians against the floor, in order of measurement, and their distribution.

Contenders differ by orders of magnitude while what matters in raw samples (drift, modes, spikes) is per cent, so each
contender's samples are drawn relative to its own median.
"""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from harness.record import Record

from . import facts
from .figure import MAX_SERIES, Plot, Trace, line, log_axis, reference_line, rounded
from .markup import Html, join, tag
from .palette import INK
from .table import number, row, table
from .units import digits, full, show, whole
from .view import View

POINTS = 200
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
    """At most as many contenders as a plot can carry: the fastest, and the baseline in any case."""
    found = case.passed[:MAX_SERIES]
    if case.baseline is not None and case.baseline not in found:
        found = [*found[: MAX_SERIES - 1], case.baseline]
    return found


def medians(view: View, case: facts.Case, name: str = "medians", title: str = "Medians against the floor") -> Plot:
    """Latency of each contender with its interval, and the floor of its technique."""
    shown = case.passed[:24]
    names = [html.escape(r.contender) for r in shown]
    traces: list[Trace] = []
    for technique in facts.techniques(shown)[: MAX_SERIES - 1]:
        traces.append(dots(view, technique, [r for r in shown if r.technique == technique]))
    floors = [(r, value) for r in shown if (value := r.value("floor")) is not None]
    if floors:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "floor",
                "x": [rounded(v) for _, v in floors],
                "y": [html.escape(r.contender) for r, _ in floors],
                "marker": {"symbol": "line-ns-open", "size": 16, "color": INK, "line": {"width": 2}},
                "text": [f"floor {show(v, 'ns')}" for _, v in floors],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    values = [r.figures["latency"].value for r in shown] + [v for _, v in floors]
    axis = {"type": "category", "categoryorder": "array", "categoryarray": names[::-1], "automargin": True}
    layout = {"xaxis": log_axis("Latency", values, "ns"), "yaxis": axis, "hovermode": "closest"}
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
    """Samples over rounds, relative to the contender's own median: drift, bursts and modes show here."""
    traces, rows = [], []
    for record in drawn:
        found = values[record.contender]
        rounds = view.run.rounds(record)
        steps = rounds if rounds.shape == found.shape else np.arange(found.size, dtype=np.float64)
        picked = spaced(found.size)
        relative = found / np.median(found)
        hover = f"{html.escape(record.contender)}, round %{{x}}: %{{y:.3f}} of its median<extra></extra>"
        trace = line(
            record.contender, steps[picked].tolist(), relative[picked].tolist(), view.palette.look(record), hover
        )
        traces.append(trace | {"mode": "markers", "marker": trace["marker"] | {"size": 4}, "opacity": 0.75})
        rows.append(
            row(
                [
                    record.contender,
                    number(whole(found.size)),
                    number(show(float(np.median(found)), "ns")),
                    number(show(float(found.min()), "ns")),
                    number(show(float(found.max()), "ns")),
                    number(show(drift(found), "share")),
                ]
            )
        )
    steady = max(drawn, key=lambda r: abs(drift(values[r.contender])))
    amount = drift(values[steady.contender])
    moved = f"{show(abs(amount), 'share')} ({steady.contender})"
    takeaway = f"From first to second half no contender's median moved by more than {moved}."
    return Plot(
        "order",
        "Samples in the order measured",
        takeaway,
        traces,
        {
            "xaxis": {"title": {"text": "Round"}},
            "yaxis": {"title": {"text": "Over own median"}, "range": frame(drawn, values)},
            **reference_line(1.0, ""),
            "hovermode": "closest",
        },
        table(["Contender", ">Samples", ">Median", ">Least", ">Greatest", ">Drift"], rows),
        note=left_out(case, drawn, values),
    )


def distribution(view: View, case: facts.Case, drawn: list[Record], values: dict[str, Array]) -> Plot:
    """Share of samples below each latency relative to the median: a steep line is a steady contender."""
    traces, rows = [], []
    shares = np.linspace(0, 1, 101)
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
        cells = [number(show(float(np.quantile(found, q)), "ns")) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
        rows.append(row([record.contender, *cells]))
    widest = max(spreads, key=lambda name: spreads[name])
    takeaway = f"The middle 80 % of samples span at most {show(spreads[widest], 'share')} of the median ({widest})."
    layout = {
        "xaxis": {"title": {"text": "Over own median"}, "range": frame(drawn, values)},
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


def frame(drawn: list[Record], values: dict[str, Array]) -> list[float]:
    """Limits that hold the middle 98 % of every contender, so that one spike does not flatten the rest."""
    relative = [values[r.contender] / np.median(values[r.contender]) for r in drawn]
    low = min(float(np.quantile(v, 0.01)) for v in relative)
    high = max(float(np.quantile(v, 0.99)) for v in relative)
    margin = max(0.08 * (high - low), 0.005)
    return [rounded(low - margin), rounded(high + margin)]


def left_out(case: facts.Case, drawn: list[Record], values: dict[str, Array]) -> str | None:
    """What this figure does not draw, in a sentence."""
    low, high = frame(drawn, values)
    beyond = sum(
        int(np.count_nonzero((v / np.median(v) < low) | (v / np.median(v) > high)))
        for v in (values[r.contender] for r in drawn)
    )
    thinned = [r for r in drawn if values[r.contender].size > POINTS]
    words = []
    if beyond:
        words.append(f"{whole(beyond)} samples lie outside the frame; the table has the extremes.")
    if thinned:
        words.append(f"Of more than {POINTS} samples, {POINTS} evenly spaced ones are drawn.")
    if len(drawn) < len(case.passed):
        words.append(f"{len(case.passed) - len(drawn)} slower contenders are not drawn.")
    return " ".join(words) or None
