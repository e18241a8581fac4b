"""How fast: rates of the forward product over rows, and the time of every product over that without FP8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.record import Figure, Record
from harness.units import DASH, full, length, listed, show, some

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, named_axis, reference_line
from ..lines import across, hue_look
from ..markup import Html
from ..palette import HUES, MARKERS, Look
from ..sweep import Sweep
from ..table import Cell, number, row, table
from ..view import View
from .cases import (
    BF16,
    FP8,
    GROUPED,
    PRODUCTS,
    TECHNIQUES,
    TRAIN,
    capped,
    emulated,
    has_fp8,
    linked,
    name,
    of,
    over,
    percent,
    size,
    span,
    unquantized,
)

ROWS = 22
SET_ASIDE = " Contenders that emulate FP8 are no part of this: they are slow, and there to be right."
EMULATION = " Here FP8 is emulated: its operands are widened first, so it can only lose."
Found = list[tuple[facts.Case, dict[str, Figure]]]


def rate_plot(sweep: Sweep, name_: str) -> Plot:
    """FLOP/s of the fastest implementation of each technique over rows, dotted what the machine allows it."""
    shown = sweep.techniques[: MAX_SERIES // 2]
    traces: list[Trace] = []
    for technique in shown:
        found = [(n, r, rate) for n, r in sweep.best(technique) if (rate := r.value("flop_rate")) is not None]
        if found:
            traces.append(rates(technique, found, hue_look(sweep, technique)))
    for technique in shown:
        bounds = [(n, bound) for n, r in sweep.best(technique) if (bound := allowed(r)) is not None]
        if bounds:
            look = Look(sweep.view.palette.hue("linear", technique), "dot", "circle", 0.7)
            words = [f"{technique}, floor at {length(n)} rows: {show(v, 'FLOP/s')}" for n, v in bounds]
            trace = line(f"{technique} floor", [n for n, _ in bounds], [v for _, v in bounds], look, words)
            traces.append(trace | {"mode": "lines", "line": trace["line"] | {"width": 1.2}})
    drawn = [y for trace in traces for y in trace["y"]]
    layout = {
        "xaxis": length_axis(sweep.lengths, "Rows (tokens)"),
        "yaxis": log_axis("Rate", drawn, "FLOP/s"),
        "hovermode": "closest",
    }
    note = (
        "The fastest implementation of each technique, from operands that are quantized already. Dotted: the rate at "
    )
    note += "the floor, from bandwidth and matrix rate measured in this run; none where the machine has no such rate."
    return Plot(name_, f"Forward product over rows, {sweep.title}", fastest(sweep), traces, layout,
                rate_table(sweep, shown), note=note)  # fmt: skip


def rates(technique: str, found: Sequence[tuple[float, Record, float]], look: Look) -> Trace:
    """A technique's rates, with the latency's interval turned into one of rates."""
    words = [f"{r.contender} at {length(n)} rows: {show(v, 'FLOP/s')}" for n, r, v in found]
    latencies = [r.figures["latency"] for _, r, _ in found]
    low = [v * f.value / f.high if f.high else None for (_, _, v), f in zip(found, latencies, strict=True)]
    high = [v * f.value / f.low if f.low else None for (_, _, v), f in zip(found, latencies, strict=True)]
    return line(technique, [n for n, _, _ in found], [v for _, _, v in found], look, words, low, high)


def allowed(record: Record) -> float | None:
    """The rate at its floor."""
    flops, floor = record.value("flops"), record.value("floor")
    return 1e9 * flops / floor if flops and floor else None


def fastest(sweep: Sweep) -> str:
    """The rates at the most rows."""
    n, case = sweep.last
    parts = [
        f"{show(rate, 'FLOP/s')} ({best.contender})"
        for technique in sweep.techniques
        if (best := case.best(technique)) is not None and (rate := best.value("flop_rate")) is not None
    ]
    if not parts:
        return f"At {length(n)} rows no rate was recorded."
    return f"At {length(n)} rows the best of each technique: {listed(parts)}."


def rate_table(sweep: Sweep, shown: Sequence[str]) -> Html:
    """Techniques by rows: rate, implementation, share of the floor."""
    rows = []
    for technique in shown:
        for n, record in sweep.best(technique):
            cells: list[Cell | str] = [
                record.implementation,
                *(sweep.view.cell(record, m) for m in ("latency", "flop_rate", "floor")),
            ]
            share = record.value("floor_share")
            last = number(show(share, "share"), share) if share is not None else number(DASH)
            rows.append(row([technique, number(length(n)), *cells, last]))
    heads = ["Technique", ">Rows", "Implementation", ">Latency", ">Rate", ">Floor", ">Share of floor"]
    return table(heads, capped(rows))


def compared(view: View, operations: Sequence[str]) -> Found:
    """Cases in which FP8 and what it replaces both have a latency: by operation, larger ones first."""
    found = [(case, over(view, case)) for case in of(view, *operations)]

    def rank(item: tuple[facts.Case, dict[str, Figure]]) -> tuple[int, float]:
        return operations.index(item[0].first.operation), -(item[0].first.value("flops") or 0.0)

    return sorted([(case, ratios) for case, ratios in found if ratios], key=rank)


def product_plot(view: View) -> Plot | None:
    """Products and whole layers in training, FP8's time over that without."""
    return ratio_plot(view, (*PRODUCTS, TRAIN), "products", "FP8's time over {}'s, product by product")


def grouped_plot(view: View) -> Plot | None:
    """Grouped products, the same."""
    return ratio_plot(view, GROUPED, "grouped-products", "FP8's time over {}'s, grouped products of experts")


def ratio_plot(view: View, operations: Sequence[str], name_: str, title: str) -> Plot | None:
    """A mark a technique in each case; None where nothing was compared."""
    found = compared(view, operations)
    if not found:
        return None
    base, shown = unquantized(view), found[:ROWS]
    traces, drawn = [], [1.0]
    for technique in TECHNIQUES:
        figures = {name(case): ratios[technique] for case, ratios in shown if technique in ratios}
        if figures:
            hue = view.palette.hue("linear", technique)
            look = Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)
            traces.append(across(technique, figures, look))
            drawn += [figure.value for figure in figures.values()]
    layout = {
        "xaxis": log_axis(f"FP8 over {base}", drawn, "ratio"),
        "yaxis": named_axis([name(case) for case, _ in shown]),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    note = f"Left of the line FP8 is faster than {base}. The best implementation of each, ratios from rounds in which "
    note += "both were measured; the whisker is the 95 % interval. Products get operands that are quantized already"
    note += "; train, a whole layer forward and backward, quantizes them itself." if TRAIN in operations else "."
    note += EMULATION if any_emulated(found) else ""
    note += SET_ASIDE if has_fp8(view) else ""
    note += f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        name_,
        title.format(base),
        spread(found, base),
        traces,
        layout,
        ratio_table(view, found, base),
        note=note,
        height=170 + 26 * len(shown),
    )


def any_emulated(found: Found) -> bool:
    """Whether a technique's best is an emulation in any of the cases."""
    best = [record for case, ratios in found for t in ratios if (record := case.best(t)) is not None]
    return any(map(emulated, best))


def ratio_table(view: View, found: Found, base: str) -> Html:
    """Case by case: latency without and with FP8, share of the floor, ratios."""
    rows = []
    for case, ratios in found:
        cells: list[Cell] = []
        for technique in (BF16, FP8):
            best = case.best(technique)
            cells.append(view.cell(best, "latency") if best else number(DASH))
            share = best.value("floor_share") if best else None
            cells.append(number(show(share, "share") if share is not None else DASH, share))
        cells += [number(full(ratios[t], "ratio") if t in ratios else DASH) for t in TECHNIQUES]
        rows.append(row([linked(case), *cells]))
    heads = [f">{base}", ">of floor", ">fp8", ">of floor", *(f">{t} over {base}" for t in TECHNIQUES)]
    return table(["Case", *heads], capped(rows))


def spread(found: Found, base: str) -> str:
    """In how many cases each technique is ahead, and the range."""
    parts = []
    for technique in TECHNIQUES:
        ratios = [ratios[technique].value for _, ratios in found if technique in ratios]
        if ratios:
            ahead = sum(value < 1 for value in ratios)
            parts.append(f"{technique} {span(ratios)}, ahead in {ahead} of {len(ratios)}")
    return f"Times over {base}'s: {'; '.join(parts)}."


def answer(view: View) -> str | None:
    """How much faster fine-grained FP8 is: products, then whole layers; None where they were not compared."""
    base = unquantized(view)
    products = [r[FP8].value for _, r in compared(view, PRODUCTS) if FP8 in r]
    layers = [r[FP8].value for _, r in compared(view, (TRAIN,)) if FP8 in r]
    told = [
        f"{show(float(np.median(found)), 'ratio')} the time of {base}{where}"
        + (f" ({span(found)} in {len(found)} cases)" if len(found) > 1 else "")
        for found, where in (
            (products, " in the products"),
            (layers, " in a whole training layer, quantizing included"),
        )
        if found
    ]
    if not told:
        return None
    if any_emulated(compared(view, (*PRODUCTS, TRAIN))):
        return (
            f"Not on this machine, whose FP8 is emulated: fine-grained FP8 takes {listed(told)}; what carries over is "
            "its bytes and its errors."
        )
    where = "On this GPU" if view.on_gpu else "On this CPU"
    return f"{where} fine-grained FP8 takes {listed(told)}."


def busiest(view: View) -> facts.Case | None:
    """The largest forward product in which FP8 was compared."""
    found = [case for case, _ in compared(view, PRODUCTS[:1])]
    return max(found, key=lambda case: case.first.value("flops") or size(case.first, "rows") or 0.0, default=None)


def tradeoff_plot(view: View) -> Plot | None:
    """Error against speed of every FP8 contender of the largest forward product; None where it has no error."""
    case = busiest(view)
    base = case.best(BF16) if case else None
    if case is None or base is None:
        return None
    drawn = [(r, ratio, error) for r in case.passed if r.technique in TECHNIQUES
             if (ratio := view.ratio(r, base)) and (error := whole_error(r)) is not None]  # fmt: skip
    if not drawn:
        return None
    traces = []
    for technique in TECHNIQUES:
        found = [(r, ratio, error) for r, ratio, error in drawn if r.technique == technique]
        if found:
            hue = view.palette.hue("linear", technique)
            look = Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)
            words = [f"{r.contender}: {full(ratio, 'ratio')}, error {percent(error)}" for r, ratio, error in found]
            trace = line(technique, [ratio.value for _, ratio, _ in found], [e for _, _, e in found], look, words)
            traces.append(trace | {"mode": "markers", "marker": {**trace["marker"], "size": 10}})
    rows = [row([r.contender, number(full(ratio, "ratio")), number(percent(e)), view.cell(r, "error")])
            for r, ratio, e in drawn]  # fmt: skip
    layout = {
        "xaxis": log_axis(f"Time over {unquantized(view)}", [1.0, *(ratio.value for _, ratio, _ in drawn)], "ratio"),
        "yaxis": log_axis("Relative error of the output", [error for _, _, error in drawn], "share"),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    return Plot(
        "tradeoff",
        f"Error against speed, {name(case)}",
        nearest(drawn, unquantized(view)),
        traces,
        layout,
        table(["Contender", f">Time over {unquantized(view)}", ">Error in all", ">Of the product alone"], rows),
        note="One mark a contender. The error joins that of quantizing Gaussian operands, computed in FP64, with the "
        "contender's own, measured against the product of what its operands stand for; by their squares.",
    )


def whole_error(record: Record) -> float | None:
    """The error of quantizing and the contender's own together."""
    quantizing, own = record.value("quantization_error"), record.value("error")
    return None if quantizing is None else float(np.hypot(quantizing, own or 0.0))


def nearest(drawn: Sequence[tuple[Record, Figure, float]], base: str) -> str:
    """The fastest and the most exact."""
    fast = min(drawn, key=lambda item: item[1].value)
    exact = min(drawn, key=lambda item: item[2])
    text = f"The fastest, {fast[0].contender}, takes {show(fast[1].value, 'ratio')} {base}'s time at an error of "
    text += percent(fast[2])
    return f"{text}; the most exact, {exact[0].contender}, errs by {percent(exact[2])}."
