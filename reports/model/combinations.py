"""The sixteen combinations: all figures of each in a table, and validation against the speed of generation."""

from __future__ import annotations

import html

from harness.record import Record
from harness.units import DASH, digits, listed, show, some

from .. import facts
from ..figure import Plot, Trace, log_axis, reference_line, rounded
from ..lines import PLAIN_HUES
from ..markup import Html, join, tag
from ..table import Cell, number, row, table
from ..view import View, link, page_of
from .cases import AXES, BITS, Ladder, combination
from .effects import Settings

NAMED = 4
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
SPELLED = "Bits a byte: of the next byte on validation text. Bars: how near a figure comes to the best of its column."
GENERATED = "At batch: new tokens a second, greedy, prompts included."
UNPRICED = "A cost of a million tokens is told where the price of an hour is given: make ladder PRICE=2.50."


def full_table(view: View, ladder: Ladder) -> Html:
    """A row a combination: bars compare within a column, longer is better; what has no figures has its reason."""
    columns = columns_of(ladder)
    best = {name: extreme(ladder, name, larger) for name, (_, larger) in columns.items()}
    rows = [
        row([r.technique, *(cell(view, r, name, larger, best[name]) for name, (_, larger) in columns.items())])
        for _, r in sorted(ladder.passed.items())
    ]
    rows += reasons(ladder, len(columns))
    if ladder.xz_bits is not None:
        cells = [number(digits(ladder.xz_bits, 4) if name == BITS.metric else DASH) for name in columns]
        rows.append(row(["xz -9e, without having seen other text", *cells]))
    return table(["Combination", *(f">{title}" for title, _ in columns.values())], rows, label="All combinations")


def columns_of(ladder: Ladder) -> dict[str, tuple[str, bool]]:
    """Title and whether more is better, by metric, of those that any combination has."""
    found: dict[str, tuple[str, bool]] = {
        BITS.metric: ("Bits a byte", False),
        ladder.stepping: ("Training step", False),
        **{f"generate_rate_{batch}": (f"At batch {batch}", True) for batch in ladder.batches},
        "kv_bytes": ("Cache a token", False),
        "peak": ("Peak of a step", False),
        "million_tokens": ("A million tokens", False),
        "train_rate": ("Trained on", True),
        "throughput": ("Trained on", True),
        "acceptance": ("Drafts accepted", True),
        "model_parameters": ("Parameters", False),
        "model_active_parameters": ("of them active", False),
    }
    return {name: told for name, told in found.items() if any(name in r.figures for r in ladder.passed.values())}


def extreme(ladder: Ladder, name: str, larger: bool) -> float:
    """The best value of a column."""
    values = [value for r in ladder.passed.values() if (value := r.value(name)) is not None]
    return max(values) if larger else min(values)


def reasons(ladder: Ladder, columns: int) -> list[Html]:
    """Combinations without figures, those of one reason in one row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for _, record in sorted(ladder.records.items()):
        if record.status != "passed":
            groups.setdefault((record.status, record.reason or ""), []).append(record.technique)
    rows = []
    for (status, reason), names in groups.items():
        words = [tag("b", facts.status_words(status)), f": {reason}"]
        who = f" ({', '.join(names)})" if len(names) > 1 else None
        why = tag("span", words, who, class_=f"why {status}")
        first = names[0] if len(names) == 1 else some(len(names), "combination")
        rows.append(tag("tr", Cell(first).html(), tag("td", why, colspan=max(1, columns))))
    return rows


def cell(view: View, record: Record, name: str, larger: bool, best: float) -> Cell:
    """A figure with a bar of how near it comes to the column's best, where the column says what is better."""
    value = record.value(name)
    if value is None:
        return number(DASH)
    share = None
    if value > 0 and best > 0 and not name.startswith(("model_", "acceptance")):
        share = value / best if larger else best / value
    if name == BITS.metric:
        return number(digits(value, 4), share)
    if name == "million_tokens":
        return number(digits(value), share)
    return view.cell(record, name, share)


def tradeoff_plot(view: View, ladder: Ladder) -> Plot | None:
    """Validation against generation at the largest batch, a mark a combination; None where either is missing."""
    if not ladder.batches:
        return None
    batch = ladder.batches[-1]
    rate = f"generate_rate_{batch}"
    points = [
        (settings, speed, bits)
        for settings, r in sorted(ladder.passed.items())
        if (speed := r.value(rate)) is not None and (bits := r.value(BITS.metric)) is not None and speed > 0
    ]
    if not points:
        return None
    groups = list(dict.fromkeys(settings[:2] for settings, _, _ in points))
    traces = [marks_of(group, place, points) for place, group in enumerate(groups)]
    layout = {
        "xaxis": log_axis(f"New tokens a second, batch {batch}", [speed for _, speed, _ in points], "tokens/s"),
        "yaxis": {"title": {"text": "Validation, bits a byte"}},
        "hovermode": "closest",
    }
    rows = [row([combination(s), number(show(v, "tokens/s")), number(digits(b, 4))]) for s, v, b in points]
    note = f"Right and down is better. Colours tell attention and feed-forward layers, marks the rest: {marked()}."
    if ladder.xz_bits is not None:
        layout |= reference_line(ladder.xz_bits)
        note += " Dashed: xz -9e on the same validation text."
    return Plot(
        "tradeoff",
        "Validation against the speed of generation",
        leading(ladder, points, batch),
        traces,
        layout,
        table(["Combination", f">Tokens a second, batch {batch}", ">Validation, bits a byte"], rows),
        note=note,
    )


def marked() -> str:
    """Which mark stands for which pair of the last two choices."""
    pairs = [f"{linear} {objective}" for linear in AXES["linear"] for objective in AXES["objective"]]
    return ", ".join(f"{symbol.removesuffix('-up')} {pair}" for symbol, pair in zip(SYMBOLS, pairs, strict=True))


def marks_of(group: Settings, place: int, points: list[tuple[Settings, float, float]]) -> Trace:
    """The combinations of one attention and one kind of feed-forward layer."""
    kept = [point for point in points if point[0][:2] == group]
    words = [f"{combination(s)}: {show(v, 'tokens/s')}, {digits(b, 4)} bits a byte" for s, v, b in kept]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": " ".join(pair[on] for pair, on in zip(list(AXES.values())[:2], group, strict=True)),
        "x": [rounded(v) for _, v, _ in kept],
        "y": [rounded(b) for _, _, b in kept],
        "marker": {
            "color": PLAIN_HUES[place % len(PLAIN_HUES)],
            "symbol": [SYMBOLS[2 * s[2] + s[3]] for s, _, _ in kept],
            "size": 10,
        },
        "text": [html.escape(word) for word in words],
        "hovertemplate": "%{text}<extra></extra>",
    }


def leading(ladder: Ladder, points: list[tuple[Settings, float, float]], batch: int) -> str:
    """The best in either, then how the best validation stands beside the compressor."""
    fast = max(points, key=lambda point: point[1])
    low = min(points, key=lambda point: point[2])
    text = f"{combination(fast[0])} generates fastest, {show(fast[1], 'tokens/s')} at batch {batch}; "
    text += f"{combination(low[0])} predicts best, {digits(low[2], 4)} bits a byte"
    if ladder.xz_bits is not None:
        side = "below" if low[2] < ladder.xz_bits else "above"
        text += f", {side} the {digits(ladder.xz_bits, 4)} of xz -9e"
    return f"{text}."


def notes(ladder: Ladder) -> Html:
    """What stands beside the table: how the models were trained, what is missing and why."""
    priced = any("million_tokens" in r.figures for r in ladder.passed.values())
    parts = [SPELLED, GENERATED] if ladder.batches else [SPELLED]
    if priced:
        parts.append("A million tokens: of generation at the largest batch, in the currency of the price given.")
    elif ladder.batches:
        parts.append(UNPRICED)
    if ladder.xz_bits is None:
        parts.append(
            "What a general compressor (xz -9e) makes of the validation text was not recorded with this ladder."
        )
    if ladder.absent:
        parts.append(f"Not asked for here: {some(len(ladder.absent), 'combination')}; make ladder trains all sixteen.")
    lead = join(ladder.training, " ", tag("a", "The case", href=link(page_of(ladder.case.id))), " has every record.")
    return join(tag("p", lead), tag("p", " ".join(parts), class_="note"))


def failures(ladder: Ladder) -> str | None:
    """How many failed, and which; None where none did."""
    failed = [r.technique for r in ladder.records.values() if r.status not in ("passed", "unavailable")]
    if not failed:
        return None
    which = f" ({listed(failed)})" if len(failed) <= NAMED else ""
    return f"{some(len(failed), 'combination')} could not run{which}; the table has the reasons."
