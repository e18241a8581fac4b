"""Plots and grids over a sweep's length: the best of each technique with its floor, and every implementation."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.record import Figure, Record
from harness.units import DASH, digits, full, interval, length, listed, show, some

from .facts import status_words
from .figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, rounded
from .markup import Html, join, tag
from .palette import DASHES, HUES, INK, MARKERS, Look
from .samples import medians
from .study import contender_name
from .sweep import Sweep
from .table import Cell, number, row, table
from .view import link, page_of

PLAIN_HUES = (INK, *HUES[4:])
BEST = (
    "The fastest implementation of each technique at each length, with 95 % intervals; dotted: the least time "
    "the measured ceilings allow that technique."
)


def latency_plot(sweep: Sweep, name: str, title: str, axis: str, note: str = "") -> Plot:
    """The fastest implementation of each technique, with the technique's floor as a thin dotted line.

    A single length is no line: its contenders are drawn against their floors instead.
    """
    if len(sweep.points) == 1:
        single = f"{title}, {tokens(sweep.lengths[0])}"
        return replace(medians(sweep.view, sweep.points[0][1], name, single), takeaway=leader(sweep))
    shown = sweep.techniques[: MAX_SERIES // 2]
    series = {technique: sweep.best(technique) for technique in shown}
    traces: list[Trace] = []
    for technique, found in series.items():
        traces.append(record_line(technique, found, hue_look(sweep, technique)))
    for technique, found in series.items():
        floors = [(n, value) for n, r in found if (value := r.value("floor")) is not None]
        if floors:
            look = Look(sweep.view.palette.hue(sweep.study, technique), "dot", "circle", 0.7)
            words = [f"{technique}, floor at {length(n)}: {show(v, 'ns')}" for n, v in floors]
            floor = line(f"{technique} floor", [n for n, _ in floors], [v for _, v in floors], look, words)
            traces.append(floor | {"mode": "lines", "line": floor["line"] | {"width": 1.2}})
    return Plot(
        name, title, leader(sweep), traces, axes(sweep, traces, axis), grid_of_best(sweep, shown), note=BEST + note
    )


def axes(sweep: Sweep, traces: Sequence[Trace], axis: str) -> dict[str, object]:
    """Both axes logarithmic, a tick at each length."""
    values = [y for trace in traces for y in trace["y"] if y > 0]
    return {
        "xaxis": length_axis(sweep.lengths, axis),
        "yaxis": log_axis("Latency", values, "ns"),
        "hovermode": "closest",
    }


def tokens(count: float) -> str:
    """A length in a sentence: `1 token`, `4K tokens`."""
    return f"{length(count)} token{'' if count == 1 else 's'}"


def leader(sweep: Sweep) -> str:
    """The best of each technique at the longest length."""
    n, case = sweep.last
    best = [found for technique in sweep.techniques if (found := case.best(technique)) is not None]
    best.sort(key=lambda record: record.figures["latency"].value)
    told = [f"{show(record.value('latency'), 'ns')} ({record.contender})" for record in best]
    return f"At {tokens(n)} the best of each technique: {listed(told)}."


def reached(sweep: Sweep) -> str | None:
    """How near the best implementations come to their floor at the longest length; None where that is not known."""
    n, case = sweep.points[-1]
    parts = []
    for technique in sweep.techniques:
        best = case.best(technique)
        share = best.value("floor_share") if best is not None else None
        if share is not None:
            parts.append(f"{technique} {digits(100 * share, 2)} %")
    if not parts:
        return None
    return f"at {tokens(n)} ({sweep.title}) the best implementations reach {', '.join(parts)}"


def hue_look(sweep: Sweep, technique: str) -> Look:
    """A technique's colour in a full line, with a marker of its own."""
    hue = sweep.view.palette.hue(sweep.study, technique)
    return Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)


def record_line(name: str, found: list[tuple[float, Record]], look: Look) -> Trace:
    """A series of records over length."""
    figures = [r.figures["latency"] for _, r in found]
    words = [f"{r.contender} at {length(n)}: {full(r.figures['latency'], 'ns')}, {samples_of(r)}" for n, r in found]
    return line(
        name,
        [n for n, _ in found],
        [f.value for f in figures],
        look,
        words,
        [f.low for f in figures],
        [f.high for f in figures],
    )


def samples_of(record: Record) -> str:
    """How many samples stand behind a figure."""
    count = (record.samples or {}).get("count")
    return f"n = {count}" if count is not None else "n not recorded"


def implementations_plot(sweep: Sweep, name: str, axis: str, first: Sequence[str]) -> Plot:
    """Contenders of the techniques `first`, then the others, as many as a plot can carry; the grid below has all."""
    by_name: dict[str, list[tuple[float, Record]]] = {}
    for n, case in sweep.points:
        for record in case.passed:
            by_name.setdefault(record.contender, []).append((n, record))
    last = sweep.points[-1][0]

    def rank(item: tuple[str, list[tuple[float, Record]]]) -> tuple[bool, bool, float]:
        n, record = item[1][-1]
        return record.technique not in first, n < last, record.figures["latency"].value

    shown = sorted(by_name.items(), key=rank)[:MAX_SERIES]
    traces = [record_line(k, found, sweep.view.palette.look(found[0][1])) for k, found in sorted(shown)]
    hidden = len(by_name) - len(shown)
    kinds = ", ".join(f"{kind} {dash}" for kind, dash in DASHES.items())
    more = f" In the table below: {some(hidden, 'further contender')}." if hidden else ""
    return Plot(
        name,
        f"Implementations, {sweep.title}",
        spread(sweep),
        traces,
        axes(sweep, traces, axis),
        grid(sweep),
        note=f"One colour a technique; lines: {kinds}.{more}",
    )


def spread(sweep: Sweep) -> str:
    """How much the implementation matters, beside the technique."""
    n, case = sweep.last
    parts = []
    for technique in sweep.techniques:
        found = [r for r in case.passed if r.technique == technique]
        if len(found) > 1:
            factor = found[-1].figures["latency"].value / found[0].figures["latency"].value
            parts.append(f"{digits(factor)} ({technique})")
    if not parts:
        return f"At {tokens(n)} each technique has one implementation with a latency."
    return f"At {tokens(n)}, slowest over fastest implementation of a technique: {listed(parts)}."


def grid_of_best(sweep: Sweep, shown: list[str]) -> Html:
    """Techniques by lengths: the fastest implementation and its latency."""
    rows = []
    for technique in shown:
        found = dict(sweep.best(technique))
        cells = [
            number(join(full(found[n].figures["latency"], "ns"), tag("small", found[n].implementation, class_="under")))
            if n in found
            else number(DASH)
            for n in sweep.lengths
        ]
        rows.append(row([technique, *cells]))
    return table(["Technique", *(f">{length(n)}" for n in sweep.lengths)], rows)


def grid(sweep: Sweep, label: str = "Table") -> Html:
    """Every contender by every length; bars compare within a length, the fastest is bold, failures carry a word."""
    everyone = {r.contender: r for _, case in sweep.points for r in case.records}
    ran = {r.contender for _, case in sweep.points for r in case.records if r.status != "unavailable"}
    records = {(n, r.contender): r for n, case in sweep.points for r in case.records}
    best = {n: case.passed[0] for n, case in sweep.points if case.passed}
    rows = []
    for name in sorted(ran, key=lambda name: (name.split("/")[0], fastest(sweep, name), name)):
        cells = [grid_cell(records.get((n, name)), best.get(n)) for n in sweep.lengths]
        rows.append(row([contender_name(sweep.view, everyone[name]), *cells]))
    heads = tag(
        "tr",
        tag("th", "Contender", scope="col"),
        [tag("th", tag("a", length(n), href=link(page_of(c.id))), scope="col", class_="n") for n, c in sweep.points],
    )
    body = tag("table", tag("thead", heads), tag("tbody", rows), class_="grid")
    box = tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=label)
    words = "Bars: speed beside the fastest at that length, which is bold. A length leads to its case."
    return join(box, tag("p", words, class_="note"), absentees([r for n, r in everyone.items() if n not in ran]))


def absentees(records: list[Record]) -> Html | None:
    """Contenders that could run at no length, by reason."""
    reasons: dict[str, list[str]] = {}
    for record in records:
        reasons.setdefault(record.reason or "", []).append(record.contender)
    items = [tag("li", tag("b", ", ".join(names)), f": {reason}") for reason, names in reasons.items()]
    return tag("details", tag("summary", "Could not run here"), tag("ul", items, class_="failures")) if items else None


def fastest(sweep: Sweep, name: str) -> float:
    """Mean latency of a contender over its technique's best, for ordering; without any latency last."""
    found = [
        r.figures["latency"].value / best.figures["latency"].value
        for _, case in sweep.points
        for r in case.passed
        if r.contender == name and (best := case.best(r.technique)) is not None
    ]
    return sum(found) / len(found) if found else math.inf


def grid_cell(record: Record | None, best: Record | None) -> Cell:
    """Latency with a bar (longer is faster), or the status with its reason as a tooltip."""
    if record is None:
        return number(tag("span", "", class_="quiet"))
    if "latency" not in record.figures or best is None:
        word = "no latency" if record.status == "passed" else status_words(record.status)
        return number(tag("span", word, class_=f"why {record.status}"), note=record.reason)
    figure = record.figures["latency"]
    share = best.figures["latency"].value / figure.value
    text = show(figure.value, "ns")
    return number(tag("b", text) if record is best else text, share, note=interval(figure, "ns") or None)


def across(word: str, found: Mapping[str, Figure], look: Look, unit: str = "ratio") -> Trace:
    """A series with a value a named row and its interval along the row."""
    figures = list(found.values())
    words = [f"{name}, {word}: {full(figure, unit)}" for name, figure in found.items()]
    trace = line(word, [f.value for f in figures], [0.0] * len(figures), look, words)
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [rounded((f.high if f.high is not None else f.value) - f.value) for f in figures],
        "arrayminus": [rounded(f.value - (f.low if f.low is not None else f.value)) for f in figures],
        "thickness": 1.5,
        "width": 4,
        "color": look.colour,
    }
    own = {"x": [rounded(f.value) for f in figures], "y": [html.escape(n) for n in found], "error_x": bars}
    return {**trace, **own, "mode": "markers", "marker": {**trace["marker"], "size": 9}}
