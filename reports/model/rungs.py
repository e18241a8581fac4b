"""The ladder: the plainest model, then one of DeepSeek's choices after the other, in one order."""

from __future__ import annotations

import math
from typing import Any

from harness.units import DASH, listed

from ..figure import Plot, Trace, rounded, tick_word
from ..markup import Html
from ..palette import HUES, INK
from ..table import Cell, number, row, table
from .cases import CHOICES, Ladder, Quantity, combination
from .effects import rungs, steps_up

LABELS = ["plainest", *(f"+ {choice}" for choice in CHOICES)]
RUNGS = [combination(settings) for settings in rungs(len(CHOICES))]
MORE, LESS, LEVEL = HUES[1], HUES[0], "#7a7a7a"
Levels = list[tuple[str, float | None]]
Parts = list[tuple[str, float, float]]


def rung_plot(ladder: Ladder, quantity: Quantity, place: int) -> Plot | None:
    """Levels as bars, what each choice adds or saves on top; None where no two neighbours have the quantity."""
    levels = levels_of(ladder, quantity)
    effects = steps_up(ladder.values(quantity), quantity.ratio)
    if not any(effect is not None for effect in effects):
        return None
    known = [value for _, value in levels if value is not None]
    start = 0.0 if quantity.ratio else known[0]
    drawn = [(label, value - start if value is not None else None) for label, value in levels]
    traces = bars(drawn, quantity)
    traces.append(words(drawn, levels, effects, quantity))
    layout: dict[str, Any] = {
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": LABELS},
        "yaxis": axis(quantity, [value for _, value in drawn if value is not None]),
        "barmode": "overlay",
        "bargap": 0.35,
        "hovermode": "closest",
    }
    return Plot(
        f"rungs-{place}",
        f"The ladder: {quantity.words}",
        sentence(levels, effects, quantity),
        traces,
        layout,
        rung_table(ladder, quantity, levels, effects),
        note="Each bar is the model with all choices up to there. Another order gives other steps; the section below "
        "depends on none.",
        height=380,
    )


def levels_of(ladder: Ladder, quantity: Quantity) -> Levels:
    """The quantity at each rung, None where that combination has none."""
    values = ladder.values(quantity)
    return [(label, values.get(settings)) for label, settings in zip(LABELS, rungs(len(CHOICES)), strict=True)]


def bars(drawn: Levels, quantity: Quantity) -> list[Trace]:
    """What is carried over from the rung before, then what is more or less than there."""
    carried: Parts = []
    more: Parts = []
    less: Parts = []
    before: float | None = None
    for label, value in drawn:
        if value is not None:
            other = value if before is None else before
            if quantity.ratio:
                carried.append((label, 0.0, min(value, other)))
            if value != other:
                (more if value > other else less).append((label, min(value, other), abs(value - other)))
        before = value
    found = [("carried over", carried, LEVEL, 0.4), ("more", more, MORE, 1.0), ("less", less, LESS, 1.0)]
    return [bar(name, parts, colour, opacity) for name, parts, colour, opacity in found if parts]


def bar(name: str, parts: Parts, colour: str, opacity: float) -> Trace:
    """Floating bars: from a base, so high."""
    return {
        "type": "bar",
        "name": name,
        "x": [label for label, _, _ in parts],
        "y": [rounded(height) for _, _, height in parts],
        "base": [rounded(base) for _, base, _ in parts],
        "marker": {"color": colour},
        "opacity": opacity,
        "hoverinfo": "skip",
    }


def words(drawn: Levels, levels: Levels, effects: list[float | None], quantity: Quantity) -> Trace:
    """Value and effect above each bar."""
    found = []
    steps = [None, *effects]
    for place, ((label, value), (_, level)) in enumerate(zip(drawn, levels, strict=True)):
        if value is None or level is None:
            continue
        before = drawn[place - 1][1] if place else None
        effect = steps[place]
        text = quantity.show(level).removesuffix(" bits a byte")
        text += f"<br>{quantity.effect(effect)}" if effect is not None else ""
        found.append((label, max(value, before) if before is not None else value, text))
    return {
        "type": "scatter",
        "mode": "text",
        "name": "value and step",
        "x": [label for label, _, _ in found],
        "y": [rounded(y) for _, y, _ in found],
        "text": [text for _, _, text in found],
        "textposition": "top center",
        "textfont": {"size": 11, "color": INK},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def axis(quantity: Quantity, values: list[float]) -> dict[str, Any]:
    """From zero, with room for words above the bars; ticks carry their unit's prefix."""
    low, high = min([0.0, *values]), max([0.0, *values])
    spare = 0.25 * (high - low or 1.0)
    found: dict[str, Any] = {"range": [rounded(low - (spare / 2 if low < 0 else 0)), rounded(high + spare)]}
    if not quantity.ratio:
        return {**found, "title": {"text": f"{quantity.words.capitalize()} over the plainest, bits"}}
    ticks = even(high)
    texts = [tick_word(tick, quantity.unit) if tick else "0" for tick in ticks]
    return {**found, "title": {"text": quantity.words.capitalize()}, "tickvals": ticks, "ticktext": texts}


def even(high: float) -> list[float]:
    """Four to nine round ticks from zero to the highest value."""
    unit = 10.0 ** math.floor(math.log10(high))
    step = unit * next(part for part in (0.2, 0.5, 1.0, 2.0) if high / (unit * part) < 10)
    return [rounded(step * place) for place in range(math.floor(high / step) + 1)]


def sentence(levels: Levels, effects: list[float | None], quantity: Quantity) -> str:
    """From the plainest to all, and each step; what is missing is said."""
    told = [f"{choice} {quantity.effect(e)}" for choice, e in zip(CHOICES, effects, strict=True) if e is not None]
    gone = [name for name, (_, value) in zip(RUNGS, levels, strict=True) if value is None]
    first, last = levels[0][1], levels[-1][1]
    text = f"Adding {listed(CHOICES)} one after the other"
    if first is not None and last is not None:
        text += f" takes the {quantity.words} from {quantity.show(first)} to {quantity.show(last)}: {listed(told)}"
    else:
        text += f" changes the {quantity.words} so: {listed(told)}"
    return f"{text}; without figures: {listed(gone)}." if gone else f"{text}."


def rung_table(ladder: Ladder, quantity: Quantity, levels: Levels, effects: list[float | None]) -> Html:
    """The rungs, each with its combination, its figure and its step."""
    rows = []
    for (label, value), name, effect in zip(levels, RUNGS, [None, *effects], strict=True):
        cells: list[Cell | str] = [name, number(quantity.show(value) if value is not None else DASH)]
        rows.append(row([label, *cells, number(quantity.effect(effect) if effect is not None else DASH)]))
    over = "over the rung before" if quantity.ratio else "less the rung before"
    return table(["Rung", "Combination", f">{quantity.words.capitalize()}", f">{over.capitalize()}"], rows)
