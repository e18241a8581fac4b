"""What drafting buys in generation: speed-up against acceptance beside (1 + p) / (1 + c), and against the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.record import Figure
from harness.units import DASH, full, length, listed, show, some

from ..figure import MAX_SERIES, Plot, Trace, length_axis, line, log_axis, reference_line, rounded
from ..lines import PLAIN_HUES
from ..markup import Html
from ..palette import HUES, INK, MARKERS, Look
from ..table import Cell, number, row, table
from ..view import View
from .cases import Drafting, capped, draftings, linked, origin, reaches

CURVES, LINES = 3, 3
PUBLISHED, CLAIMED = (0.85, 0.90), 1.8
FORMULA = "(1 + p) / (1 + c)"
CONTROL = (
    "c is measured: a control that drafts and verifies but keeps no draft takes 1 + c times as long as plain decoding."
)


def clear(figure: Figure) -> int:
    """1 where all its interval lies above 1, -1 where all lies below, else 0; without an interval 0."""
    if figure.low is None or figure.high is None:
        return 0
    return int(figure.low > 1) - int(figure.high < 1)


def timed(view: View) -> list[tuple[Drafting, Figure]]:
    """Cases with a speed-up."""
    return [(one, found) for one in draftings(view) if (found := one.speed_up) is not None]


def acceptance_plot(view: View) -> Plot | None:
    """Measured points beside the computed curves; None where no point has an acceptance."""
    points = [(one, p, found) for one, found in timed(view) if (p := one.acceptance) is not None]
    if not points:
        return None
    curved = chosen([one for one, _, _ in points if one.depth == 1 and one.cost is not None])
    traces = [curve("no overhead, c = 0", 0.0, Look(INK, "dot", MARKERS[0], 0.7))]
    looks: dict[int, Look] = {}
    for place, one in enumerate(curved):
        looks[id(one)] = Look(PLAIN_HUES[1 + place], "dash", MARKERS[place], 1.0)
        cost = one.cost
        assert cost is not None
        traces.append(curve(f"computed, {one.setting}", cost.value - 1, looks[id(one)]))
    for one, p, found in points:
        if id(one) in looks:
            traces.append(dots(f"measured, {one.setting}", [(one, p, found)], looks[id(one)]))
    others = [point for point in points if id(point[0]) not in looks]
    if others:
        traces.append(dots("measured, others" if looks else "measured", others, Look(HUES[6], "solid", "star", 1.0)))
    drawn = [2.0, *(y for trace in traces for y in trace["y"]), *(v for _, _, f in points for v in reaches(f))]
    layout = {
        "xaxis": {"title": {"text": "Acceptance p of the first draft"}, "range": [0, 1], "tickformat": ".0%"},
        "yaxis": log_axis("Speed-up over plain decoding", drawn, "ratio"),
        "hovermode": "closest",
        **reference_line(1.0),
    }
    layout["shapes"] = [*layout["shapes"], published_line()]
    layout["annotations"] = [published_word()]
    return Plot(
        "acceptance",
        "Speed-up against acceptance",
        beside(points),
        traces,
        layout,
        drafting_table([one for one, _, _ in points]),
        note=acceptance_note([one for one, _, _ in points], bool(looks)),
    )


def acceptance_note(found: Sequence[Drafting], curved: bool) -> str:
    """What the figure's parts are, as far as they are drawn, and whose drafts these are."""
    parts = [f"Dashed: {FORMULA} for one draft a step. {CONTROL}"] if curved else []
    parts.append("Dotted: 1 + p, one draft a step that costs nothing.")
    if curved and any(one.batch > 1 for one in found):
        parts.append(
            "In a batch the slowest sequence decides how many steps there are, so points of batches lie below curves."
        )
    if any(one.depth > 1 for one in found):
        parts.append("More than one draft a step may lie above the dotted line, and has no curve.")
    parts.append(
        "The short line at the right is quoted: 1.8 times the tokens a second at 85 to 90 %, published for DeepSeek-V3."
    )
    told = origin(found[0].drafted)
    return " ".join([*parts, told] if told else parts)


def chosen(found: Sequence[Drafting]) -> list[Drafting]:
    """The first, middle and last of them: as many curves as can be told apart."""
    places = np.unique(np.linspace(0, len(found) - 1, min(CURVES, len(found))).round().astype(int))
    return [found[place] for place in places.tolist()]


def curve(word: str, c: float, look: Look) -> Trace:
    """(1 + p) / (1 + c) over p."""
    shares = np.linspace(0, 1, 21).tolist()
    values = [(1 + p) / (1 + c) for p in shares]
    words = [
        f"{word}: at {show(p, 'share')} with c = {show(c, 'share')} {show(v, 'ratio')}"
        for p, v in zip(shares, values, strict=True)
    ]
    trace = line(word, shares, values, look, words)
    return trace | {"mode": "lines", "line": trace["line"] | {"width": 1.4}}


def dots(word: str, points: Sequence[tuple[Drafting, float, Figure]], look: Look) -> Trace:
    """Measured speed-ups with their intervals."""
    words = [f"{one.setting}: {show(p, 'share')} accepted, {full(f, 'ratio')}" for one, p, f in points]
    figures = [f for _, _, f in points]
    ends = [f.low for f in figures], [f.high for f in figures]
    trace = line(word, [p for _, p, _ in points], [f.value for f in figures], look, words, *ends)
    return trace | {"mode": "markers", "marker": {**trace["marker"], "size": 10}}


def published_line() -> dict[str, object]:
    """DeepSeek-V3's own figure, as a line without markers: it is quoted."""
    stroke = {"type": "line", "line": {"color": INK, "width": 3}}
    return {**stroke, "x0": PUBLISHED[0], "x1": PUBLISHED[1], "y0": CLAIMED, "y1": CLAIMED}


def published_word() -> dict[str, object]:
    """What that line is, above the bound."""
    place = {"x": PUBLISHED[1], "y": rounded(float(np.log10(2.03))), "xanchor": "right", "yanchor": "bottom"}
    return {**place, "text": "DeepSeek-V3, published", "showarrow": False}


def beside(points: Sequence[tuple[Drafting, float, Figure]]) -> str:
    """The fastest point, with what the formula gives for it."""
    one, p, found = max(points, key=lambda point: point[2].value)
    text = f"Fastest at {one.setting}: {full(found, 'ratio')} the speed of plain decoding, with {show(p, 'share')} of "
    text += "first drafts accepted"
    if one.expected is None or one.cost is None or one.gain is None:
        return f"{text}; what a speculative step costs was not measured."
    text += f"; {show(one.gain, 'ratio')} fewer steps at {full(one.cost, 'ratio')} the time each make "
    return f"{text}{show(one.expected, 'ratio')}."


def drafting_table(found: Sequence[Drafting]) -> Html:
    """Acceptance, steps, cost, computed and measured speed-up, and cache of each case."""
    rows = []
    for one in found:
        cells: list[Cell | str] = [
            number(str(one.batch)),
            number(str(one.depth)),
            number(show(one.acceptance, "share") if one.acceptance is not None else DASH),
            number(show(one.gain, "ratio") if one.gain else DASH),
            number(full(one.cost, "ratio") if one.cost else DASH),
            number(show(one.expected, "ratio") if one.expected else DASH),
            number(full(one.speed_up, "ratio") if one.speed_up else DASH),
            number(caches(one) or DASH),
        ]
        rows.append(row([linked(one.case), one.form, *cells]))
    heads = ["Case", "Form", ">Batch", ">Depth", ">First draft accepted", ">Fewer steps", ">Cost of a step, 1 + c"]
    return table([*heads, ">Computed", ">Measured", ">Cache a token"], capped(rows))


def caches(one: Drafting) -> str | None:
    """Bytes one token leaves in all caches, without and with the drafting modules."""
    plain, drafted = one.plain.value("kv_bytes"), one.drafted.value("kv_bytes")
    return f"{show(plain, 'bytes')}, drafting {show(drafted, 'bytes')}" if plain and drafted else None


def families(view: View) -> list[list[tuple[Drafting, Figure]]]:
    """Cases that differ in the batch alone, those with most batches first."""
    groups: dict[tuple[str, str, str], list[tuple[Drafting, Figure]]] = {}
    for one, found in timed(view):
        groups.setdefault(one.family, []).append((one, found))
    made = [sorted(group, key=lambda point: point[0].batch) for group in groups.values()]
    return sorted(made, key=lambda group: -len(group))


def batch_plot(view: View) -> Plot | None:
    """Speed-up against the batch, measured and computed; None where fewer than two batches were timed."""
    every = [group for group in families(view) if len({one.batch for one, _ in group}) > 1]
    if not every:
        return None
    traces: list[Trace] = []
    for place, group in enumerate(every[:LINES]):
        look = Look(PLAIN_HUES[1 + place], "solid", MARKERS[place], 1.0)
        figures = [found for _, found in group]
        batches = [float(one.batch) for one, _ in group]
        words = [f"batch {one.batch}, measured: {full(found, 'ratio')}" for one, found in group]
        ends = [f.low for f in figures], [f.high for f in figures]
        traces.append(line(f"measured, {lot(group)}", batches, [f.value for f in figures], look, words, *ends))
        computed = [(one, value) for one, _ in group if (value := one.expected) is not None]
        if computed:
            words = [f"batch {one.batch}, computed: {show(value, 'ratio')}" for one, value in computed]
            dashed = Look(look.colour, "dash", f"{MARKERS[place]}-open", 0.8)
            at = [float(one.batch) for one, _ in computed], [value for _, value in computed]
            traces.append(line(f"computed, {lot(group)}", *at, dashed, words))
    drawn = [1.0, *(y for trace in traces for y in trace["y"])]
    drawn += [value for group in every[:LINES] for _, found in group for value in reaches(found)]
    layout = {
        "xaxis": length_axis(sorted({x for trace in traces for x in trace["x"]}), "Sequences together"),
        "yaxis": log_axis("Speed-up over plain decoding", drawn, "ratio"),
        "hovermode": "closest",
        **reference_line(1.0),
    }
    hidden = len(every) - LINES
    note = "Above the line drafting is faster. Computed: plain steps over steps with drafts, over the measured cost of "
    note += "a speculative step; whiskers are 95 % intervals."
    note += f" In the table: {some(hidden, 'more model')}." if hidden > 0 else ""
    return Plot(
        "batch-plot",
        "Speed-up against the batch",
        f"{lot(every[0]).capitalize()}: {ends_at(every[0])}.",
        traces[:MAX_SERIES],
        layout,
        drafting_table([one for group in every for one, _ in group]),
        note=note,
    )


def lot(group: Sequence[tuple[Drafting, Figure]]) -> str:
    """What all cases of a line share, in words."""
    first = group[0][0]
    return f"{some(first.depth, 'draft')} a step"


def ends_at(group: Sequence[tuple[Drafting, Figure]]) -> str:
    """Where the gain ends, by intervals: a speed-up whose interval holds 1 is no gain."""
    signs = [clear(found) for _, found in group]
    told = [f"{show(found.value, 'ratio')} at batch {length(one.batch)}" for one, found in group]
    ends = listed([told[0], told[-1]] if len(told) > 1 else told)
    if all(sign > 0 for sign in signs):
        return f"drafting gains at every batch measured, {ends}"
    if not any(sign > 0 for sign in signs):
        open_ = f", {some(signs.count(0), 'interval')} holding 1 or unknown" if 0 in signs else ""
        return f"drafting is clearly faster at no batch measured: {ends}{open_}"
    last = max(place for place, sign in enumerate(signs) if sign > 0)
    gaps = "" if all(sign > 0 for sign in signs[:last]) else ", though not at every one below"
    if last == len(signs) - 1:
        return f"drafting is clearly faster at batch {length(group[last][0].batch)}, the largest{gaps}: {ends}"
    batch = length(group[last][0].batch)
    return f"drafting gains up to batch {batch}{gaps}: {told[last]}, then {listed(told[last + 1 :])}"


def answer(view: View) -> str | None:
    """The fastest and the slowest case, and whether the formula explains it; None where none was timed."""
    found = timed(view)
    if not found:
        return None
    best, worst = max(found, key=lambda item: item[1].value), min(found, key=lambda item: item[1].value)
    where = "on this GPU" if view.on_gpu else "on this CPU"
    text = f"Generation with the model's own drafts runs at {full(best[1], 'ratio')} the speed of plain decoding "
    text += f"{where} at {best[0].setting}{why(best[0])}"
    if worst[0] is not best[0]:
        text += f", and at {full(worst[1], 'ratio')} at {worst[0].setting}{why(worst[0])}"
    verdict = {1: "", 0: " None of this is clearly faster than plain decoding."}
    return f"{text}.{verdict[int(any(clear(f) > 0 for _, f in found))]}"


def why(one: Drafting) -> str:
    """Acceptance and cost in brackets, as far as they are known."""
    parts = []
    if one.acceptance is not None:
        parts.append(f"{show(one.acceptance, 'share')} of first drafts accepted")
    if one.cost is not None:
        parts.append(f"a step costs {show(one.cost.value, 'ratio')} a plain one")
    return f" ({', '.join(parts)})" if parts else ""
