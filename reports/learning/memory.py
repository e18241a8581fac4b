"""Who holds the memory of a step: bytes of policy, critic and reference as read off, beside the arithmetic."""

from __future__ import annotations

import html

from harness.record import Record
from harness.units import DASH, show

from .. import facts
from ..figure import Plot, Trace, marks, named_axis, rounded
from ..markup import Html
from ..palette import HUES
from ..table import number, row, table
from ..view import View
from .cases import GRPO, PPO, linked, pairs, stands

OWNERS = ("policy", "critic", "reference")
KINDS = ("parameters", "gradients", "optimizer states")
REST = "activations and caches"


def whole(record: Record) -> float | None:
    """Resident and peak of a step together; None where it was not measured."""
    resident, peak = record.value("resident"), record.value("peak")
    return resident + peak if resident is not None and peak is not None else None


def parts(record: Record) -> dict[str, float]:
    """Bytes by owner, and what the peak has on top of them."""
    found = {owner: record.value(f"{owner}_bytes") or 0.0 for owner in OWNERS}
    total = whole(record)
    return {**found, REST: max(0.0, total - sum(found.values()))} if total is not None else found


def memory_plot(view: View) -> Plot | None:
    """Stacked bytes of the largest course, a row a technique; None where nothing was measured of both."""
    found = pairs(view, "owned_bytes")
    if not found:
        return None
    case, *records = found[0]
    names = [record.contender for record in records]
    each = [parts(record) for record in records]
    traces: list[Trace] = []
    for place, part in enumerate((*OWNERS, REST)):
        values = [one.get(part, 0.0) for one in each]
        if any(values):
            traces.append(bar(part, values, names, HUES[place + 2]))
    counted = [record.value("arithmetic_bytes") or 0.0 for record in records]
    told = [f"by arithmetic, {n}: {show(v, 'bytes')}" for n, v in zip(names, counted, strict=True)]
    traces.append(marks("by arithmetic", [rounded(v / 1e6) for v in counted], names, told))
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "MB"}},
        "yaxis": named_axis(names),
        "hovermode": "closest",
    }
    note = "Read off the tensors in an update: parameters, gradients and AdamW's two moments of what is trained, and "
    note += "the frozen reference. The stroke is arithmetic: 16 bytes a trained parameter, and the reference's own. "
    note += "Policy and critic share one optimizer's step; taking turns would free one's gradients before the other's."
    return Plot(
        "memory-plot",
        f"Memory by owner, {case.first.model}",
        sentence(records[0], records[1]),
        traces,
        layout,
        memory_table(view),
        note=note,
        height=260,
    )


def bar(name: str, values: list[float], rows: list[str], colour: str) -> Trace:
    """One part of each row."""
    words = [f"{name}, {r}: {show(v, 'bytes')}" for r, v in zip(rows, values, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [rounded(v / 1e6) for v in values],
        "y": [html.escape(row_) for row_ in rows],
        "marker": {"color": colour},
        "text": [html.escape(word) for word in words],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def sentence(ppo: Record, grpo: Record) -> str:
    """GRPO over PPO: what is owned, and with activations."""
    mine, other = grpo.value("owned_bytes") or 0.0, ppo.value("owned_bytes") or 1.0
    text = f"A step of GRPO holds {show(mine, 'bytes')} of models, gradients and optimizer states, PPO's "
    text += f"{show(other, 'bytes')}: {show(mine / other, 'ratio')}"
    both = whole(grpo), whole(ppo)
    if both[0] is not None and both[1]:
        text += f"; at its peak, with activations and caches, {show(both[0] / both[1], 'ratio')}"
    return f"{text}."


def memory_table(view: View) -> Html:
    """Every course: bytes by owner and kind, together, by arithmetic, at the peak."""
    rows = []
    for case, _, _ in pairs(view, "owned_bytes"):
        rows += [line_of(case, record) for t in (PPO, GRPO) if (record := stands(case, t)) is not None]
    heads = [f">{owner}" for owner in OWNERS]
    return table(["Course", "Contender", *heads, ">Together", ">By arithmetic", ">At the peak"], rows[:40])


def line_of(case: facts.Case, record: Record) -> Html:
    """One contender; each owner's cell says its kinds on hovering."""
    cells = []
    for owner in OWNERS:
        kinds = record.series.get(f"owned_{owner}") or ()
        told = ", ".join(f"{kind} {show(v, 'bytes')}" for kind, v in zip(KINDS, kinds, strict=False))
        cells.append(number(show(record.value(f"{owner}_bytes"), "bytes"), note=told or None))
    together = [number(show(record.value(name), "bytes")) for name in ("owned_bytes", "arithmetic_bytes")]
    total = whole(record)
    peak = number(DASH if total is None else show(total, "bytes"))
    return row([linked(case), record.contender, *cells, *together, peak])


def answer(view: View) -> str | None:
    """The largest course's ratio."""
    found = pairs(view, "owned_bytes")
    return sentence(found[0][1], found[0][2]) if found else None
