"""What the machine did while a case was measured: readings in tables, and over time as lanes one below the other.

A record has medians and extremes; the run's folder has lanes, thinner where the run was recorded for keeping
(`harness/telemetry/lanes.py`). Wins where a time is doubted: a throttled second, a neighbour, a stolen core show here.
Loses what lies between two readings, 20 ms on a GPU and half a second on processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.record import Record, load_lanes
from harness.telemetry.lanes import thinned
from harness.units import DASH, MISSING, digits, listed, show, tidy, whole

from . import facts
from .figure import Plot, Trace, rounded, tabs
from .markup import Child, Html, join, tag
from .palette import HUES
from .table import Cell, number, row, table
from .view import View, mapping, plain

POINTS = 120  # a lane
DRAWN = 4  # devices with a figure of their own
HEIGHT = 96  # pixels a lane
READINGS = {
    "sm_clock_mhz": ("SM clock", "MHz"),
    "memory_clock_mhz": ("Memory clock", "MHz"),
    "power_w": ("Power", "W"),
    "temperature_c": ("Temperature", "°C"),
    "utilisation": ("Utilisation", "share"),
    "memory_used_bytes": ("Memory in use", "bytes"),
}
HOST = {
    "frequency_mhz": ("Frequency", "MHz"),
    "others": ("Load by others", "cores"),
    "steal": ("Stolen", "cores"),
    "switches": ("Cores taken away", "a second"),
    "waits": ("Waits", "a second"),
}
DRAWN_OF_GPU = ("sm_clock_mhz", "power_w", "temperature_c", "utilisation")
DRAWN_OF_HOST = ("frequency_mhz", "others", "steal", "switches")


@dataclass(frozen=True)
class Device:
    """A GPU or the processors: name, lanes by reading, and what each reading is called and counted in."""

    name: str
    lanes: Mapping[str, Sequence[float | None]]
    words: Mapping[str, tuple[str, str]]

    def known(self, reading: str) -> list[float]:
        """What was read of it."""
        return [value for value in self.lanes[reading] if value is not None]


def section(view: View, case: facts.Case) -> Html | None:
    """Doubts in words, tables of the records' readings, and lanes; None where nothing was recorded."""
    windows = grouped(case.records)
    found = devices(view, case)
    doubts = dict.fromkeys(why for record in case.records for why in doubted(record))
    return (
        join(
            [tag("p", text, class_="caution") for text in doubts],
            gpus(case, windows),
            processors(case, windows),
            tabs("devices", [(one.name, plot(one).html()) for one in found[:DRAWN]]) if found else None,
            lanes_table(found, case) if found else None,
        )
        or None
    )


def doubted(record: Record) -> Iterator[str]:
    """What the records of a case say against the machine, in sentences."""
    found = mapping(record.telemetry)
    for word, why in facts.cautions(record):
        if word in facts.OF_MACHINE:
            yield why
    others = plain(found.get("other_processes"))
    if others:
        yield f"{whole(others)} other {'process' if others == 1 else 'processes'} had the GPU open meanwhile."


def grouped(records: Sequence[Record]) -> list[tuple[str, Mapping[str, Any]]]:
    """Whose telemetry it is, and the telemetry: contenders that were measured in one window stand together."""
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for record in records:
        window = mapping(record.telemetry)
        if window:
            same = next((names for names, other in found if other == window), None)
            if same is None:
                found.append(([record.contender], window))
            else:
                same.append(record.contender)
    if len(found) == 1 and len(found[0][0]) > 1:
        return [("All, in turn", found[0][1])]
    return [(listed(names), window) for names, window in found]


def gpus(case: facts.Case, windows: Sequence[tuple[str, Mapping[str, Any]]]) -> Html | None:
    """Clocks, power and temperature of the GPU by median and extremes."""
    rows = []
    for names, found in windows:
        if any(name in found for name in READINGS):
            energy, others = plain(found.get("energy_j")), plain(found.get("other_processes"))
            rows.append(
                row(
                    [
                        names,
                        *(reading(found.get(name), unit) for name, (_, unit) in READINGS.items()),
                        number(f"{digits(energy)} J" if energy is not None else MISSING),
                        ", ".join(map(str, found.get("throttle") or [])) or "none",
                        number(whole(others) if others is not None else "not told"),
                    ]
                )
            )
    if not rows:
        return None
    columns = ["Contenders", *(f">{title}" for title, _ in READINGS.values())]
    columns += [">Energy", "Throttling", ">Other processes"]
    lead = tag(
        "p",
        "Median, with the least and greatest reading. Energy is the counter's advance over the whole window, all "
        "contenders and what lies between them included.",
    )
    return join(lead, table(columns, rows, label=f"GPU while {case.id} was measured"))


def processors(case: facts.Case, windows: Sequence[tuple[str, Mapping[str, Any]]]) -> Html | None:
    """What the processors did: frequency, work of others, stolen time, and how often a core was lost."""
    rows = [
        row([names, *(reading(host.get(name), unit) for name, (_, unit) in HOST.items())])
        for names, found in windows
        if (host := mapping(found.get("host")))
    ]
    if not rows:
        return None
    lead = tag(
        "p",
        "Load by others: cores that worked for somebody else, of those we may use. Stolen: cores that the hypervisor "
        "gave to another machine. Taken away: how often a core was taken from a thread that could go on; a wait is a "
        "thread that gave it up itself.",
    )
    columns = ["Contenders", *(f">{title}" for title, _ in HOST.values())]
    return join(lead, table(columns, rows, label=f"Processors while {case.id} was measured"))


def reading(value: Any, unit: str) -> Cell:
    """One sensor: its median and range, or that it was not recorded."""
    found = mapping(value)
    middle = plain(found.get("median", value))
    if middle is None:
        return number(tag("span", DASH, class_="quiet"), note=MISSING)
    low, high = plain(found.get("min")), plain(found.get("max"))
    bounds = (
        f"{tidy(low)} to {tidy(high)}"
        if low is not None and high is not None and unit not in ("bytes", "share")
        else None
    )
    return number(tag("span", amount(middle, unit), tag("small", bounds) if bounds else None, class_="v"))


def amount(value: float, unit: str) -> str:
    """A reading with its unit."""
    if unit in ("bytes", "share"):
        return show(value, unit)
    return f"{digits(value) if unit in ('cores', 'a second') else tidy(value)} {unit}"


def devices(view: View, case: facts.Case) -> list[Device]:
    """GPUs and processors of which there are lanes."""
    kept = thinned(load_lanes(view.run.folder, case.id), POINTS)
    pairs = [(f"GPU {index}", lanes, READINGS) for index, lanes in enumerate(kept["gpus"])]
    pairs.append(("Processors", kept["host"], HOST))
    return [Device(name, lanes, words) for name, lanes, words in pairs if set(lanes) & set(words)]


def plot(device: Device) -> Plot:
    """Its lanes, one below the other; a point is the reading of its stretch that is furthest off."""
    wanted = DRAWN_OF_HOST if device.words is HOST else DRAWN_OF_GPU
    shown = [name for name in wanted if name in device.lanes]
    traces: list[Trace] = []
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": "Since the measurement began, s"},
            "anchor": f"y{len(shown)}" if len(shown) > 1 else "y",
        },
        "showlegend": False,
        "hovermode": "closest",
    }
    share = 1 / len(shown)
    for place, name in enumerate(shown):
        title, unit = device.words[name]
        suffix = str(place + 1) if place else ""
        top = 1 - place * share
        layout[f"yaxis{suffix}"] = {
            "title": {"text": f"{title},<br>{unit}"},
            "domain": [round(max(0.0, top - 0.84 * share), 4), round(top, 4)],
            "nticks": 4,
            "rangemode": "nonnegative",
            **({"tickformat": ".0%"} if unit == "share" else {}),
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": title,
                "x": list(device.lanes["seconds"]),
                "y": [None if value is None else rounded(value) for value in device.lanes[name]],
                "yaxis": f"y{suffix}",
                "line": {"color": HUES[2], "width": 1.5},
                "hovertemplate": f"%{{x}} s: %{{y}} {'' if unit == 'share' else unit}<extra>{title}</extra>",
            }
        )
    return Plot(
        f"lanes-{device.name.replace(' ', '-').lower()}",
        f"{device.name} over the measurement",
        takeaway(device, shown),
        traces,
        layout,
        table(["Reading", ">Median", ">Least", ">Greatest"], rows_of(device)),
        note=f"At most {POINTS} points a lane: each is the reading of its stretch that lies furthest from the median.",
        height=70 + HEIGHT * len(shown),
    )


def takeaway(device: Device, shown: Sequence[str]) -> str:
    """How far each lane went, in a sentence."""
    parts = []
    for name in shown:
        title, unit = device.words[name]
        known = device.known(name)
        low, high = amount(min(known), unit), amount(max(known), unit)
        lower = title if title == "SM clock" else title[0].lower() + title[1:]
        parts.append(f"{lower} stayed at {low}" if low == high else f"{lower} lay between {low} and {high}")
    return f"{device.name}: {listed(parts)}."


def rows_of(device: Device, *before: Child) -> list[Html]:
    """Median, least and greatest of each lane, after the cells given."""
    rows = []
    for name, (title, unit) in device.words.items():
        if name in device.lanes:
            known = device.known(name)
            cells = (number(amount(value, unit)) for value in (median(known), min(known), max(known)))
            rows.append(row([*before, title, *cells]))
    return rows


def lanes_table(found: Sequence[Device], case: facts.Case) -> Html | None:
    """The devices that have no figure of their own, in numbers."""
    if len(found) <= DRAWN:
        return None
    rows = [line for device in found[DRAWN:] for line in rows_of(device, device.name)]
    label = f"Further devices while {case.id} was measured"
    return table(["Device", "Reading", ">Median", ">Least", ">Greatest"], rows, label=label)
