"""What the layer is made of: routing, permuting and the experts' products as shares of the layer's time."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, full, listed, show, some

from .. import facts, lines
from ..figure import Plot, marks, named_axis, rounded
from ..markup import Html, tag
from ..palette import HUES
from ..table import number, row, table
from ..view import View, link, page_of
from .cases import FORWARD, INNER, MIXTURE, ROUTER, capped, name, of, routing, skew, tokens, variant

ROWS = 18
HUE = dict(zip(INNER, (HUES[4], HUES[5], HUES[3], HUES[2]), strict=True))


@dataclass(frozen=True)
class Piece:
    """The fastest implementation of one inner operation, and of the layer with the same tokens, None without one."""

    case: facts.Case
    record: Record
    layer: facts.Case | None

    @property
    def whole(self) -> Record | None:
        """The fastest mixture of that layer."""
        return self.layer.best(MIXTURE) if self.layer else None

    def share(self, metric: str = "latency") -> float | None:
        """A time of this operation over the layer's latency."""
        value, layer = self.record.value(metric), self.whole
        return value / layer.figures["latency"].value if value is not None and layer is not None else None


def pieces(view: View) -> list[Piece]:
    """Inner cases with a latency, those of one layer together: larger numbers of tokens first, in the layer's order."""
    layers = [case for case in of(view, FORWARD) if case.best(MIXTURE) is not None]
    found = []
    for case in of(view, INNER):
        best = case.best(MIXTURE)
        if best is not None:
            layer = next((one for strict in (True, False) for one in layers if within(case, one, strict)), None)
            found.append(Piece(case, best, layer))

    def rank(piece: Piece) -> tuple[bool, str, float, float, int]:
        layer = (piece.layer or piece.case).first
        return piece.layer is None, layer.model, -(tokens(layer) or 0), skew(layer), INNER.index(piece.record.operation)

    return sorted(found, key=rank)


def within(inner: facts.Case, layer: facts.Case, strict: bool) -> bool:
    """Whether a layer has the inner case's tokens, routing and model; a model's router also serves its slices."""
    a, b = inner.first, layer.first
    if (tokens(a), routing(a), variant(a)) != (tokens(b), routing(b), variant(b)):
        return False
    return a.model == b.model or (not strict and a.operation in ROUTER and b.model.startswith(f"{a.model}-"))


def inner_plot(view: View) -> Plot | None:
    """Bars of shares with the floors as marks; None where no inner operation has a latency."""
    found = pieces(view)
    sized = [(piece, share) for piece in found if (share := piece.share()) is not None]
    if not found:
        return None
    shown = sized[:ROWS]
    labels = [name(piece.case) for piece, _ in shown]
    traces = []
    for operation in INNER:
        kept = [(label, p, s) for label, (p, s) in zip(labels, shown, strict=True) if p.record.operation == operation]
        if kept:
            traces.append(bars(operation, kept))
    floors = [(label, v) for label, (p, _) in zip(labels, shown, strict=True) if (v := p.share("floor")) is not None]
    if floors:
        words = [f"{label}: floor {show(value, 'share')} of the layer's time" for label, value in floors]
        traces.append(marks("floor", [v for _, v in floors], [n for n, _ in floors], words, size=20))
    layout = {
        "xaxis": {"title": {"text": "Share of the layer's time"}, "tickformat": ".0%", "rangemode": "tozero"},
        "yaxis": named_axis(labels),
        "hovermode": "closest",
        "barmode": "overlay",
    }
    heads = ["Case", "Implementation", ">Latency", ">Floor", "Layer", ">Its latency", ">Share"]
    return Plot(
        "inner",
        "Inner operations as shares of the layer's time",
        told(sized),
        traces,
        layout,
        table(heads, capped([piece_row(view, piece) for piece in found])),
        note=NOTE + rest(found, sized, shown),
        height=160 + 30 * len(shown),
    )


NOTE = (
    "The fastest mixture of each operation over the fastest layer of the same model, tokens and routing. Shares need "
    "not add up to one: a layer may fuse what is measured apart here, and has the shared experts besides. Select is "
    "the part of route that follows the logits."
)


def rest(found: Sequence[Piece], sized: Sequence[object], shown: Sequence[object]) -> str:
    """What is in the table alone."""
    apart = len(found) - len(sized)
    whole = any(piece.layer and piece.layer.first.model != piece.record.model for piece in found)
    words = [f" In the table: {some(len(sized) - len(shown), 'more row')}."] if len(sized) > len(shown) else []
    if whole:
        words.append(" A slice's router is measured over all experts of its model.")
    if apart:
        words.append(f" {some(apart, 'case')} without a layer of as many tokens: in the table only.")
    return "".join(words)


def bars(operation: str, kept: Sequence[tuple[str, Piece, float]]) -> dict[str, object]:
    """One operation's bars."""
    texts = [f"{label}: {show(s, 'share')}, {full(p.record.figures['latency'], 'ns')} ({p.record.contender})"
             for label, p, s in kept]  # fmt: skip
    return {
        "type": "bar",
        "orientation": "h",
        "name": operation.split(".")[1],
        "y": [html.escape(label) for label, _, _ in kept],
        "x": [rounded(s) for _, _, s in kept],
        "width": 0.6,
        "marker": {"color": HUE[operation]},
        "text": [html.escape(text) for text in texts],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def piece_row(view: View, piece: Piece) -> Html:
    """An inner case beside its layer."""
    share, layer = piece.share(), piece.layer
    shown = [number(full(piece.record.figures["latency"], "ns")), number(view.show(piece.record, "floor"))]
    twin = tag("a", name(layer), href=link(page_of(layer.id))) if layer else "none measured"
    latency = full(piece.whole.figures["latency"], "ns") if piece.whole else DASH
    cells = [number(latency), number(show(share, "share") if share is not None else DASH, share)]
    return row([tag("a", name(piece.case), href=link(page_of(piece.case.id))), piece.record.contender, *shown, twin,
                *cells])  # fmt: skip


def told(sized: Sequence[tuple[Piece, float]]) -> str:
    """The shares within the first layer."""
    if not sized:
        return "No layer was measured with the tokens of an inner operation, so there are no shares to state."
    layer = sized[0][0].layer
    assert layer is not None
    parts = [f"{p.record.operation.split('.')[1]} {show(s, 'share')}" for p, s in sized if p.layer is layer]
    at = f"{layer.first.model}, {lines.tokens(tokens(layer.first) or 0)}"
    return f"Of the fastest layer's time ({at}): {listed(parts)}."
