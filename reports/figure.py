"""One plot with everything a reader without it needs: title, a sentence written from the numbers, a table of them.

A figure is a plain dictionary for plotly.js, drawn in the browser as SVG. Only trace types of its cartesian bundle are
used: an unknown type would silently become a line.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.units import GAP, TIMES_SIGN, length, scale, whole

from .markup import Child, Html, data, join, tag
from .palette import INK, Look
from .table import named

TRACE_TYPES = {"scatter", "bar", "box", "heatmap", "histogram"}
MAX_SERIES = 8
Trace = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """`traces` and `layout` as plotly has them; `takeaway` is one sentence; `table` holds the same numbers."""

    name: str
    title: str
    takeaway: str
    traces: Sequence[Trace]
    layout: dict[str, Any]
    table: Html
    note: str | None = None
    height: int = 420

    def spec(self) -> dict[str, Any]:
        """What plotly.js draws."""
        return {"data": list(self.traces), "layout": {"height": self.height, **self.layout}}

    def html(self) -> Html:
        """The figure element."""
        return tag(
            "figure",
            tag("h3", self.title, id=f"{self.name}-title"),
            tag("figcaption", self.takeaway),
            tag(
                "div",
                data(self.spec()),
                class_="plot",
                role="img",
                aria_label=self.takeaway,
                style=f"min-height:{self.height}px",
            ),
            tag("p", self.note, class_="note") if self.note else None,
            tag("details", tag("summary", "The numbers"), named(self.table, f"{self.name}-title"), class_="numbers"),
            id=self.name,
            aria_labelledby=f"{self.name}-title",
        )


def line(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    look: Look,
    words: str | Sequence[str],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
) -> Trace:
    """A series with markers and, where known, intervals; `words` (template or texts) is what hovering tells."""
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(name),
        "x": list(x),
        "y": [rounded(v) for v in y],
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"color": look.colour, "symbol": look.marker, "size": 7},
        "opacity": look.opacity,
    }
    if isinstance(words, str):
        trace["hovertemplate"] = words
    else:
        trace |= {"text": [html.escape(word) for word in words], "hovertemplate": "%{text}<extra></extra>"}
    if any(v is not None for v in high):
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [rounded(h - v) if h is not None else 0 for v, h in zip(y, high, strict=True)],
            "arrayminus": [rounded(v - b) if b is not None else 0 for v, b in zip(y, low, strict=True)],
            "thickness": 1.2,
            "width": 3,
            "color": look.colour,
        }
    return trace


def marks(name: str, x: Sequence[float], y: Sequence[str], words: Sequence[str], size: int = 16) -> Trace:
    """Upright strokes on named rows, to be compared with the row's bar or dot; `words` is what hovering tells."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [rounded(v) for v in x],
        "y": [html.escape(label) for label in y],
        "marker": {"symbol": "line-ns-open", "size": size, "color": INK, "line": {"width": 2}},
        "text": [html.escape(word) for word in words],
        "hovertemplate": "%{text}<extra></extra>",
    }


def named_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of names, the first at the top."""
    labels = [html.escape(name) for name in reversed(names)]
    return {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": labels,
        "range": [-0.7, len(labels) - 0.3],
        "automargin": True,
    }


def rounded(value: float) -> float:
    """Five significant digits: what a screen can show, at half the bytes."""
    return float(f"{value:.5g}")


def length_axis(lengths: Sequence[float], title: str) -> dict[str, Any]:
    """A logarithmic axis with a tick at each length that was measured."""
    ticks = sorted(set(lengths))
    return {
        "type": "log",
        "title": {"text": title},
        "tickvals": ticks,
        "ticktext": [length(v) for v in ticks],
        "tickangle": 0 if len(ticks) <= 8 else -45,
    }


def log_axis(title: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    """A logarithmic value axis whose ticks are written out with their unit, as many as can be read."""
    kept = [v for v in values if v > 0] or [1.0]
    low, high = min(kept), max(kept)
    steps = (
        (1,)
        if high / low > 1000
        else (1, 3)
        if high / low > 100
        else (1, 2, 5)
        if high / low > 3
        else (1, 1.5, 2, 3, 5, 7)
        if high / low > 1.5
        else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)
    )
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    ticks = [rounded(step * 10.0**decade) for decade in decades for step in steps]
    return {
        "type": "log",
        "title": {"text": title},
        "tickvals": ticks,
        "ticktext": [tick_word(v, unit) for v in ticks],
        "range": [rounded(math.log10(low / 1.25)), rounded(math.log10(high * 1.25))],
    }


def tick_word(value: float, unit: str) -> str:
    """A tick's label: `200 µs`, `0.05×`, `1,000`."""
    if unit == "count" and 1 <= value < 1e6 and value == round(value):
        return whole(value)
    divisor, name = scale(value, unit)
    number = f"{value / divisor:g}"
    return f"{number}{name}" if name == TIMES_SIGN else f"{number}{GAP}{name}".strip()


def reference_line(value: float, upright: bool = False) -> dict[str, Any]:
    """A dashed line across the plot at a value, as a layout entry."""
    along, across = ("y", "x") if upright else ("x", "y")
    stroke = {"type": "line", "line": {"color": INK, "width": 1, "dash": "dash"}, f"{along}ref": "paper"}
    return {"shapes": [{**stroke, f"{along}0": 0, f"{along}1": 1, f"{across}0": value, f"{across}1": value}]}


def tabs(name: str, panels: Sequence[tuple[str, Child]]) -> Html:
    """Panels of which a script shows one at a time; without it they stand one below the other."""
    if len(panels) == 1:
        return join(panels[0][1])
    found = [tag("section", content, class_="panel", data_label=label) for label, content in panels]
    return tag("div", found, class_="tabs", data_name=name)
