"""Experts over several ranks: where each rank's time goes before and after EPLB.

Measured ranks are filled bars. Where one device played all ranks in turn their shares of computing are hatched bars in
a figure that says so; placements of which only tokens were counted (`simulated.py`) are in neither.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, digits, full, listed, scale, show, some, whole

from .. import facts
from ..figure import Plot, Trace, rounded
from ..markup import Html, join, tag
from ..palette import HUES
from ..study import contender_name
from ..table import number, row, table
from ..view import View, link, page_of
from .cases import PARALLEL, capped, name, of, skew
from .loads import clean

SIMULATED = "simulated-"
PLACEMENTS = ("contiguous", "eplb-hierarchical", "eplb-global")
PARTS = {"local": HUES[0], "compute": HUES[2], "communication": HUES[3], "waiting": HUES[6]}
HATCHES = {"local": "\\", "compute": "/"}
BARS, GROUPS, SHORT = 32, 4, {"eplb-hierarchical": "EPLB hierarchical", "eplb-global": "EPLB global"}


@dataclass(frozen=True)
class Ranks:
    """Nanoseconds of each rank by part, all parts of equal length; `played`: one device was every rank in turn."""

    record: Record
    times: Mapping[str, tuple[float, ...]]
    played: bool

    @property
    def count(self) -> int:
        """Number of ranks."""
        return len(self.times["compute"])

    def share(self, part: str) -> float:
        """A part's share of the time of all ranks."""
        return sum(self.times.get(part, ())) / sum(map(sum, self.times.values()))


def order(implementation: str) -> tuple[int, str]:
    """Placement in order first, then EPLB, then others."""
    plain_name = implementation.removeprefix(SIMULATED)
    return (PLACEMENTS.index(plain_name) if plain_name in PLACEMENTS else len(PLACEMENTS)), implementation


def ranks_of(record: Record) -> Ranks | None:
    """A record's times by rank; None where only tokens were counted, or times are missing or of unequal length."""
    found = {
        word: numbers(record.series.get(f"{word}_ns"))
        for word in ("local", "compute", "dispatch", "combine", "waiting")
        if record.series.get(f"{word}_ns") is not None
    }
    played = record.timing.get("pairing") == "simulated"
    needed = {"compute"} if played else {"compute", "dispatch", "combine", "waiting"}
    if record.status != "passed" or record.implementation.startswith(SIMULATED) or not needed <= set(found):
        return None
    if len({len(values) for values in found.values()}) != 1 or not any(map(sum, found.values())):
        return None
    times: dict[str, tuple[float, ...]] = {word: found[word] for word in found if word in ("local", "compute")}
    if not played:
        moved = zip(found["dispatch"], found["combine"], strict=True)
        times |= {"communication": tuple(a + b for a, b in moved), "waiting": found["waiting"]}
    return Ranks(record, times, played)


def numbers(values: Sequence[object] | None) -> tuple[float, ...]:
    """Numbers of at least 0, all of which may be 0 (one rank never waits); empty if anything else is among them."""
    return clean(values) or (tuple(0.0 for _ in values or ()) if all(v == 0 for v in values or ()) else ())


def drawn_cases(view: View, played: bool = False) -> list[tuple[facts.Case, list[Ranks]]]:
    """Cases with ranks, measured or played: the most skewed first, then those with most placements and most ranks."""
    found = [(case, drawable(case, played)) for case in of(view, (PARALLEL,))]
    found.sort(key=lambda item: (-skew(item[0].first), -len(item[1]), -max((r.count for r in item[1]), default=0)))
    return [(case, ranks) for case, ranks in found if ranks]


def drawable(case: facts.Case, played: bool) -> list[Ranks]:
    """Placements of a case whose ranks were recorded."""
    found = [ranks for record in case.records if (ranks := ranks_of(record)) is not None and ranks.played == played]
    return sorted(found, key=lambda ranks: order(ranks.record.implementation))


def rank_plot(view: View, played: bool = False) -> Plot | None:
    """Stacked bars of each rank's time, one group of bars a placement; None without such ranks."""
    cases = drawn_cases(view, played)
    if not cases:
        return None
    case, found = cases[0][0], cases[0][1][:GROUPS]
    bars = [(ranks, rank) for ranks in found for rank in range(min(ranks.count, max(1, BARS // len(found))))]
    gaps = [found.index(ranks) * 0.8 for ranks, _ in bars]
    places = [i + gap for i, gap in enumerate(gaps)]
    longest = max(sum(values[rank] for values in ranks.times.values()) for ranks, rank in bars)
    divisor, unit = scale(longest, "ns")
    parts = [part for part in PARTS if any(part in ranks.times for ranks in found)]
    layout = {
        "xaxis": {"title": {"text": f"Time of one layer, {unit}"}, "rangemode": "tozero"},
        "yaxis": {
            "tickvals": places,
            "ticktext": [html.escape(f"{short(ranks)} · {rank}") for ranks, rank in bars],
            "range": [places[-1] + 0.7, -0.7],
            "showgrid": False,
            "zeroline": False,
        },
        "barmode": "stack",
        "hovermode": "closest",
    }
    hidden = sum(ranks.count for ranks in found) - len(bars)
    more = f" Not drawn: {some(hidden, 'rank')}, in the table." if hidden else ""
    where = f"{case.first.model}/{case.first.sizes}"
    return Plot(
        "played" if played else "ranks",
        f"Simulated ranks, one device playing all: {where}" if played else f"Where each rank's time goes, {where}",
        promised(found) if played else gained(view, case, found),
        [stack(i, part, places, bars, divisor) for i, part in enumerate(parts)],
        layout,
        join(rank_table(found), case_table(view)),
        note=(PLAYED if played else MEASURED) + crowded(found) + more,
        height=170 + round(24 * (places[-1] + 1)),
    )


MEASURED = (
    "Measured, a bar a rank. Local: routing, shared experts and ordering of a rank's own tokens; compute: its experts; "
    "communication: dispatch and combine; waiting: for the slowest rank, before an exchange."
)
PLAYED = (
    "There were fewer devices than ranks: one computed each rank's share in turn. Nothing was exchanged and nothing "
    "waited, so this is no time of a layer."
)


def crowded(found: Sequence[Ranks]) -> str:
    """What ranks that share cores do to each other."""
    shared = any(ranks.record.timing.get("shared_cores") for ranks in found)
    return " The ranks share this machine's cores and also wait for each other's turn." if shared else ""


def short(ranks: Ranks) -> str:
    """A placement as an axis names it."""
    return SHORT.get(ranks.record.implementation, ranks.record.implementation)


def stack(place: int, part: str, places: list[float], bars: Sequence[tuple[Ranks, int]], divisor: float) -> Trace:
    """One part of all bars; hatched where the ranks were played."""
    played = bars[0][0].played
    values = [ranks.times[part][rank] if part in ranks.times else 0.0 for ranks, rank in bars]
    kind = " (simulated rank)" if played else ""
    words = [
        f"{short(ranks)}, rank {rank}: {part}{kind} {show(value, 'ns')}"
        for (ranks, rank), value in zip(bars, values, strict=True)
    ]
    shape = HATCHES[part] if played else "." if part == "waiting" else ""
    return {
        "type": "bar",
        "orientation": "h",
        "name": f"{part}{kind}",
        "y": [rounded(y) for y in places],
        "x": [rounded(value / divisor) for value in values],
        "width": 0.78,
        "legendrank": 1000 - place,  # plotly turns the legend of stacked bars round
        "marker": {"color": PARTS[part], "pattern": {"shape": shape, "size": 6, "solidity": 0.25}},
        "text": [html.escape(word) for word in words],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def gained(view: View, case: facts.Case, found: Sequence[Ranks]) -> str:
    """Share of waiting by placement, and the layer's time of the fastest over placement in order."""
    waits = [f"{show(ranks.share('waiting'), 'share')} with {ranks.record.implementation}" for ranks in found]
    text = f"Of the time of all ranks, waiting takes {listed(waits)}"
    compared = against(view, case)
    return f"{text}; {compared}." if compared else f"{text}."


def promised(found: Sequence[Ranks]) -> str:
    """The slowest share of computing by placement."""
    told = [f"{show(max(ranks.times['compute']), 'ns')} with {ranks.record.implementation}" for ranks in found]
    return f"Simulated on one device: the slowest rank's share of computing takes {listed(told)}."


def against(view: View, case: facts.Case) -> str | None:
    """The fastest EPLB placement's time over that of placement in order."""
    base = next((r for r in case.passed if r.implementation == "contiguous"), None)
    best = next((r for r in case.passed if r.implementation.startswith("eplb")), None)
    ratio = view.ratio(best, base) if best is not None and base is not None else None
    if best is None or ratio is None:
        return None
    return f"the layer with {best.implementation} takes {full(ratio, 'ratio')} the time of placement in order"


def rank_table(found: Sequence[Ranks]) -> Html:
    """Every rank in numbers."""
    rows = []
    for ranks in found:
        tokens = clean(ranks.record.series.get("tokens"))
        for rank in range(ranks.count):
            times = [number(show(ranks.times[p][rank], "ns") if p in ranks.times else DASH) for p in PARTS]
            count = number(whole(tokens[rank]) if len(tokens) == ranks.count else DASH)
            rows.append(row([ranks.record.implementation, number(whole(rank)), *times, count]))
    return table(["Placement", ">Rank", *(f">{part.capitalize()}" for part in PARTS), ">Tokens"], capped(rows))


def case_table(view: View) -> Html:
    """Every placement of every case with ranks: latency, busiest rank by time and by tokens, waiting."""
    rows = []
    metrics = ("latency", "ratio", "rank_max_over_mean", "token_max_over_mean")
    for case in of(view, (PARALLEL,)):
        for record in sorted(case.records, key=lambda r: order(r.implementation)):
            if record.status == "passed" and not record.implementation.startswith(SIMULATED):
                ranks = ranks_of(record)
                waiting = show(ranks.share("waiting"), "share") if ranks and not ranks.played else DASH
                title = tag("a", name(case), href=link(page_of(case.id)))
                cells = [*(view.cell(record, metric) for metric in metrics), number(waiting)]
                rows.append(row([title, contender_name(view, record), *cells]))
    heads = ["Case", "Placement", ">Latency", ">Ratio", ">Slowest rank over mean", ">Most tokens over mean", ">Waiting"]
    return table(heads, capped(rows))


def busiest(record: Record) -> float | None:
    """The busiest rank's tokens over the mean; its time's where tokens were not counted."""
    found = record.value("token_max_over_mean")
    return found if found is not None else record.value("rank_max_over_mean")


def answer(view: View) -> str | None:
    """What EPLB does to the busiest rank and to the layer's time, in the first measured case; None without."""
    for case, ranks in drawn_cases(view):
        found = {r.implementation: v for r in case.records if (v := busiest(r)) is not None}
        held = [f"{digits(found[p])} ({p})" for p in PLACEMENTS if p in found]
        parts = [f"the busiest has {listed(held)} times the mean's tokens" if held else None, against(view, case)]
        told = "; ".join(filter(None, parts))
        if told:
            return f"Over {some(ranks[0].count, 'rank')} ({case.first.model}/{case.first.sizes}) {told}."
    return None
