"""MLA's latency over MHA's, the best implementation of each: over length where there is a sweep, else case by case."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.record import Figure
from harness.units import DASH, full, length, show, some

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, named_axis, reference_line, rounded
from ..lines import PLAIN_HUES, across
from ..markup import tag
from ..palette import HUES, INK, MARKERS, Look
from ..table import number, row, table
from ..view import link, page_of
from .lines import axis_title
from .sweep import Sweep, crossover, roughly

ROWS = 24
AXIS = "MLA over MHA; below 1\N{MULTIPLICATION SIGN}: faster"
FAIR = (
    "The best implementation of each; ratios from rounds in which both were measured, unless they were timed apart. "
    "The whisker is the 95 % interval."
)
Ratios = dict[str, tuple[facts.Case, Figure]]


def ratio_plot(sweeps: Sequence[Sweep], left_out: int = 0) -> Plot:
    """MLA over MHA against length: below the line MLA is ahead."""
    traces: list[Trace] = []
    rows, values, lengths = [], [1.0], []
    for i, sweep in enumerate(sweeps[:MAX_SERIES]):
        kernel = sweep.operation.endswith("_kernel")
        title = f"{'kernel' if kernel else 'layer'} · {sweep.title}"
        look = Look(PLAIN_HUES[i % len(PLAIN_HUES)], "dashdot" if kernel else "solid", MARKERS[i % len(MARKERS)], 1.0)
        figures = [f for _, f in sweep.ratios]
        words = [f"{title} at {length(n)}: {full(f, 'ratio')}" for n, f in sweep.ratios]
        ends = ([f.value for f in figures], look, words, [f.low for f in figures], [f.high for f in figures])
        traces.append(line(title, [n for n, _ in sweep.ratios], *ends))
        values += [f.value for f in figures]
        lengths += [n for n, _ in sweep.ratios]
        sentence = crossover([(n, f.value) for n, f in sweep.ratios]).sentence
        told = ", ".join(f"{length(n)}: {full(f, 'ratio')}" for n, f in sweep.ratios)
        rows.append(row([title, f"{sentence}.", told]))
    first = sweeps[0]
    found = crossover([(n, f.value) for n, f in first.ratios])
    layout = {
        "xaxis": length_axis(lengths, axis_title(first)),
        "yaxis": log_axis(AXIS, values, "ratio"),
        "hovermode": "closest",
        **reference_line(1.0),
    }
    if found.tokens is not None:
        layout["annotations"] = [mark(found.tokens)]
    return Plot(
        "mla-over-mha",
        "MLA over MHA against length",
        f"{first.title}: {found.sentence}.",
        traces,
        layout,
        table(["Sweep", "Crossover", "Ratios"], rows, class_="prose"),
        note=f"{FAIR} In the tables below: {some(left_out, 'more sweep')}." if left_out else FAIR,
    )


def mark(tokens: float) -> dict[str, object]:
    """An arrow at the crossover."""
    return {
        "x": rounded(math.log10(tokens)),
        "y": 0,
        "text": f"≈ {length(roughly(tokens))}",
        "showarrow": True,
        "arrowhead": 0,
        "ax": 34,
        "ay": -30,
    }


def cases_plot(layer: Sequence[Sweep], kernel: Sequence[Sweep]) -> Plot:
    """MLA over MHA of cases that are in no sweep over length, one row a size: left of the line MLA is ahead."""
    series = {"layer": singles(layer), "inner kernel": singles(kernel)}
    pairs = [(name, figure.value) for found in series.values() for name, (_, figure) in found.items()]
    order = list(dict.fromkeys(name for name, _ in sorted(pairs, key=lambda pair: (pair[1], pair[0]))))
    shown = order[:ROWS]
    looks = {"layer": Look(INK, "solid", "circle", 1.0), "inner kernel": Look(HUES[4], "solid", "diamond", 1.0)}
    traces = [
        across(word, {n: found[n][1] for n in shown if n in found}, looks[word])
        for word, found in series.items()
        if any(n in found for n in shown)
    ]
    values = [1.0, *(x for trace in traces for x in trace["x"])]
    rows = []
    for name in order:
        case = next(found[name][0] for found in series.values() if name in found)
        cells = [number(full(found[name][1], "ratio") if name in found else DASH) for found in series.values()]
        rows.append(row([tag("a", name, href=link(page_of(case.id))), *cells]))
    return Plot(
        "mla-over-mha-cases",
        "MLA over MHA, case by case",
        summary(series["layer"] or series["inner kernel"], "layer" if series["layer"] else "inner kernel"),
        traces,
        {
            "xaxis": log_axis(AXIS, values, "ratio"),
            "yaxis": named_axis(shown),
            "hovermode": "closest",
            **reference_line(1.0, upright=True),
        },
        table(["Case", ">Layer", ">Inner kernel"], rows),
        note=f"{FAIR} In the table: {some(len(order) - ROWS, 'more case')}." if len(order) > ROWS else FAIR,
        height=150 + 26 * len(shown),
    )


def singles(sweeps: Sequence[Sweep]) -> Ratios:
    """Cases with a ratio of sweeps that have it at one length only, by model and sizes."""
    found: Ratios = {}
    for sweep in sweeps:
        if len(sweep.ratios) == 1:
            n, figure = sweep.ratios[0]
            case = dict(sweep.points)[n]
            found[f"{case.first.model}/{case.first.sizes}"] = (case, figure)
    return found


def summary(found: Ratios, word: str, other: str = "") -> str:
    """In how many cases MLA is ahead, and the range."""
    ranked = sorted((figure.value, name) for name, (_, figure) in found.items())
    (least, best), (most, worst) = ranked[0], ranked[-1]
    if len(ranked) == 1:
        return f"In {best} the MLA {word} takes {show(least, 'ratio')} MHA's time."
    ahead = sum(value < 1 for value, _ in ranked)
    spread = f"{show(least, 'ratio')} ({best}) to {show(most, 'ratio')} ({worst}) MHA's time"
    where = {0: "none", len(ranked): "all"}.get(ahead, str(ahead))
    return f"In {len(ranked)}{other} cases the MLA {word} takes {spread}, ahead in {where} of them."
