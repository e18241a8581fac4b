"""A speculative step taken apart: what it yields by depth, what drafting and verifying cost, and which drafts stand."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence

from harness.record import Figure, Record
from harness.units import DASH, digits, listed, show, some

from ..figure import MAX_SERIES, Plot, Trace, log_axis, named_axis, reference_line, rounded
from ..lines import across
from ..markup import Html
from ..palette import HUES, Look
from ..table import number, row, table
from ..view import View, plain
from .cases import LOSS, MTP, PARALLEL, Drafting, capped, draftings, linked, of, reaches, row_names, span
from .speed import drafting_table

ROWS = 22


def stands(record: Record) -> list[float]:
    """By depth: how often a draft stood whose predecessors stood; up to the first that is not told."""
    found = []
    for value in record.series.get("acceptance_by_depth") or ():
        share = plain(value)
        if share is None or not math.isfinite(share):
            break
        found.append(share)
    return found


def yields(shares: Sequence[float]) -> list[float]:
    """Tokens a step with the first 0, 1, ... of the drafts: 1 + p1 + p1 p2 + ..."""
    found, all_stand = [1.0], 1.0
    for share in shares:
        all_stand *= share
        found.append(found[-1] + all_stand)
    return found


def told(view: View) -> list[tuple[Drafting, list[float]]]:
    """Cases whose drafts are told by depth, deepest first, then by batch."""
    found = [(one, shares) for one in draftings(view) if (shares := stands(one.drafted))]
    return sorted(found, key=lambda item: (-len(item[1]), item[0].batch))


def depth_plot(view: View) -> Plot | None:
    """Tokens a step as bars of the sure one and of each draft; None where no acceptance is told."""
    found = told(view)
    if not found:
        return None
    shown = found[:ROWS]
    names = row_names([one.case for one, _ in shown])
    deepest = min(max(len(shares) for _, shares in shown), MAX_SERIES - 1)
    bars = [(names[one.case.id], yields(shares)) for one, shares in shown]
    traces = [stacked(draft, bars) for draft in range(deepest + 1)]
    layout = {
        "xaxis": {"title": {"text": "Tokens a step"}, "range": [0, deepest + 1.05], "dtick": 0.5},
        "yaxis": named_axis(list(names.values())),
        "barmode": "stack",
        "legend": {"traceorder": "normal"},
        "hovermode": "closest",
    }
    note = "Counted, of a sequence on the prompts that were timed: one token that is always right, and each draft "
    note += "whose predecessors stood. Published for DeepSeek-V3, one draft accepted in 85 to 90 %: 1.85 to 1.90."
    note += f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        "depth",
        "Tokens a step by depth",
        deepest_told(found[0]),
        traces,
        layout,
        depth_table(found),
        note=note,
        height=180 + 30 * len(shown),
    )


def stacked(draft: int, bars: Sequence[tuple[str, Sequence[float]]]) -> Trace:
    """What one draft adds to every bar that has it; 0 is the token that is always right."""
    kept = [(name, values) for name, values in bars if draft < len(values)]
    added = [values[draft] - (values[draft - 1] if draft else 0.0) for _, values in kept]
    word = f"draft {draft}" if draft else "always right"
    return {
        "type": "bar",
        "orientation": "h",
        "name": word,
        "y": [html.escape(name) for name, _ in kept],
        "x": [rounded(value) for value in added],
        "width": 0.65,
        "marker": {"color": HUES[(6, 2, 0, 3, 1, 4, 5, 2)[draft]]},
        "text": [html.escape(f"{name}, {word}: {digits(v)}") for (name, _), v in zip(kept, added, strict=True)],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def deepest_told(first: tuple[Drafting, list[float]]) -> str:
    """What each further draft adds in the deepest case."""
    one, shares = first
    values = yields(shares)
    text = f"At {one.setting} a step yields {digits(values[-1])} tokens of at most {len(shares) + 1}"
    if len(shares) == 1:
        return f"{text}: its draft stood in {show(shares[0], 'share')} of steps."
    added = [f"{digits(b - a, 2)}" for a, b in itertools.pairwise(values)]
    return f"{text}; its drafts add {listed(added)}, one after the other."


def depth_table(found: Sequence[tuple[Drafting, list[float]]]) -> Html:
    """How often each draft stood, and tokens a step."""
    most = max(len(shares) for _, shares in found)
    rows = []
    for one, shares in found:
        cells = [number(show(shares[k], "share") if k < len(shares) else DASH) for k in range(most)]
        rows.append(row([linked(one.case), *cells, number(digits(yields(shares)[-1]))]))
    return table(["Case", *(f">Draft {k + 1} stood" for k in range(most)), ">Tokens a step"], capped(rows))


def cost_plot(view: View) -> Plot | None:
    """The cost of a speculative step beside what it yields, case by case; None where no control was timed."""
    found = [one for one in draftings(view) if one.cost is not None]
    if not found:
        return None
    shown = found[:ROWS]
    names = row_names([one.case for one in shown])
    costs = {names[one.case.id]: cost for one in shown if (cost := one.cost) is not None}
    gains = {names[one.case.id]: Figure(gain) for one in shown if (gain := one.gain)}
    traces = [across("cost of a step, 1 + c (measured)", costs, Look(HUES[1], "solid", "circle", 1.0))]
    if gains:
        traces.append(across("fewer steps (counted)", gains, Look(HUES[2], "solid", "diamond-open", 1.0)))
    drawn = [1.0, *(reach for known in (costs, gains) for figure in known.values() for reach in reaches(figure))]
    layout = {
        "xaxis": log_axis("Over plain decoding", drawn, "ratio"),
        "yaxis": named_axis(list(names.values())),
        "hovermode": "closest",
        **reference_line(1.0, upright=True),
    }
    note = "Drafting pays where the diamond lies right of the dot. The cost is the time of a control that drafts and "
    note += "verifies as many steps as plain decoding takes and keeps no draft, over plain decoding's, prompts included"
    note += "; drafting and verifying are not told apart. Whiskers are 95 % intervals."
    note += f" In the table: {some(len(found) - ROWS, 'more case')}." if len(found) > ROWS else ""
    return Plot(
        "cost-plot",
        "Cost and yield of a speculative step",
        pays(found),
        traces,
        layout,
        drafting_table(found),
        note=note,
        height=190 + 30 * len(shown),
    )


def pays(found: Sequence[Drafting]) -> str:
    """The range of costs and gains, and in how many cases the steps saved outweigh the cost."""
    known = [(one.cost.value, one.gain) for one in found if one.cost and one.gain]
    costs = [one.cost.value for one in found if one.cost]
    text = f"A speculative step costs {span(costs, 'ratio')} a plain one"
    if not known:
        return f"{text}; how many steps it saves was not recorded."
    gains = [gain for _, gain in known]
    ahead = sum(gain > cost for cost, gain in known)
    text += f" and there are {span(gains, 'ratio')} fewer of them: they outweigh the cost in {ahead} of "
    return f"{text}{some(len(known), 'case')}."


def trained_table(view: View) -> tuple[str, Html] | None:
    """How drafts of models trained in this run fare, greedily and sampled: a sentence and a table; None without any."""
    rows: list[Html] = []
    greedy: dict[str, list[float]] = {}
    for technique in (MTP, PARALLEL):
        for case in of(view, LOSS):
            best = next((r for r in case.records if r.technique == technique and r.status == "passed"), None)
            if best is None or best.value("acceptance") is None:
                continue
            greedy.setdefault(technique, []).append(best.figures["acceptance"].value)
            cells = [view.cell(best, metric) for metric in ("acceptance", "acceptance_sampled")]
            rows.append(row([linked(case), technique, *cells]))
    if not rows:
        return None
    parts = [f"{span(v, 'share')} of steps with {t} ({some(len(v), 'model')})" for t, v in greedy.items()]
    sentence = f"In models trained in this run first drafts stood, decoding greedily, in {listed(parts)}."
    return sentence, table(["Case", "Technique", ">Greedy", ">Sampled at temperature 1"], capped(rows))
