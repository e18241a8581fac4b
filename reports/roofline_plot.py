"""A study's points below the roofs that the same run measured, as a figure.

At most eight series: a technique each, or a kind of implementation where there are more techniques. Filled points are
optimized and library code, open ones references and compiled references.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.units import digits, listed, show

from . import facts
from .figure import MAX_SERIES, Plot, Trace, log_axis, rounded
from .intensity import Point, Roofs, best
from .markup import Html, join, tag
from .palette import HUES, INK
from .samples import spaced
from .table import number, table
from .view import View

NUMBERS = 40
PALE = ("reference", "compiled")


def figure(view: View, study: str, found: Sequence[Point], ceilings: Roofs) -> Plot:
    """A study's points below all measured roofs."""
    names = series(found)
    traces = [trace for name in names for trace in clouds(view, study, name, found, names)]
    drawn = sum(len(trace["x"]) for trace in traces)
    x = [point.intensity for point in found]
    x += [ridge for dtype in ceilings.matrix if (ridge := ceilings.ridge(dtype))]
    y = [point.rate for point in found] + list(ceilings.matrix.values())
    across = log_axis("Arithmetic intensity, FLOP per byte", [min(x) / 1.6, max(x) * 1.6], "count")
    up = log_axis("Achieved FLOP/s", [min(y), max(y) * 1.3], "FLOP/s")
    thinned = (
        f"{drawn} of {len(found)} points are drawn, spread evenly over their shares. " if drawn < len(found) else ""
    )
    fastest = sorted(best(found), key=lambda point: -point.share)
    return Plot(
        f"roofline-{study}",
        f"{study.capitalize()} under the measured roofs",
        takeaway(found, names),
        traces,
        {
            "xaxis": across | sparse(across),
            "yaxis": up,
            "hovermode": "closest",
            **roof_lines(ceilings, across["range"]),
        },
        join(
            table(["Fastest of a case", "Case", ">Intensity", ">Achieved", ">Share", "Limit"],
                  [numbers_row(point) for point in fastest[:NUMBERS]], label=f"Fastest of each case of {study}"),
            tag("p", "The roofs: ", roof_words(ceilings), ".", class_="note"),
        ),
        note=f"{thinned}Filled: optimized and library. Open: reference and compiled. Lines: what this run measured.",
        height=520,
    )  # fmt: skip


def takeaway(found: Sequence[Point], names: Sequence[str]) -> str:
    """How near each series comes with its fastest contender of a case, in the median."""
    parts = []
    for name in names:
        shares = [point.share for point in best(p for p in found if series_of(p, names) == name)]
        parts.append(f"{name} {show(float(np.median(shares)), 'share')}")
    return f"The fastest contender of a case reaches, in the median, of what the hardware allows: {listed(parts)}."


def numbers_row(point: Point) -> Html:
    """The same figures without markup around them."""
    cells = [point.record.contender, point.record.case]
    figures = [f"{digits(point.intensity)} FLOP/B", show(point.rate, "FLOP/s"), show(point.share, "share")]
    return tag("tr", [tag("td", cell) for cell in cells], [number(cell).html() for cell in figures],
               tag("td", point.limit))  # fmt: skip


def series(found: Sequence[Point]) -> list[str]:
    """What a study's points are told apart by: techniques, or kinds of implementation where those are too many."""
    techniques = facts.techniques(point.record for point in found)
    return techniques if len(techniques) <= MAX_SERIES else list(dict.fromkeys(point.record.kind for point in found))


def series_of(point: Point, names: Sequence[str]) -> str:
    """The point's own among `names`."""
    return point.record.technique if point.record.technique in names else point.record.kind


def clouds(view: View, study: str, name: str, found: Sequence[Point], names: Sequence[str]) -> list[Trace]:
    """One series as one trace, or two, filled and open, where there is room in the legend."""
    mine = sorted((p for p in found if series_of(p, names) == name), key=lambda point: point.share)
    apart = 2 * len(names) <= MAX_SERIES
    plain = [p for p in mine if p.record.kind in PALE]
    filled = [p for p in mine if p.record.kind not in PALE]
    groups = [(name, filled), (f"{name}, references", plain)] if apart else [(name, mine)]
    by_technique = mine[0].record.technique == name
    colour = view.palette.hue(study, name) if by_technique else HUES[names.index(name) % len(HUES)]
    return [cloud(f"{study}:{name}", title, group, colour) for title, group in groups if group]


def cloud(value: str, title: str, group: Sequence[Point], colour: str) -> Trace:
    """Dots of at most 200 points, with what hovering tells."""
    shown = [group[int(i)] for i in spaced(len(group))]
    opened = [p.record.kind in PALE for p in shown]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": html.escape(title),
        "meta": {"series": value},
        "x": [rounded(p.intensity) for p in shown],
        "y": [rounded(p.rate) for p in shown],
        "marker": {
            "color": colour,
            "size": 7,
            "symbol": ["circle-open" if one else "circle" for one in opened] if len(set(opened)) > 1
            else ("circle-open" if opened[0] else "circle"),
        },
        "text": [html.escape(f"{p.record.contender}, {p.record.case}: {show(p.share, 'share')}") for p in shown],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def roof_lines(ceilings: Roofs, across: Sequence[float]) -> dict[str, Any]:
    """Slanted lines of reading and copying, a level one a dtype, each with its name; as layout entries.

    Shapes take plain values on logarithmic axes, annotations take logarithms.
    """
    start, end = (10.0**value for value in across)
    shapes, notes = [], []
    highest = max(ceilings.matrix.values(), default=0.0)
    slopes = [(ceilings.reading, "solid"), (ceilings.copying, "dot")]
    for speed, dash in slopes:
        if speed:
            top = min(highest / speed, end) if highest else end
            shapes.append(stroke(start, start * speed, top, top * speed, dash))
    words = [f"{name} {show(speed, 'bytes/s')}" for name, speed in
             (("slanted: reading", ceilings.reading), ("dotted: copying", ceilings.copying)) if speed]  # fmt: skip
    corner = {"xref": "paper", "yref": "paper", "x": 1, "y": 0}
    notes.append(word(1.0, 1.0, "<br>".join(words), "right", "bottom") | corner)
    for dtype, rate in ceilings.matrix.items():
        ridge = ceilings.ridge(dtype) or start
        shapes.append(stroke(max(ridge, start), rate, end, rate, "solid"))
        notes.append(word(end, rate, f"{html.escape(dtype)} {show(rate, 'FLOP/s')}", "right", "bottom"))
    return {"shapes": shapes, "annotations": notes}


def stroke(x0: float, y0: float, x1: float, y1: float, dash: str) -> dict[str, Any]:
    """A roof's line."""
    line = {"color": INK, "width": 1.5, "dash": dash}
    return {"type": "line", "layer": "below", "line": line,
            "x0": rounded(x0), "y0": rounded(y0), "x1": rounded(x1), "y1": rounded(y1)}  # fmt: skip


def word(x: float, y: float, text: str, xanchor: str, yanchor: str) -> dict[str, Any]:
    """A roof's name at a place on it."""
    return {"x": rounded(math.log10(x)), "y": rounded(math.log10(y)), "text": text, "showarrow": False,
            "xanchor": xanchor, "yanchor": yanchor}  # fmt: skip


def sparse(axis: dict[str, Any]) -> dict[str, Any]:
    """Powers of ten alone where the axis has more ticks than a phone can show."""
    kept = [value for value in axis["tickvals"] if math.log10(value) == round(math.log10(value))]
    if len(axis["tickvals"]) <= 8 or not kept:
        return {}
    words = dict(zip(axis["tickvals"], axis["ticktext"], strict=True))
    return {"tickvals": kept, "ticktext": [words[value] for value in kept]}


def roof_words(ceilings: Roofs) -> str:
    """The roofs in a sentence."""
    found = [f"{name} {show(speed, 'bytes/s')}" for name, speed in
             (("reading", ceilings.reading), ("copying", ceilings.copying)) if speed]  # fmt: skip
    return listed([*found, *(f"{dtype} {show(rate, 'FLOP/s')}" for dtype, rate in ceilings.matrix.items())])
