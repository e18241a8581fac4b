"""Where a step's time goes: rollout, reward and update of both techniques, and what sharing and chunks save."""

from __future__ import annotations

import html

from harness.record import Record
from harness.units import DASH, full, show

from .. import facts
from ..figure import Plot, Trace, named_axis
from ..markup import Html
from ..palette import HUES
from ..table import number, row, table
from ..view import View
from .cases import LOGS, ROLLOUT, UPDATE, linked, of, pairs
from .memory import bar

PARTS = ("rollout", "reward", "update")
SAVERS = ((ROLLOUT, "A group that shares its prompt"), (UPDATE, "An update"), (LOGS, "Log-probabilities in chunks"))


def step_plot(view: View) -> Plot | None:
    """Stacked times of the largest course; None where nothing was timed of both."""
    found = pairs(view, "update_time")
    if not found:
        return None
    case, *records = found[0]
    names = [record.contender for record in records]
    traces: list[Trace] = []
    for place, part in enumerate(PARTS):
        values = [record.value(f"{part}_time") or 0.0 for record in records]
        trace = bar(part, values, names, HUES[place + 2])
        words = [f"{part}, {n}: {show(v, 'ns')}" for n, v in zip(names, values, strict=True)]
        traces.append({**trace, "text": [html.escape(word) for word in words]})
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "Milliseconds"}},
        "yaxis": named_axis(names),
        "hovermode": "closest",
    }
    note = "Medians of each part. Rollout: questions drawn, responses sampled. Reward: each judged by a program. "
    note += "Update: log-probabilities under the reference, values, advantages, and all updates on them."
    return Plot(
        "step-plot",
        f"A step's time, {case.first.model}",
        sentence(records[0], records[1]),
        traces,
        layout,
        step_table(view),
        note=note,
        height=240,
    )


def total(record: Record) -> float:
    """The parts' medians together."""
    return sum(record.value(f"{part}_time") or 0.0 for part in PARTS)


def sentence(ppo: Record, grpo: Record) -> str:
    """GRPO's step over PPO's, and the share of sampling in it."""
    share = (grpo.value("rollout_time") or 0.0) / total(grpo)
    return (
        f"A step of GRPO takes {show(total(grpo), 'ns')}, {show(total(grpo) / total(ppo), 'ratio')} PPO's; "
        f"{show(share, 'share')} of it is sampling."
    )


def step_table(view: View) -> Html:
    """Every course with both techniques."""
    rows = []
    for case, *records in pairs(view, "update_time"):
        for record in records:
            times = [number(show(record.value(f"{part}_time"), "ns")) for part in PARTS]
            rows.append(row([linked(case), record.contender, *times, number(show(total(record), "ns"))]))
    return table(["Course", "Contender", *(f">{part}" for part in PARTS), ">Together"], rows[:40])


def saved(view: View) -> Html | None:
    """Operations alone: the best of each technique against the reference, in time, peak memory and of the floor."""
    rows = []
    for operation, what in SAVERS:
        for case in of(view, operation):
            for technique in facts.techniques(case.records):
                best = ours(case, technique)
                reference = case_reference(case, technique)
                if best is not None and reference is not None:
                    rows.append(saved_row(view, case, what, best, reference))
    heads = ["What", "Case", "Contender", ">Time", ">Over the reference", ">Peak", ">Over the reference", ">Of floor"]
    return table(heads, rows[:60], label="What sharing and chunks save") if rows else None


def ours(case: facts.Case, technique: str) -> Record | None:
    """The fastest of a technique that is no reference."""
    return next((r for r in case.passed if r.technique == technique and r.kind == "optimized"), None)


def case_reference(case: facts.Case, technique: str) -> Record | None:
    """A technique's reference, timed."""
    return next((r for r in case.passed if r.technique == technique and r.kind == "reference"), None)


def saved_row(view: View, case: facts.Case, what: str, best: Record, reference: Record) -> Html:
    """One contender beside its reference."""
    ratio = view.ratio(best, reference)
    mine, other = best.value("peak"), reference.value("peak")
    peak = show(mine / other, "ratio") if mine is not None and other else DASH
    share = best.value("floor_share")
    return row(
        [
            what,
            linked(case),
            best.contender,
            view.cell(best, "latency"),
            number(full(ratio, "ratio") if ratio else DASH),
            view.cell(best, "peak"),
            number(peak),
            number(show(share, "share") if share is not None else DASH),
        ]
    )


def answer(view: View) -> str | None:
    """The largest course's times."""
    found = pairs(view, "update_time")
    return sentence(found[0][1], found[0][2]) if found else None
