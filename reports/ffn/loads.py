"""How evenly experts are loaded: the sorted loads of a layer's case, and loads by layer after training."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import MISSING, digits, listed, some, whole

from .. import lines
from ..figure import MAX_SERIES, Plot, line, rounded
from ..lines import PLAIN_HUES
from ..markup import Html, tag
from ..palette import HUES, MARKERS, Look
from ..samples import spaced
from ..table import number, row, table
from ..view import View, link, page_of
from .cases import INNER, LAYER, MIXTURE, UNIFORM, capped, of, routing, skew, spoken, tokens, trainings, variant

CURVE_HUES = (*PLAIN_HUES, *HUES[:4])
ROWS, CELLS = 40, 5000


@dataclass(frozen=True)
class Loads:
    """Tokens of each expert, the busiest first, of a record; never without a token."""

    name: str
    record: Record
    counts: tuple[float, ...]

    @property
    def relative(self) -> list[float]:
        """Each load over the mean."""
        mean = sum(self.counts) / len(self.counts)
        return [value / mean for value in self.counts]


def clean(values: Sequence[object] | None) -> tuple[float, ...]:
    """Finite numbers of at least 0; empty if anything else is among them, or if all are 0."""
    kept = [float(v) for v in values or () if isinstance(v, (int, float)) and math.isfinite(v) and v >= 0]
    return tuple(kept) if len(kept) == len(values or ()) and sum(kept) > 0 else ()


def curves(view: View) -> list[Loads]:
    """One a model, number of tokens and routing: models and tokens with several of it first, then more tokens first."""
    found: dict[tuple[str, float, str, tuple[float, str]], Loads] = {}
    for case in of(view, (*LAYER, *INNER)):
        for record in case.records:
            counts, count = clean(record.series.get("expert_load")), tokens(record)
            if record.technique != MIXTURE or record.status != "passed" or not counts or count is None:
                continue
            title = f"{record.model}, {lines.tokens(count)}, {routing(record)}"
            key = (record.model, count, variant(record), (skew(record), routing(record)))
            found.setdefault(key, Loads(title, record, tuple(sorted(counts, reverse=True))))
    groups: dict[tuple[str, float, str], int] = {}
    for key in found:
        groups[key[:3]] = groups.get(key[:3], 0) + 1
    order = sorted(found, key=lambda key: (groups[key[:3]] == 1, -key[1], key[0], key[2], key[3]))
    return [found[key] for key in order]


def curve_plot(view: View) -> Plot | None:
    """Load over mean against the share of experts, the busiest first; None without loads."""
    found = curves(view)
    if not found:
        return None
    traces = []
    for i, item in enumerate(found[:MAX_SERIES]):
        dash = "dot" if routing(item.record) == UNIFORM else "solid"
        look = Look(CURVE_HUES[i % len(CURVE_HUES)], dash, MARKERS[i], 1.0)
        size, values = len(item.counts), item.relative
        picked = spaced(size).tolist()
        words = f"{html.escape(item.name)}: %{{x:.0%}} of experts have %{{y:.3g}} times the mean or more<extra></extra>"
        trace = line(item.name, [rounded((p + 1) / size) for p in picked], [values[p] for p in picked], look, words)
        traces.append(trace | ({"mode": "lines"} if size > 1 else {"mode": "markers"}))
    rows = [curve_row(item) for item in found]
    layout = {
        "xaxis": {"title": {"text": "Share of experts, the busiest first"}, "tickformat": ".0%", "range": [0, 1.02]},
        "yaxis": {"title": {"text": "Load over the mean"}, "rangemode": "tozero"},
        "hovermode": "closest",
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": EVEN}],
    }
    heads = ["Model, tokens, routing", ">Experts", ">Busiest over mean", ">Without a token", ">Busiest of 8 ranks"]
    more = f" In the table: {some(len(found) - MAX_SERIES, 'more curve')}." if len(found) > MAX_SERIES else ""
    return Plot(
        "sorted-loads",
        "Expert loads, sorted",
        extremes(found),
        traces,
        layout,
        table(heads, capped(rows)),
        note="Solid: skewed or recorded routing; dotted: uniform; dashed: an even load. Loads follow from the sizes "
        "alone, the same for every implementation; the busiest of 8 ranks is simulated from them, experts placed in "
        "order." + more,
    )


EVEN = {"color": HUES[6], "width": 1, "dash": "dash"}


def curve_row(item: Loads) -> Html:
    """A curve in numbers."""
    ranks = item.record.value("simulated_rank_max_over_mean")
    cells = [
        whole(len(item.counts)),
        digits(item.relative[0]),
        whole(sum(value == 0 for value in item.counts)),
        f"{digits(ranks)} (simulated)" if ranks is not None else MISSING,
    ]
    return row([tag("a", item.name, href=link(page_of(item.record.case))), *(number(text) for text in cells)])


def extremes(found: Sequence[Loads]) -> str:
    """The busiest expert of the most skewed curve, beside the same model and tokens without skew."""
    worst = max(found, key=lambda item: (skew(item.record), item.relative[0]))
    count = some(len(worst.counts), "expert")
    text = f"{worst.name}: the busiest of {count} has {digits(worst.relative[0])} times the mean"
    even = [
        item
        for item in found
        if item.record.model == worst.record.model
        and tokens(item.record) == tokens(worst.record)
        and routing(item.record) == UNIFORM
    ]
    if even and even[0] is not worst:
        return f"{text}; with uniform routing it has {digits(even[0].relative[0])} times."
    return f"{text}."


@dataclass(frozen=True)
class LayerLoads:
    """Loads over mean of one layer's experts at the end of one arm's training, in the experts' own order."""

    arm: str
    layer: int
    case: str
    relative: tuple[float, ...]

    @property
    def name(self) -> str:
        """Arm and layer."""
        return f"{self.arm}, layer {self.layer}"


def layer_loads(view: View) -> list[LayerLoads]:
    """Every layer of every arm of the first training case that has them, arms in the order measured."""
    for case in trainings(view):
        found = [item for record in case.records if record.status == "passed" for item in layers_of(record)]
        if found:
            return found
    return []


def layers_of(record: Record) -> list[LayerLoads]:
    """The layers of one arm by number."""
    found = []
    for key, values in record.series.items():
        index, counts = key.removeprefix("load_layer_"), clean(values)
        if index != key and index.isdecimal() and counts:
            mean = sum(counts) / len(counts)
            relative = tuple(value / mean for value in counts)
            found.append(LayerLoads(record.implementation, int(index), record.case, relative))
    return sorted(found, key=lambda item: item.layer)


def heat_plot(view: View) -> Plot | None:
    """Layer by expert, load over mean; None where fewer than two layers were recorded."""
    found = layer_loads(view)
    if len({item.layer for item in found}) < 2:
        return None
    width = max(len(item.relative) for item in found)
    shown = found[: max(1, min(ROWS, CELLS // width))]
    top = max(max(item.relative) for item in found)
    heat = {
        "type": "heatmap",
        "z": [[float(f"{value:.3g}") for value in item.relative] for item in reversed(shown)],
        "y": [html.escape(item.name) for item in reversed(shown)],
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": rounded(top),
        "ygap": 1,
        "colorbar": {"title": {"text": "Load over mean", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        "hovertemplate": "%{y}, expert %{x}: %{z} times the mean<extra></extra>",
    }
    rows = [heat_row(item) for item in found]
    heads = ["Arm, layer", ">Experts", ">Busiest over mean", ">Idlest over mean", ">Below a tenth of the mean"]
    more = f" In the table: {some(len(found) - len(shown), 'more row')}." if len(found) > len(shown) else ""
    layout = {
        "xaxis": {"title": {"text": "Expert"}, "showgrid": False, "zeroline": False},
        "yaxis": {"type": "category", "automargin": True, "showgrid": False},
    }
    return Plot(
        "heat",
        "Expert loads by layer after training",
        busiest(found),
        [heat],
        layout,
        table(heads, capped(rows)),
        note=f"Loads as last recorded in {found[0].case}.{more}",
        height=130 + 22 * len(shown),
    )


def heat_row(item: LayerLoads) -> Html:
    """A layer in numbers."""
    values = item.relative
    cells = [whole(len(values)), digits(max(values)), digits(min(values)), whole(sum(v < 0.1 for v in values))]
    return row([item.name, *(number(text) for text in cells)])


def busiest(found: Sequence[LayerLoads]) -> str:
    """The busiest expert of each arm over all its layers."""
    arms = by_arm(found)
    told = [f"{digits(value)} with {spoken(arm)}" for arm, value in arms.items()]
    return f"The busiest expert of any layer has this many times its layer's mean: {listed(told)}."


def by_arm(found: Sequence[LayerLoads]) -> dict[str, float]:
    """The largest load over mean of each arm."""
    arms: dict[str, float] = {}
    for item in found:
        arms[item.arm] = max(arms.get(item.arm, 0.0), *item.relative)
    return arms
