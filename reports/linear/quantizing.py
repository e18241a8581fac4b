"""What quantizing costs: the training layer's time taken apart, and each quantizer beside a copy of as many bytes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Figure, Record
from harness.units import digits, show, some

from .. import facts
from ..figure import Plot, Trace, log_axis, named_axis, reference_line, rounded
from ..lines import across
from ..markup import Html
from ..palette import HUES, MARKERS, Look
from ..table import Cell, number, row, table
from ..view import View, mapping, plain
from .cases import (
    BF16,
    FP8,
    PRODUCTS,
    QUANTIZE,
    SIZES,
    TECHNIQUES,
    TRAIN,
    capped,
    emulated,
    linked,
    of,
    plainest,
    size,
    unquantized,
)

LAYERS, ROWS = 5, 22
REST = "quantizing and the rest"
HUE = dict(zip((*PRODUCTS, REST), (HUES[2], HUES[5], HUES[0], HUES[3]), strict=True))


@dataclass(frozen=True)
class Apart:
    """One technique's layer in training and the best of each product with the same sizes, by operation."""

    case: facts.Case
    layer: Record
    products: dict[str, Record]

    @property
    def alone(self) -> float:
        """Nanoseconds of the three products measured alone."""
        return sum(record.figures["latency"].value for record in self.products.values())

    @property
    def whole(self) -> float:
        """Nanoseconds of the layer."""
        return self.layer.figures["latency"].value

    @property
    def share(self) -> float:
        """What of the layer's time its products alone would not take; none where they take longer."""
        return max(0.0, 1 - self.alone / self.whole)

    @property
    def parts(self) -> dict[str, float]:
        """Nanoseconds of each product and of what is left."""
        found = {operation: record.figures["latency"].value for operation, record in self.products.items()}
        return {**found, REST: self.whole * self.share}


def layers(view: View) -> list[dict[str, Apart]]:
    """Layers in training whose three products were measured with the same sizes: by technique, larger ones first."""
    products = {(c.first.operation, *key(c)): c for c in plainest(of(view, *PRODUCTS))}
    found = []
    for case in (one for one in plainest(of(view, TRAIN)) if None not in key(one)):
        here = [products.get((operation, *key(case))) for operation in PRODUCTS]
        sides: dict[str, Apart] = {}
        for technique in (BF16, *TECHNIQUES):
            layer, parts = case.best(technique), [one.best(technique) if one else None for one in here]
            known = {o: record for o, record in zip(PRODUCTS, parts, strict=True) if record is not None}
            if layer is not None and len(known) == len(PRODUCTS):
                sides[technique] = Apart(case, layer, known)
        if BF16 in sides and len(sides) > 1:
            found.append(sides)
    return sorted(found, key=lambda sides: -(sides[BF16].case.first.value("flops") or 0.0))


def key(case: facts.Case) -> tuple[object, ...]:
    """Model and sizes."""
    return case.first.model, *(size(case.first, part) for part in SIZES), mapping(case.first.shape).get("dtype")


def parts_plot(view: View) -> Plot | None:
    """Stacked bars: three products and the rest, each layer's time without FP8 as one; None without such layers."""
    found = layers(view)
    if not found:
        return None
    base, shown = unquantized(view), found[:LAYERS]
    bars = [(label(side, t, base), side, sides[BF16].whole) for sides in shown for t, side in sides.items()]
    traces = [stacked(part, bars) for part in (*PRODUCTS, REST)]
    layout = {
        "xaxis": {"title": {"text": f"Time over {base}'s layer"}, "rangemode": "tozero", "ticksuffix": "\u00d7"},
        "yaxis": named_axis([name for name, _, _ in bars]),
        "barmode": "stack",
        "legend": {"traceorder": "normal"},
        "hovermode": "closest",
    }
    note = "Whole layers in training, forward and backward, each with the best of its three products measured alone at "
    note += "the same sizes; the rest is what is left of the layer: quantizing, transposing, rounding, launches. Where "
    note += "the products alone take longer than the layer, no rest is drawn."
    note += " FP8 is emulated here: widening its operands is in the products." if emulated_layers(found) else ""
    note += f" In the table: {some(len(found) - LAYERS, 'more layer')}." if len(found) > LAYERS else ""
    return Plot(
        "parts",
        "A training layer's time, taken apart",
        paid(found[0], base),
        traces,
        layout,
        parts_table(found, base),
        note=note,
        height=150 + 30 * len(bars),
    )


def emulated_layers(found: Sequence[dict[str, Apart]]) -> bool:
    """Whether any FP8 layer is an emulation."""
    return any(emulated(side.layer) for sides in found for technique, side in sides.items() if technique != BF16)


def label(side: Apart, technique: str, base: str) -> str:
    """A bar's name: sizes and technique."""
    rows, outs, ins = (f"{size(side.case.first, part) or 0:.0f}" for part in SIZES)
    return f"m{rows} n{outs} k{ins} {base.lower() if technique == BF16 else technique}"


def stacked(part: str, bars: Sequence[tuple[str, Apart, float]]) -> Trace:
    """One part of every bar."""
    word = part.split(".", 1)[-1]
    texts = [f"{name}, {word}: {show(side.parts[part], 'ns')}" for name, side, _ in bars]
    return {
        "type": "bar",
        "orientation": "h",
        "name": word,
        "y": [html.escape(name) for name, _, _ in bars],
        "x": [rounded(side.parts[part] / whole) for _, side, whole in bars],
        "width": 0.65,
        "marker": {"color": HUE[part]},
        "text": [html.escape(text) for text in texts],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def paid(sides: dict[str, Apart], base: str) -> str:
    """The largest layer: what FP8 gains in the products and what is left of it in the layer."""
    technique = FP8 if FP8 in sides else next(t for t in sides if t != BF16)
    own, other = sides[technique], sides[BF16]
    text = f"In the largest layer {technique} spends {show(own.share, 'share')} of its time outside the products "
    text += f"({base}: {show(other.share, 'share')}): the products alone take {show(own.alone / other.alone, 'ratio')} "
    return f"{text}{base}'s time, the layer {show(own.whole / other.whole, 'ratio')}."


def parts_table(found: Sequence[dict[str, Apart]], base: str) -> Html:
    """Layers by technique: products, layer, rest, and the speed-up with and without it."""
    rows = []
    for sides in found:
        other = sides[BF16]
        for technique, side in sides.items():
            times = [number(show(side.products[o].figures["latency"].value, "ns")) for o in PRODUCTS]
            ratios = [number(show(value, "ratio")) for value in (side.alone / other.alone, side.whole / other.whole)]
            rest = [number(show(side.whole, "ns")), number(show(side.share, "share"), side.share)]
            rows.append(row([linked(side.case), base.lower() if technique == BF16 else technique, *times, *rest,
                             *ratios]))  # fmt: skip
    heads = [*(f">{o.split('.')[1]}" for o in PRODUCTS), ">Layer", ">Not in products"]
    return table(["Layer", "Technique", *heads, f">Products over {base}", f">Layer over {base}"], capped(rows))


def answer(view: View) -> str | None:
    """The share of the largest FP8 layer that is not in its products."""
    found = [sides for sides in layers(view) if FP8 in sides]
    if not found:
        return None
    side = found[0][FP8]
    return f"In the largest training layer {show(side.share, 'share')} of FP8's time is outside the three products."


def quantizer_plot(view: View) -> Plot | None:
    """Bytes a second of the best quantizer of each technique over the rate of a copy; None without either."""
    copied = plain(mapping(view.run.header.ceilings).get("copy_bandwidth"))
    found = [(case, ratios) for case in of(view, QUANTIZE) if copied and (ratios := shares(case, copied))]
    if not found:
        return None
    shown = found[:ROWS]
    traces, drawn = [], [1.0]
    for technique, title in {**dict.fromkeys(TECHNIQUES), BF16: f"{unquantized(view)}, not quantized"}.items():
        figures = {form(case): rates[technique][1] for case, rates in shown if technique in rates}
        if figures:
            hue = view.palette.hue("linear", technique)
            look = Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)
            traces.append(across(title or technique, figures, look, "share"))
            drawn += [figure.value for figure in figures.values()]
    layout = {
        "xaxis": log_axis("Rate over a copy's", drawn, "share"),
        "yaxis": named_axis([form(case) for case, _ in shown]),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    note = "A quantizer must read its input and write payload and scales once: those bytes over its time, beside the "
    note += "rate of a copy measured in this run (the line). Small inputs lie in caches and may exceed it. Fused forms "
    note += "also without quantizing: what it adds to them."
    note += f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        "quantizers",
        "Quantizers beside a copy",
        quickest(found),
        traces,
        layout,
        quantizer_table(view, found),
        note=note,
        height=170 + 28 * len(shown),
    )


def form(case: facts.Case) -> str:
    """What is quantized how: `m4096-c7168-tiles`."""
    return case.first.sizes.removesuffix("-fp32")


def shares(case: facts.Case, copied: float) -> dict[str, tuple[Record, Figure]]:
    """The best of each technique, and its bytes a second over a copy's."""
    found = {}
    for technique in (*TECHNIQUES, BF16):
        best = case.best(technique)
        moved, latency = (best.value("bytes"), best.figures["latency"]) if best else (None, None)
        if best and moved and latency:
            ends = [1e9 * moved / end / copied if end else None for end in (latency.high, latency.low)]
            found[technique] = best, Figure(1e9 * moved / latency.value / copied, *ends)
    return found


def quickest(found: Sequence[tuple[facts.Case, dict[str, tuple[Record, Figure]]]]) -> str:
    """The range of fine-grained quantizers."""
    ranked = sorted((rates[FP8][1].value, form(case)) for case, rates in found if FP8 in rates)
    if not ranked:
        return "No quantizer to tiles or blocks has a latency."
    (least, worst), (most, best) = ranked[0], ranked[-1]
    if least == most:
        return f"The quantizer of {best} moves its bytes at {show(most, 'share')} of a copy's rate."
    return f"Fine-grained quantizers move their bytes at {show(least, 'share')} ({worst}) to {show(most, 'share')} " \
        f"({best}) of a copy's rate."  # fmt: skip


def quantizer_table(view: View, found: Sequence[tuple[facts.Case, dict[str, tuple[Record, Figure]]]]) -> Html:
    """Every case and technique."""
    rows = []
    for case, rates in found:
        for technique, (record, figure) in rates.items():
            cells: list[Cell] = [view.cell(record, name) for name in ("latency", "bytes", "byte_rate")]
            share = number(f"{digits(100 * figure.value)} %", figure.value)
            rows.append(row([linked(case), technique, record.implementation, *cells, share]))
    return table(["Case", "Technique", "Implementation", ">Latency", ">Least bytes", ">Byte rate", ">Over a copy"],
                 capped(rows))  # fmt: skip
