"""What skewed routing costs, recorded or by an exponent: each implementation's time over that with uniform routing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.record import Figure, Record
from harness.units import DASH, digits, full, show, some

from .. import facts
from ..figure import MAX_SERIES, Plot, line, log_axis, reference_line
from ..markup import Html, tag
from ..study import contender_name
from ..table import number, row
from ..view import View, link, page_of
from .cases import INNER, LAYER, MIXTURE, name, routing, told, twins

PAIRS = 12
Twins = list[tuple[facts.Case, facts.Case]]


@dataclass(frozen=True)
class Cost:
    """One implementation in one pair of twins; `violation` is MaxVio of the skewed case."""

    record: Record
    case: facts.Case
    violation: float
    ratio: Figure


def apart(view: View, top: Record, bottom: Record) -> Figure | None:
    """A ratio of two cases: their rounds are of different contests, so medians are divided and intervals add up."""
    return view.ratio(replace(top, timing={**top.timing, "pairing": "unpaired"}), bottom)


def violation(case: facts.Case) -> float | None:
    """MaxVio of the mixture's experts in a case."""
    return next(
        (v for r in case.records if r.technique == MIXTURE and (v := r.value("max_violation")) is not None), None
    )


def costs(view: View, found: Twins) -> dict[str, list[Cost]]:
    """By contender: the mixture's first, each by its least ratio of all."""
    costs: dict[str, list[Cost]] = {}
    for skewed, even in found:
        at = violation(skewed)
        twin = {record.contender: record for record in even.passed}
        for record in skewed.passed:
            ratio = apart(view, record, twin[record.contender]) if record.contender in twin else None
            if ratio is not None and at is not None:
                costs.setdefault(record.contender, []).append(Cost(record, skewed, at, ratio))

    def rank(item: tuple[str, list[Cost]]) -> tuple[bool, bool, int, float, str]:
        record = item[1][0].record
        fastest = min(cost.record.figures["latency"].value for cost in item[1])
        return record.technique != MIXTURE, record.technique == "moe-coarse", -len(item[1]), fastest, item[0]

    return dict(sorted(costs.items(), key=rank))


def skew_plot(view: View) -> Plot | None:
    """Time of skewed over uniform routing against MaxVio; None without twins."""
    every = twins(view, (*LAYER, *INNER))
    found = sorted(every, key=lambda pair: -(violation(pair[0]) or 0))[:PAIRS]
    by_name = costs(view, found)
    if not by_name:
        return None
    shown = dict(list(by_name.items())[:MAX_SERIES])
    traces, values = [], [1.0]
    for contender, items in shown.items():
        words = [f"{contender}, {name(c.case)}: {full(c.ratio, 'ratio')}, MaxVio {digits(c.violation)}" for c in items]
        figures = [c.ratio for c in items]
        ends = ([f.low for f in figures], [f.high for f in figures])
        look = view.palette.look(items[0].record)
        trace = line(contender, [c.violation for c in items], [f.value for f in figures], look, words, *ends)
        traces.append(trace | {"mode": "markers", "marker": {**trace["marker"], "size": 9}})
        values += [f.value for f in figures]
    layout = {
        "xaxis": {"title": {"text": "MaxVio of the skewed case"}},
        "yaxis": log_axis("Time of skewed over uniform routing", values, "ratio"),
        "hovermode": "closest",
        **reference_line(1.0),
    }
    hidden = len(by_name) - len(shown)
    more = f" In the table: {some(hidden, 'more implementation')}." if hidden else ""
    more += f" Left out: {some(len(every) - PAIRS, 'pair')} of less imbalance." if len(every) > PAIRS else ""
    return Plot(
        "skew",
        "Latency against imbalance",
        dearest(by_name),
        traces,
        layout,
        grid(view, found, by_name),
        note="Two cases of one run that differ in routing alone: their medians are of different contests. MaxVio: the "
        f"busiest expert's tokens over the mean, less one; that of the mixture also where a dense layer stands.{more}",
    )


def dearest(by_name: dict[str, list[Cost]]) -> str:
    """The range over the mixture's implementations, or over all where no mixture was timed."""
    mixtures = [c for items in by_name.values() for c in items if c.record.technique == MIXTURE]
    ranked = sorted(mixtures or [c for items in by_name.values() for c in items], key=lambda c: c.ratio.value)
    first, last = ranked[0], ranked[-1]
    text = (
        f"Skewed routing costs {last.record.contender} {show(last.ratio.value, 'ratio')} its time with uniform routing"
    )
    where = f"{name(last.case)}, MaxVio {digits(last.violation)}"
    if first is last:
        return f"{text} ({where})."
    return f"{text} at most ({where}) and {first.record.contender} {show(first.ratio.value, 'ratio')} at least."


def grid(view: View, found: Twins, by_name: dict[str, list[Cost]]) -> Html:
    """Implementations by pairs, MaxVio of both cases in the first row."""
    pairs = [(skewed, even) for skewed, even in found if any(c.case is skewed for x in by_name.values() for c in x)]
    heads = tag("tr", tag("th", "Implementation", scope="col"), [head(skewed) for skewed, _ in pairs])
    levels = [number(f"{known(violation(skewed))} over {known(violation(even))}") for skewed, even in pairs]
    rows = [row(["MaxVio, skewed over uniform", *levels])]
    for items in by_name.values():
        ratios = {c.case.id: c.ratio for c in items}
        cells = [number(full(ratios[c.id], "ratio") if c.id in ratios else DASH) for c, _ in pairs]
        rows.append(row([contender_name(view, items[0].record), *cells]))
    body = tag("table", tag("thead", heads), tag("tbody", rows), class_="grid")
    return tag("div", body, class_="scroll", tabindex="0", role="region", aria_label="Skewed over uniform routing")


def head(case: facts.Case) -> Html:
    """A skewed case's name with its link."""
    return tag("th", tag("a", name(case), href=link(page_of(case.id))), scope="col", class_="n")


def known(value: float | None) -> str:
    """A number, or a dash."""
    return DASH if value is None else digits(value)


def answer(view: View) -> str | None:
    """The best mixture's time with skewed routing over the best with uniform, over all layer cases with a twin."""
    found = []
    for skewed, even in twins(view):
        top, bottom = skewed.best(MIXTURE), even.best(MIXTURE)
        ratio = apart(view, top, bottom) if top is not None and bottom is not None else None
        if ratio is not None:
            found.append((ratio, skewed))
    if not found:
        return None
    ratio, case = max(found, key=lambda item: item[0].value)
    text = f"Skewed routing ({routing(case.first)}, {case.first.model}) costs the fastest mixture "
    text += f"{full(ratio, 'ratio')} its time with uniform routing in {told(case)}"
    at = violation(case)
    if at is not None:
        text += f" (the busiest expert has {digits(at + 1)} times the mean)"
    return f"{text}{', the most of ' + some(len(found), 'such case') if len(found) > 1 else ''}."
