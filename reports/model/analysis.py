"""What each choice does whatever the order: averaged over the others, in pairs, and left out of all four."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from harness.record import Figure
from harness.units import DASH, listed

from ..figure import MAX_SERIES, Plot, Trace, log_axis, reference_line, rounded
from ..lines import PLAIN_HUES, across
from ..markup import Html
from ..palette import MARKERS, Look
from ..table import Cell, number, row, table
from .cases import BITS, CHOICES, SWAPS, Ladder, Quantity
from .effects import Effect, interaction, left_out, main, steps_up

PAIRS = list(itertools.combinations(range(len(CHOICES)), 2))
PAIR_NAMES = [f"{CHOICES[a]} and {CHOICES[b]}" for a, b in PAIRS]
RANGE = "The whisker is the range over the settings of the other choices, which is no confidence interval."
Column = Mapping[str, Effect]


def main_effects(ladder: Ladder, quantity: Quantity) -> dict[str, Effect]:
    """By choice."""
    values = ladder.values(quantity)
    found = {name: main(values, quantity.ratio, at) for at, name in enumerate(SWAPS)}
    return {name: effect for name, effect in found.items() if effect is not None}


def pair_effects(ladder: Ladder, quantity: Quantity) -> dict[str, Effect]:
    """By pair of choices."""
    values = ladder.values(quantity)
    found = {name: interaction(values, quantity.ratio, a, b) for name, (a, b) in zip(PAIR_NAMES, PAIRS, strict=True)}
    return {name: effect for name, effect in found.items() if effect is not None}


def last_effects(ladder: Ladder, quantity: Quantity) -> dict[str, float]:
    """By choice, at the top of the ladder."""
    values = ladder.values(quantity)
    found = {name: left_out(values, quantity.ratio, at) for at, name in enumerate(SWAPS)}
    return {name: effect for name, effect in found.items() if effect is not None}


def dots(
    columns: Sequence[tuple[Quantity, dict[str, Figure]]],
    names: Sequence[str],
    axis: str,
    title: tuple[str, str],
    takeaway: str,
    numbers: Html,
    note: str,
) -> Plot | None:
    """Named rows with a mark for each quantity; None without any."""
    drawn = [(quantity, figures) for quantity, figures in columns if figures][:MAX_SERIES]
    if not drawn:
        return None
    traces = []
    for place, (quantity, figures) in enumerate(drawn):
        look = Look(PLAIN_HUES[place % len(PLAIN_HUES)], "solid", MARKERS[place], 1.0)
        traces.append(lifted(across(quantity.words, figures, look), figures, names, place, len(drawn)))
    ends = [e for _, f in drawn for v in f.values() for e in (v.value, v.low, v.high) if e is not None]
    layout = {
        "xaxis": log_axis(axis, [1.0, *ends], "ratio"),
        "yaxis": rows_axis(names),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    height = 190 + 14 * len(names) * (1 + len(drawn))
    return Plot(title[0], title[1], takeaway, traces, layout, numbers, note=note, height=height)


def lifted(trace: Trace, figures: Mapping[str, Figure], names: Sequence[str], place: int, count: int) -> Trace:
    """The series a little above or below the others of its row, so that marks and whiskers do not cover each other."""
    shift = 0.6 * ((count - 1) / 2 - place) / max(1, count - 1)
    return {**trace, "y": [rounded(len(names) - 1 - names.index(name) + shift) for name in figures]}


def rows_axis(names: Sequence[str]) -> dict[str, object]:
    """Named rows, the first at the top, with room between them."""
    places = list(range(len(names)))
    return {
        "tickvals": places,
        "ticktext": list(reversed(names)),
        "range": [-0.6, len(names) - 0.4],
        "zeroline": False,
        "automargin": True,
    }


def main_plot(ladder: Ladder) -> Plot | None:
    """Main effects on times and bytes."""
    columns = [(quantity, main_effects(ladder, quantity)) for quantity in ladder.quantities]
    figures = [(q, {n: Figure(e.value, e.low, e.high) for n, e in found.items()}) for q, found in columns]
    note = f"Left of the line: less time, fewer bytes.{whiskers([found for _, found in columns])}"
    return dots(
        figures,
        SWAPS,
        "With the choice over without it",
        ("averages", f"Each choice, {scope([found for _, found in columns])}"),
        strongest(columns),
        effect_table(columns, "Choice", SWAPS),
        note,
    )


def whiskers(columns: Sequence[Column]) -> str:
    """What whiskers are where there are any, and that settings are missing where they are."""
    every = [effect for found in columns for effect in found.values()]
    text = f" {RANGE}" if any(len(effect.each) > 1 for effect in every) else ""
    left = max((effect.most - len(effect.each) for effect in every), default=0)
    return f"{text} Without figures: up to {left} of {every[0].most} settings." if left else text


def strongest(columns: Sequence[tuple[Quantity, Column]]) -> str:
    """For each quantity the choice that changes it most."""
    parts = []
    for quantity, found in columns:
        if found:
            name = max(found, key=lambda name: found[name].size)
            parts.append(f"the {quantity.words} with {told(quantity, name, found[name])}")
    where = scope([found for _, found in columns])
    return f"{where[0].upper()}{where[1:]}, what changes most: {'; '.join(parts)}."


def scope(columns: Sequence[Column]) -> str:
    """Over how many settings of the other choices effects are averaged, in words."""
    found = [effect for known in columns for effect in known.values()]
    if not any(effect.partial for effect in found):
        return "averaged over the others"
    if all(len(effect.each) == 1 for effect in found):
        return "in the one setting of the others that has figures"
    return "averaged over the settings of the others that have figures"


def told(quantity: Quantity, name: str, effect: Effect) -> str:
    """An effect with its range: `fp8 for bf16, 3.12× (2.20× to 4.06×)`."""
    low, high = quantity.effect(effect.low), quantity.effect(effect.high)
    spread = f" ({low} to {high})" if low != high else ""
    return ", ".join(filter(None, (name, f"{quantity.effect(effect.value)}{spread}")))


def effect_table(columns: Sequence[tuple[Quantity, Column]], head: str, names: Sequence[str]) -> Html:
    """Rows by columns, with the range and, where settings are missing, how many there were."""
    rows = []
    for name in names:
        cells = [effect_cell(quantity, found.get(name)) for quantity, found in columns]
        rows.append(row([name, *cells]))
    return table([head, *(f">{quantity.words.capitalize()}" for quantity, _ in columns)], rows)


def effect_cell(quantity: Quantity, effect: Effect | None) -> Cell:
    """An effect with its range over settings."""
    if effect is None:
        return number(DASH)
    text = told(quantity, "", effect)
    return number(f"{text}, {len(effect.each)} of {effect.most} settings" if effect.partial else text)


def pair_plot(ladder: Ladder) -> Plot | None:
    """How much the effect of one choice depends on another, on times and bytes."""
    columns = [(quantity, pair_effects(ladder, quantity)) for quantity in ladder.quantities]
    figures = [(q, {n: Figure(e.value, e.low, e.high) for n, e in found.items()}) for q, found in columns]
    note = "On the line two choices do together what they do apart; right of it the two together take more. "
    note += whiskers([found for _, found in columns]).strip()
    return dots(
        figures,
        PAIR_NAMES,
        "Effect of one with the other over without it",
        ("pairs", "Pairs of choices"),
        entangled(columns),
        effect_table(columns, "Pair", PAIR_NAMES),
        note,
    )


def entangled(columns: Sequence[tuple[Quantity, Column]]) -> str:
    """The strongest interaction of each of the first quantities."""
    parts = []
    for quantity, found in columns:
        if found and (name := max(found, key=lambda name: found[name].size)) and found[name].size > 0.01:
            parts.append(f"the {quantity.words} with {told(quantity, name, found[name])}")
    if not parts:
        return "No pair of choices does more or less together than apart, to within 1 %."
    return f"Together over apart, the strongest pair: {'; '.join(parts)}."


def last_plot(ladder: Ladder) -> Plot | None:
    """Everything over everything without one choice, on times and bytes."""
    columns = [(quantity, last_effects(ladder, quantity)) for quantity in ladder.quantities]
    rows = []
    for name in SWAPS:
        cells = [number(q.effect(found[name]) if name in found else DASH) for q, found in columns]
        rows.append(row([name, *cells]))
    parts = []
    for quantity, found in columns:
        if found:
            name = max(found, key=lambda name: abs(found[name] - 1))
            parts.append(f"the {quantity.words} with {name}, {quantity.effect(found[name])}")
    return dots(
        [(quantity, {name: Figure(v) for name, v in found.items()}) for quantity, found in columns],
        SWAPS,
        "All four over all but this one",
        ("last", "Each choice, left out of all four"),
        f"Added to the other three, what counts most: {'; '.join(parts)}.",
        table(["Choice", *(f">{quantity.words.capitalize()}" for quantity, _ in columns)], rows),
        "Left of the line: leaving the choice out would cost time or bytes; right of it, save them.",
    )


def bits_plot(ladder: Ladder) -> Plot | None:
    """Differences of validation: averaged over the others, added in order, last of all four."""
    found = main_effects(ladder, BITS)
    if not found:
        return None
    values = ladder.values(BITS)
    added = {n: v for n, v in zip(SWAPS, steps_up(values, ratio=False), strict=True) if v is not None}
    last = last_effects(ladder, BITS)
    averaged = {name: Figure(effect.value, effect.low, effect.high) for name, effect in found.items()}
    columns = [(scope([found]), averaged)]
    columns += [("added in order", {n: Figure(v) for n, v in added.items()})] if added else []
    columns += [("last of all four", {n: Figure(v) for n, v in last.items()})] if last else []
    traces = []
    for place, (word, figures) in enumerate(columns):
        look = Look(PLAIN_HUES[place], "solid", MARKERS[place], 1.0)
        trace = across(word, figures, look, "bits/byte")
        texts = [f"{name}, {word}: {BITS.effect(f.value)} bits a byte" for name, f in figures.items()]
        traces.append(lifted({**trace, "text": texts}, figures, SWAPS, place, len(columns)))
    layout = {
        "xaxis": {"title": {"text": "With the choice less without it, bits a byte"}},
        "yaxis": rows_axis(SWAPS),
        "hovermode": "closest",
        **reference_line(0.0, upright=True),
    }
    note = f"Left of the line: better.{whiskers([found])} One seed was trained, so a difference that keeps its sign in "
    note += "every setting is the most that this can show."
    return Plot(
        "bits",
        "Validation, choice by choice",
        directions(found),
        traces,
        layout,
        bits_table(ladder, found, added, last),
        note=note,
        height=380,
    )


def directions(found: Column) -> str:
    """Each choice's mean difference, and in how many settings it has that sign."""
    parts = []
    for name, effect in found.items():
        many = f" (the same sign in {effect.agreeing} of {len(effect.each)} settings)" if len(effect.each) > 1 else ""
        parts.append(f"{BITS.effect(effect.value)} with {name}{many}")
    return f"Validation changes, {scope([found])}, in bits a byte, by {listed(parts)}."


def bits_table(ladder: Ladder, found: Column, added: Mapping[str, float], last: Mapping[str, float]) -> Html:
    """Choices in all three ways, then pairs."""
    rows = []
    for name in SWAPS:
        others = [number(BITS.effect(known[name]) if name in known else DASH) for known in (added, last)]
        rows.append(row([name, effect_cell(BITS, found.get(name)), *others]))
    pairs = pair_effects(ladder, BITS)
    for name in PAIR_NAMES:
        if name in pairs:
            rows.append(row([f"{name}, together less apart", effect_cell(BITS, pairs[name]), *[number(DASH)] * 2]))
    return table(["Choice", f">{scope([found]).capitalize()}", ">Added in order", ">Last of all four"], rows)
