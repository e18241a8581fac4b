"""One contender in one case over the history: a line and its levels for each machine, toolchain changes marked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.provenance import commit
from harness.record import Figure, Header
from harness.timeline import Machine
from harness.units import DASH, full, show, some

from .figure import MAX_SERIES, Plot, Trace, line, log_axis, rounded
from .markup import Html
from .palette import HUES, INK, Look
from .table import number, row, table

POINTS = 120
MARKS = 8
TICKS = 8
ORDER = (2, 1, 0, 4)


def plot(runs: Sequence[Header], machines: Sequence[Machine], key: tuple[str, str], name: str) -> Plot:
    """The line `key` (case, contender) on every machine that measured it; runs are evenly spaced, dates at ticks."""
    found = [(machine, machine.lines.index(key)) for machine in machines if key in machine.lines]
    found.sort(key=lambda item: -item[0].measured(item[1]).size)
    shown = found[: MAX_SERIES // 2]
    traces: list[Trace] = []
    for hue, (machine, at) in zip(ORDER, shown, strict=False):
        traces += [values(machine, at, HUES[hue]), steps(machine, at, HUES[hue])]
    heights = [y for trace in traces for y in trace["y"]]
    rows = [item for machine, at in shown for item in level_rows(machine, at)]
    left = f"{some(len(found) - len(shown), 'further machine')} measured it too. " if len(found) > len(shown) else ""
    return Plot(
        name,
        f"{key[1]} · {key[0]}",
        takeaway(*shown[0]),
        traces,
        {
            "xaxis": run_axis(runs, shown),
            "yaxis": log_axis("Latency", heights, "ns"),
            "hovermode": "closest",
            **marks(shown),
        },
        table(["Machine", "From", "To", ">Runs", ">Level"], rows),
        note=f"{left}Dots: medians of runs, or of neighbouring runs where there are more than {POINTS}. Steps: levels. "
        "Dotted: another toolchain.",
        height=300,
    )


def takeaway(machine: Machine, at: int) -> str:
    """What became of the line on its main machine."""
    values = machine.levels(at)
    runs = some(int(machine.measured(at).size), "run")
    if len(values) == 1:
        return f"On {machine.label} it kept its level of {show(float(values[0]), 'ns')} over {runs}."
    ratio = show(float(values[-1] / values[0]), "ratio")
    changed = some(len(values) - 1, "change")
    return f"On {machine.label} it is now at {ratio} of its first level after {changed} in {runs}."


def stretches(machine: Machine, at: int) -> list[NDArray[np.int64]]:
    """Positions of the line's runs in at most `POINTS` groups of neighbours."""
    runs = machine.measured(at)
    return [np.asarray(part) for part in np.array_split(runs, min(POINTS, runs.size))]


def values(machine: Machine, at: int, colour: str) -> Trace:
    """Latencies as dots, with intervals where each dot is one run."""
    parts = stretches(machine, at)
    single = all(part.size == 1 for part in parts)
    y = [float(np.median(machine.latency[at, part])) for part in parts]
    words, low, high = [], [], []
    for part, value in zip(parts, y, strict=True):
        header = machine.runs[int(part[0])]
        bounds = [float(table[at, part[0]]) for table in (machine.low, machine.high)]
        known = single and all(np.isfinite(bounds))
        figure = Figure(value, *bounds) if known else Figure(value)
        low.append(figure.low)
        high.append(figure.high)
        more = f" and {part.size - 1} more" if part.size > 1 else ""
        words.append(f"{header.started[:16]}{more}, {commit(header) or 'no commit'}: {full(figure, 'ns')}")
    look = Look(colour, "solid", "circle", 0.75)
    x = [float(np.median(machine.places[part])) for part in parts]
    trace = line(f"{machine.label} {machine.fingerprint}", x, y, look, words, low, high)
    return trace | {"mode": "markers", "marker": {"color": colour, "size": 4}}


def steps(machine: Machine, at: int, colour: str) -> Trace:
    """Levels as a stepped line."""
    runs = machine.measured(at)
    cuts = [0, *np.searchsorted(runs, machine.points[at]).tolist(), runs.size]
    x, y, words = [], [], []
    for number_, level in enumerate(machine.levels(at)):
        first, last = int(runs[cuts[number_]]), int(runs[cuts[number_ + 1] - 1])
        x += [float(machine.places[first]), float(machine.places[last])]
        y += [float(level)] * 2
        words += [f"level {show(float(level), 'ns')} from {machine.runs[first].started[:10]}"] * 2
    trace = line(f"{machine.fingerprint} levels", x, y, Look(colour, "solid", "circle", 1.0), words)
    return trace | {"mode": "lines", "showlegend": False, "line": trace["line"] | {"shape": "hv"}}


def level_rows(machine: Machine, at: int) -> list[Html]:
    """A row a level."""
    runs = machine.measured(at)
    cuts = [0, *np.searchsorted(runs, machine.points[at]).tolist(), runs.size]
    found = []
    for number_, level in enumerate(machine.levels(at)):
        part = runs[cuts[number_] : cuts[number_ + 1]]
        ends = [
            f"{header.started[:10]} {commit(header) or DASH}"
            for header in (machine.runs[int(part[0])], machine.runs[int(part[-1])])
        ]
        found.append(row([machine.fingerprint, *ends, number(int(part.size)), number(show(float(level), "ns"))]))
    return found[-20:]


def run_axis(runs: Sequence[Header], shown: Sequence[tuple[Machine, int]]) -> dict[str, Any]:
    """Runs evenly spaced, a date at some of them, over the stretch in which the line was measured."""
    places = np.concatenate([machine.places[machine.measured(at)] for machine, at in shown])
    first, last = int(places.min()), int(places.max())
    ticks = sorted({round(value) for value in np.linspace(first, last, TICKS)})
    margin = max(0.5, (last - first) * 0.02)
    return {
        "title": {"text": "Runs, evenly spaced"},
        "tickvals": ticks,
        "ticktext": [html.escape(runs[place].started[:10] or DASH) for place in ticks],
        "range": [rounded(first - margin), rounded(last + margin)],
    }


def marks(shown: Sequence[tuple[Machine, int]]) -> dict[str, Any]:
    """Dotted strokes where the toolchain of a drawn machine changed, the newest with words."""
    shapes, notes = [], list[dict[str, Any]]()
    near = max((machine.places[-1] for machine, _ in shown), default=0) / 12
    for machine, at in shown:
        runs = machine.measured(at)
        inside = [(place, words) for place, words in machine.tools if runs[0] < place <= runs[-1]]
        for place, words in inside[-MARKS:]:
            x = float(machine.places[place]) - 0.5
            stroke = {"color": INK, "width": 1, "dash": "dot"}
            shapes.append({"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": stroke})
            if any(note["words"] == words and abs(note["x"] - x) < near for note in notes):
                continue  # another machine changed alike at nearly the same time: one label for both
            text = html.escape(words if len(words) <= 32 else f"{words[:30]}…")
            corner = {"x": x, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top"}
            notes.append({**corner, "words": words, "text": text, "showarrow": False, "textangle": -90})
    labels = [{key: value for key, value in note.items() if key != "words"} for note in notes[-3:]]
    return {"shapes": shapes, "annotations": labels} if shapes else {}
