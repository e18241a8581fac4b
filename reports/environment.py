"""What a run was measured on, and what its words mean: read this before trusting or comparing a number."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from harness.record import STATUSES
from harness.units import MISSING, digits, listed, show, tidy, whole

from . import facts
from .figure import Plot, Trace, rounded
from .markup import Child, Html, join, tag
from .palette import HUES, Look
from .table import number, pairs, row, table
from .view import CPU_SENTENCE, View, mapping, plain

LANES = (("sm_clock_mhz", "SM clock", "MHz"), ("power_w", "Power", "W"), ("temperature_c", "Temperature", "°C"))
CAUTIONS = {
    "suspect": "Faster than 105 % of what the measured ceilings allow. Measured again, shown, not believed.",
    "host-bound": "The host could not keep the GPU's queue full, so this is wall time with launches in it.",
    "unpaired": "Timed apart from the baseline, for example because both do not fit in memory; drift is in the ratio.",
    "throttled": "The GPU lowered its clocks meanwhile, for the reason in the telemetry table.",
    "low clock": "The SM clock was more than 5 % below the median of the run, also when measured a second time.",
    "measured again": "The SM clock was that low the first time; what is shown is the second measurement.",
    "few rounds": "Too few rounds for an interval.",
    "changed since": "The implementation's file in this checkout is not the one that was measured.",
    "dirty tree": "The checkout had uncommitted changes when it was measured.",
    "CPU": CPU_SENTENCE,
}


def page(view: View) -> Html:
    """The content of the environment page."""
    header, machine = view.run.header, view.machine
    return join(
        tag("p", "Environment", class_="kicker"),
        tag("h1", "Can these numbers be trusted, and what do they mean?"),
        tag("p", answer(view), class_="answer"),
        block("Machine", [("CPU", mapping(machine.get("cpu"))), *gpus(machine)]),
        others_on_gpu(machine),
        ceilings(view),
        clocks(view),
        block("Software", [("", mapping(machine.get("software")))]),
        block("Code", [("", mapping(machine.get("git")))]),
        block("What was asked for", [("", mapping(header.options))]),
        problems(view),
        words(view),
        tag(
            "section",
            tag("h2", "What this does not show"),
            tag(
                "p",
                "Whether another machine of the same name behaves alike: cooling, power limits, drivers and "
                "neighbours differ. Compare runs of one machine.",
            ),
        ),
    )


def answer(view: View) -> str:
    """What stands against this run, in a sentence or two."""
    doubts = []
    if view.dirty:
        doubts.append("the checkout had uncommitted changes")
    found = [word for record in view.run.records for word, _ in facts.cautions(record)]
    for word in ("suspect", "host-bound", "unpaired", "throttled"):
        count = found.count(word)
        doubts += [f"{count} {'record is' if count == 1 else 'records are'} {word}"] if count else []
    busy = [gpu for gpu in machines(view.machine) if gpu.get("processes")]
    if busy:
        doubts.append("other processes were on the GPU")
    records = view.run.records
    verified = sum(map(facts.verified, records))
    start = f"{verified} of {len(records)} records were verified and timed on {view.label}"
    others = sum(record.status == "passed" for record in records) - verified
    if others:
        start += f"; {others} more passed without a reference to compare with, such as training and counted loads"
    return f"{start}, but {listed(doubts)}." if doubts else f"{start}; nothing in the records speaks against them."


def machines(machine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The GPUs' entries."""
    found = machine.get("gpus")
    return [mapping(gpu) for gpu in found] if isinstance(found, list) else []


def gpus(machine: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each GPU with a heading."""
    return [(f"GPU {index}", gpu) for index, gpu in enumerate(machines(machine))]


def block(title: str, parts: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    """A section of names and values."""
    content: list[Child] = []
    for name, found in parts:
        content.append(tag("h3", name) if name else None)
        items = [(title_of(key), entry(key, value)) for key, value in found.items()]
        content.append(pairs(items) if items else tag("p", f"{MISSING.capitalize()}.", class_="quiet"))
    return tag("section", tag("h2", title), content)


def title_of(key: str) -> str:
    """A fact's name without its unit."""
    for suffix in ("_bytes", "_w", "_mhz"):
        key = key.removesuffix(suffix)
    return key.replace("_", " ")


def entry(key: str, value: Any) -> str:
    """A fact in words, by what its name says of its unit."""
    if value is None or value == {}:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    found = plain(value)
    if found is not None and key.endswith("_bytes"):
        return show(found, "bytes")
    if found is not None and key.endswith("_w"):
        return f"{tidy(found)} W"
    if found is not None and key.endswith("_mhz"):
        return f"{tidy(found)} MHz"
    if isinstance(value, float):
        return digits(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(entry(key, item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry(name, item)}" for name, item in value.items())
    return str(value)


def others_on_gpu(machine: Mapping[str, Any]) -> Html | None:
    """Who else used the GPU; None on a machine without one."""
    found = machines(machine)
    if not found:
        return None
    lines = []
    for index, gpu in enumerate(found):
        processes = gpu.get("processes")
        if processes is None:
            lines.append(f"GPU {index}: not recorded.")
        elif not processes:
            lines.append(f"GPU {index}: none.")
        else:
            lines.append(f"GPU {index}: {entry('processes', processes)}. They may have slowed what was measured.")
    return tag("section", tag("h2", "Other processes on the GPU"), [tag("p", text) for text in lines])


def ceilings(view: View) -> Html:
    """The measured limits that floors are computed from."""
    found = mapping(view.run.header.ceilings)
    items: list[tuple[str, Child]] = []
    for name, title in (("read_bandwidth", "Reading"), ("copy_bandwidth", "Copying, both ways counted")):
        value = plain(found.get(name))
        items.append((title, show(value, "bytes/s")))
    for dtype, rate in mapping(found.get("matrix")).items():
        items.append((f"Matrix product, {dtype}", show(plain(rate), "FLOP/s")))
    lead = "The best of several tries in this run, not the data sheet: a floor is computed from these."
    return tag("section", tag("h2", "Measured ceilings"), tag("p", lead), pairs(items))


def clocks(view: View) -> Html | None:
    """Clock, power and temperature case by case; None on a CPU."""
    if not view.on_gpu:
        return None
    lanes = [lane(view, *words) for words in LANES]
    drawn = [plot.html() for plot in lanes if plot is not None]
    return tag(
        "section",
        tag("h2", "Clocks, power and temperature"),
        drawn or tag("p", "Not recorded: NVML was not available or no sample fell into a case."),
    )


def lane(view: View, name: str, title: str, unit: str) -> Plot | None:
    """One sensor over the cases in order: its median, with the range as an interval."""
    points = []
    for case in view.cases:
        found = next(
            (mapping(r.telemetry.get(name)) for r in case.records if r.telemetry and r.telemetry.get(name)), {}
        )
        median, low, high = (plain(found.get(key)) for key in ("median", "min", "max"))
        if median is not None:
            points.append((case.id, median, median if low is None else low, median if high is None else high))
    if not points:
        return None
    x = list(range(1, len(points) + 1))
    look = Look(HUES[2], "solid", "circle", 1.0)
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "name": title,
        "x": x,
        "y": [rounded(p[1]) for p in points],
        "marker": {"color": look.colour, "size": 7},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [rounded(p[3] - p[1]) for p in points],
            "arrayminus": [rounded(p[1] - p[2]) for p in points],
            "thickness": 1.2,
            "width": 3,
        },
        "text": [html.escape(f"{p[0]}: {tidy(p[1])} {unit}") for p in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    least, most = min(p[2] for p in points), max(p[3] for p in points)
    rows = [row([p[0], *(number(f"{tidy(v)} {unit}") for v in p[1:])]) for p in points]
    return Plot(
        f"lane-{name.replace('_', '-')}",
        title,
        f"{title} lay between {tidy(least)} and {tidy(most)} {unit}.",
        [trace],
        {
            "xaxis": {"title": {"text": "Case, in the order measured"}},
            "yaxis": {"title": {"text": f"{title}, {unit}"}},
            "showlegend": False,
            "hovermode": "closest",
        },
        table(["Case", ">Median", ">Least", ">Greatest"], rows),
        height=260,
    )


def problems(view: View) -> Html | None:
    """Lines of the run that could not be used."""
    found = view.run.problems
    if not found:
        return None
    more = f"… and {whole(len(found) - 50)} more." if len(found) > 50 else None
    return tag(
        "section", tag("h2", "Parts that could not be read"), tag("ul", [tag("li", p) for p in found[:50]]), more
    )


def words(view: View) -> Html:
    """Metrics, statuses and cautions, each in a sentence."""
    arrows = {"lower": "lower is better", "higher": "higher is better", "neither": "neither way is better"}
    rows = [
        row([name.replace("_", " "), m.unit, arrows.get(m.better, m.better), m.meaning])
        for name, m in view.metrics.items()
    ]
    return tag(
        "section",
        tag("h2", "Words"),
        tag("h3", "Metrics"),
        table(["Metric", "Unit", "Direction", "Meaning"], rows, class_="prose", label="Metrics"),
        tag("h3", "Statuses"),
        pairs([(facts.status_words(name), text) for name, text in STATUSES.items()]),
        tag("h3", "Cautions"),
        pairs(list(CAUTIONS.items())),
        id="words",
    )
