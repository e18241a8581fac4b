"""What FP8 saves in bytes: weights, activations and gradients by format, and what was measured of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, show

from .. import facts
from ..markup import Html, join, tag
from ..table import Cell, number, row, table
from ..view import View
from .cases import BF16, LOSS, PRODUCTS, SIZES, TECHNIQUES, TRAIN, capped, linked, of, size, unquantized

TILE, SCALE, LAYERS = 128, 4, 4
KEPT = ((PRODUCTS[0], "resident", "weight"), (LOSS, "saved_bytes", "kept for the backward"))


def tiles(count: float) -> float:
    """Tiles of 128 that cover a length."""
    return -(-count // TILE)


@dataclass(frozen=True)
class Format:
    """Bytes of a matrix (rows, length) of activations, summed over its length, and of a weight (outs, ins)."""

    name: str
    activations: Callable[[float, float], float]
    weight: Callable[[float, float], float]


def flat(name: str, size_: int) -> Format:
    """A format without scales."""
    return Format(name, lambda rows, length: size_ * rows * length, lambda outs, ins: size_ * outs * ins)


def scaled(name: str, activations: Callable[[float, float], float], weight: Callable[[float, float], float]) -> Format:
    """A byte an element, and four for each of so many scales."""
    return Format(
        name,
        lambda rows, length: rows * length + SCALE * activations(rows, length),
        lambda outs, ins: outs * ins + SCALE * weight(outs, ins),
    )


FORMATS = (
    flat("FP32", 4),
    flat("BF16", 2),
    scaled("fp8", lambda r, n: r * tiles(n), lambda n, k: tiles(n) * tiles(k)),
    scaled("fp8-row", lambda r, n: r, lambda n, k: n),
    scaled("fp8-tensor", lambda r, n: 1, lambda n, k: 1),
)


def layers(view: View) -> list[tuple[facts.Case, tuple[float, float, float]]]:
    """Layers in training with their rows, outs and ins, once each, larger ones first; products where there are none."""
    found: dict[tuple[float, float, float], facts.Case] = {}
    for case in of(view, TRAIN) or of(view, PRODUCTS[0]):
        known = [size(case.first, part) for part in SIZES]
        rows, outs, ins = known
        if rows is not None and outs is not None and ins is not None:
            found.setdefault((rows, outs, ins), case)
    ranked = sorted(found.items(), key=lambda item: -item[0][1] * item[0][2])
    return [(case, sizes) for sizes, case in ranked]


def counted(view: View) -> Html | None:
    """Weight, activations and gradient of the output by format, of the largest layers; None without sizes."""
    rows = []
    for case, (tokens, outs, ins) in layers(view)[:LAYERS]:
        base = sum(parts(FORMATS[1], tokens, outs, ins))
        for format_ in FORMATS:
            found = parts(format_, tokens, outs, ins)
            cells = [number(show(value, "bytes")) for value in found]
            share = sum(found) / base
            cells.append(number(show(sum(found), "bytes"), min(1.0, share / 2)))
            rows.append(row([linked(case), format_.name, *cells, number(show(share, "ratio"))]))
    heads = [">Weight", ">Activations", ">Gradient of the output", ">Together", ">Over BF16"]
    return table(["Layer", "Format", *heads], rows, label="Bytes by format") if rows else None


def parts(format_: Format, rows: float, outs: float, ins: float) -> tuple[float, float, float]:
    """Bytes of weight, activations and gradient of the output, each in one orientation."""
    return format_.weight(outs, ins), format_.activations(rows, ins), format_.activations(rows, outs)


def measured(view: View) -> Html | None:
    """What implementations of the forward product hold, and what a step of training keeps; None without either.

    Cases that differ in nothing shown here, such as the rows of a product, are one row.
    """
    found: dict[tuple[object, ...], Html] = {}
    for operation, metric, what in KEPT:
        for case in of(view, operation):
            least = {t: min(known) for t in (BF16, *TECHNIQUES) if (known := sizes_of(case, t, metric))}
            if BF16 in least and len(least) > 1:
                found.setdefault((what, *least.items()), bytes_row(case, what, least))
    heads = ["Case", "What", f">{unquantized(view)}", *(f">{technique}" for technique in TECHNIQUES)]
    return table(heads, capped(list(found.values())), label="Bytes measured") if found else None


def sizes_of(case: facts.Case, technique: str, metric: str) -> list[float]:
    """The metric of a technique's contenders that passed."""
    records: list[Record] = [r for r in case.records if r.technique == technique]
    return [value for record in records if (value := record.value(metric))]


def bytes_row(case: facts.Case, what: str, least: dict[str, float]) -> Html:
    """A measured quantity by technique, with its ratio to that without FP8."""

    def cell(technique: str) -> Cell:
        if technique not in least:
            return number(DASH)
        ratio = "" if technique == BF16 else f"{show(least[technique] / least[BF16], 'ratio')}"
        return number(join(show(least[technique], "bytes"), tag("small", ratio, class_="under") if ratio else None))

    return row([linked(case), what, *(cell(technique) for technique in (BF16, *TECHNIQUES))])


def answer(view: View) -> str | None:
    """How much smaller the largest layer's operands are."""
    found = layers(view)
    if not found:
        return None
    _, sizes = found[0]
    fine, half = (sum(parts(FORMATS[place], *sizes)) for place in (2, 1))
    return (
        f"Weight, activations and gradient of a layer take {show(fine / half, 'ratio')} BF16's bytes, scales included."
    )
