"""How wrong: quantization by technique and distribution, and what promoting partial sums buys against their length."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.record import Record
from harness.units import DASH, length, listed, some

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, named_axis
from ..lines import across
from ..markup import Html
from ..palette import HUES, MARKERS, Look
from ..table import number, row, table
from ..view import View, plain
from .cases import FP8, NUMERICS, TECHNIQUES, TRAIN, capped, linked, of, percent, powers, size, values

CURVES = {
    "accumulation_error": ("not promoted", "dash"),
    "promoted_error": ("promoted", "solid"),
    "quantization_error": ("quantizing", "dot"),
}
DRAWN = ("positive", "gaussian")
GRADIENTS = {
    "output_error": "output",
    "input_gradient_error": "gradient of activations",
    "weight_gradient_error": "gradient of the weight",
}
ERROR, ELEMENT, VANISHED = "quantization_error", "element_error", "underflow_share"


def numerics(view: View) -> list[facts.Case]:
    """One case a distribution: the longest, with scales of any value where both were measured."""
    found: dict[str, facts.Case] = {}
    ranked = sorted(of(view, NUMERICS), key=lambda c: (powers(c.first), -(size(c.first, "ins") or 0.0)))
    for case in ranked:
        found.setdefault(values(case.first), case)
    return list(found.values())


def figures(case: facts.Case, metric: str) -> dict[str, Record]:
    """A record with the metric for each FP8 technique."""
    kept = [r for r in case.records if r.technique in TECHNIQUES and r.value(metric) is not None]
    return {record.technique: record for record in reversed(kept)}


def distribution_plot(view: View) -> Plot | None:
    """Error of a product by distribution, a mark a technique; None without figures."""
    found = [(case, known) for case in numerics(view) if (known := figures(case, ERROR))]
    if not found:
        return None
    traces, drawn = [], []
    for metric, words, form in ((ERROR, "output", ""), (ELEMENT, "one activation", "-open")):
        for technique in TECHNIQUES:
            marks = {
                values(case.first): known[technique].figures[metric]
                for case, known in found
                if technique in known and known[technique].value(metric)
            }
            if marks:
                hue = view.palette.hue("linear", technique)
                look = Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)] + form, 1.0)
                traces.append(across(f"{technique}, {words}", marks, look, "share"))
                drawn += [figure.value for figure in marks.values()]
    layout = {
        "xaxis": log_axis("Relative error", drawn, "share"),
        "yaxis": named_axis([values(case.first) for case, _ in found]),
        "hovermode": "closest",
    }
    return Plot(
        "errors",
        "Error of quantizing, by distribution of the activations",
        coarse(found),
        traces,
        layout,
        distribution_table(view, found),
        note="Filled: relative Frobenius error of the exact product of quantized operands, in FP64, on a sample of 64 "
        "x 64 outputs with a fixed seed: arithmetic, the same on every machine. Open: the median error of one "
        "activation, which a norm of large elements hides. In the table also what vanishes or exceeds the format.",
        height=210 + 34 * len(found),
    )


def coarse(found: Sequence[tuple[facts.Case, dict[str, Record]]]) -> str:
    """The range of fine-grained FP8, and where coarser scales are worst beside it."""
    fine = sorted((known[FP8].figures[ERROR].value, values(case.first)) for case, known in found if FP8 in known)
    if not fine:
        return "Fine-grained FP8 has no error in this run."
    text = f"Fine-grained FP8 errs by {percent(fine[0][0])} ({fine[0][1]})"
    text += f" to {percent(fine[-1][0])} ({fine[-1][1]})" if len(fine) > 1 else ""
    worst = [
        (lost - kept, lost, kept, t, values(case.first))
        for case, known in found
        for t in known
        if FP8 in known
        and (lost := known[t].value(VANISHED)) is not None
        and (kept := known[FP8].value(VANISHED)) is not None
    ]
    more, lost, kept, technique, where = max(worst, default=(0.0, 0.0, 0.0, FP8, ""))
    if more <= 0:
        return f"{text}."
    return f"{text}; of {where} {technique} turns {percent(lost)} to zero where fine grains turn {percent(kept)}."


def distribution_table(view: View, found: Sequence[tuple[facts.Case, dict[str, Record]]]) -> Html:
    """All figures of all techniques by distribution."""
    names = (ERROR, ELEMENT, VANISHED, "saturated_share")
    rows = []
    for case, known in found:
        for technique in TECHNIQUES:
            if technique in known:
                cells = [shown(known[technique].value(name_)) for name_ in names]
                rows.append(row([linked(case), technique, *(number(text) for text in cells)]))
    heads = [">Output", ">One activation", ">Vanish", ">Saturate"]
    return table(["Case", "Technique", *heads], capped(rows))


def shown(value: float | None) -> str:
    """A share, or a dash."""
    return DASH if value is None else percent(value)


def curve(record: Record, series: str) -> list[tuple[float, float]]:
    """(length, error) of a series; empty unless every length has a positive value."""
    lengths, errors = record.series.get("k") or (), record.series.get(series) or ()
    pairs = [(plain(k), plain(e)) for k, e in zip(lengths, errors, strict=False)]
    kept = [(k, e) for k, e in pairs if k is not None and e is not None and k > 0 and e > 0 and math.isfinite(e)]
    return kept if len(kept) == len(lengths) == len(errors) else []


def curves(view: View) -> list[tuple[facts.Case, Record]]:
    """Cases of fine-grained FP8 with curves, sums of positive values first."""
    found = [(c, r) for c in numerics(view) if (r := figures(c, ERROR).get(FP8)) and curve(r, "accumulation_error")]
    order = {word: place for place, word in enumerate(DRAWN)}
    return sorted(found, key=lambda item: order.get(values(item[0].first), len(order)))


def length_plot(view: View) -> Plot | None:
    """Error of the accumulator with and without promotion against the length of the sum; None without curves."""
    found = curves(view)
    if not found:
        return None
    shown_ = found[: MAX_SERIES // len(CURVES)]
    traces: list[Trace] = []
    for place, (case, record) in enumerate(shown_):
        for series, (word, dash) in CURVES.items():
            points = curve(record, series)
            if points:
                title = f"{values(case.first)}, {word}"
                words = [f"{title}, {length(k)} summed: {percent(e)}" for k, e in points]
                look = Look(HUES[(2, 1)[place % 2]], dash, MARKERS[place], 1.0)
                traces.append(line(title, [k for k, _ in points], [e for _, e in points], look, words))
    drawn = [y for trace in traces for y in trace["y"]]
    lengths = [x for trace in traces for x in trace["x"]]
    layout = {
        "xaxis": length_axis(lengths, "Elements summed (K)"),
        "yaxis": log_axis("Relative error", drawn, "share"),
        "hovermode": "closest",
    }
    return Plot(
        "lengths",
        "Error against the length of the sum",
        promotion(found),
        traces,
        layout,
        length_table(found),
        note="Computed: an emulation of Hopper's FP8 tensor core, which aligns 32 products and its register to the "
        "largest and keeps 13 bits behind the leading one (arXiv 2505.09343); promoted: added to an FP32 sum every "
        "128. Dotted: what quantizing costs, beside which an accumulator's error matters or does not. DeepSeek-V3 "
        "states nearly 2 % at 4,096 without promotion, which 15 bits would give; how many a card keeps is for a "
        "measurement on it."
        + (f" In the table: {some(left, 'more distribution')}." if (left := len(found) - len(shown_)) > 0 else ""),
    )


def promotion(found: Sequence[tuple[facts.Case, Record]]) -> str:
    """Both errors at the longest sum of the first distribution."""
    case, record = found[0]
    plain_, promoted = curve(record, "accumulation_error")[-1], curve(record, "promoted_error")
    text = f"Over {length(plain_[0])} {values(case.first)} products the tensor core alone errs by {percent(plain_[1])}"
    if not promoted:
        return f"{text}."
    factor = plain_[1] / promoted[-1][1]
    return f"{text}; with sums promoted every 128 by {percent(promoted[-1][1])}, {factor:.3g} times less."


def length_table(found: Sequence[tuple[facts.Case, Record]]) -> Html:
    """All distributions at a few lengths."""
    rows = []
    for case, record in found:
        for series, (word, _) in CURVES.items():
            points = curve(record, series)
            picked = (
                [points[i] for i in sorted({round(p * (len(points) - 1)) for p in (0, 1 / 3, 2 / 3, 1)})]
                if points
                else []
            )
            told = ", ".join(f"{length(k)}: {percent(e)}" for k, e in picked) or DASH
            rows.append(row([linked(case), word, told]))
    return table(["Case", "Error", "At lengths"], capped(rows))


def gradients(view: View) -> Html | None:
    """Error of quantizing in the three products of training, by technique; None where no layer tells."""
    rows = []
    for case in of(view, TRAIN):
        known = figures(case, "output_error")
        for technique in TECHNIQUES:
            if technique in known:
                cells = [number(shown(known[technique].value(metric))) for metric in GRADIENTS]
                rows.append(row([linked(case), technique, *cells]))
    if not rows:
        return None
    heads = [f">{word.capitalize()}" for word in GRADIENTS.values()]
    return table(["Layer", "Technique", *heads], capped(rows), label="Error of each product in training")


def answer(view: View) -> str | None:
    """The error of Gaussian operands, and what promotion does."""
    told = []
    for case in numerics(view):
        known = figures(case, ERROR)
        if values(case.first) == "gaussian" and FP8 in known:
            others = [f"{t} {shown(known[t].value(ERROR))}" for t in known if t != FP8]
            beside = f" ({listed(others)})" if others else ""
            told.append(f"quantizing costs a Gaussian product {shown(known[FP8].value(ERROR))}{beside}")
    found = curves(view)
    if found:
        sentence = promotion(found)
        told.append(sentence[0].lower() + sentence[1:].rstrip("."))
    if not told:
        return None
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."
