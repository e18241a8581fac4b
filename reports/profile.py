"""What `make profile` found of a case, on its page: kernels, gaps in which the device waits, memory, Python, counters.

A table of a profile is drawn by what `COLUMNS` says of its rows; a column in which no row has a value is left out, so
a CPU's profile has no column of launches. Traces and snapshots are copied into the site, so that a copy of it is
whole. Loses what the viewers of those files show: order in time.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.profiling.file import CHANGED, FOLDER, TOOLS, Profile, folder_of, read_case
from harness.record import Record, slug
from harness.units import digits, listed, show, some

from . import facts
from .figure import Plot, rounded
from .markup import Child, Html, join, tag
from .palette import HUES
from .samples import spaced
from .table import Cell, number, row, table
from .view import View, link, mapping, plain

ROWS = 12
POINTS = 1000
LARGEST = 64 * 2**20  # bytes of a file that is copied into the site
Column = tuple[str, str, str]  # title, key in a row, unit
RATES: tuple[Column, ...] = (
    ("FLOP rate", "flop_rate", "FLOP/s"),
    ("Byte rate", "byte_rate", "bytes/s"),
    ("Of the nearer ceiling", "ceiling_share", "share"),
)
PIECES: tuple[Column, ...] = (
    ("Bytes", "bytes", "bytes"),
    ("Pieces", "count", "count"),
    ("Largest", "largest", "bytes"),
)
COLUMNS: dict[str, tuple[str, str, tuple[Column, ...]]] = {  # by table: title, key of its names, columns
    "kernels": (
        "Kernels",
        "name",
        (("Time", "device_ns", "ns"), ("Share", "share", "share"), ("Launches", "calls", "count"), *RATES),
    ),
    "operators": (
        "Operators",
        "name",
        (
            ("On the GPU", "device_ns", "ns"),
            ("On the host", "own_ns", "ns"),
            ("Share", "share", "share"),
            ("Calls", "calls", "count"),
            ("Launches", "launches", "count"),
            *RATES,
        ),
    ),
    "gaps": ("Gaps between kernels", "gap", (("A call", "ns", "ns"), ("In all calls", "count", "count"))),
    "holders": ("Held at the highest point", "operator", PIECES),
    "allocated": ("Allocated by one call, freed or not", "operator", PIECES),
    "functions": (
        "Python",
        "name",
        (
            ("Own time", "own_ns", "ns"),
            ("Share", "share", "share"),
            ("With callees", "total_ns", "ns"),
            ("Calls", "calls", "count"),
        ),
    ),
    "counters": (
        "Counters by kernel",
        "name",
        (
            ("Time", "device_ns", "ns"),
            ("DRAM read", "dram_read_bytes", "bytes"),
            ("DRAM written", "dram_write_bytes", "bytes"),
            ("L2", "l2_bytes", "bytes"),
            ("Of DRAM", "dram_percent", "%"),
            ("Of the SMs", "sm_percent", "%"),
            ("Tensor instructions", "tensor_instructions", "count"),
        ),
    ),
}
SECOND = {"gaps": "Waits for", "holders": "Phase", "allocated": "Phase"}
FILES = {
    "trace": "a Chrome trace, for chrome://tracing or Perfetto",
    "snapshot": "a memory snapshot, for torch's memory_viz",
    "report": "a report for Nsight Compute's viewer",
    "pstats": "cProfile's statistics, for python -m pstats",
}


def section(view: View, case: facts.Case) -> Html | None:
    """Every profile of the case; None without any."""
    profiles, problems = read_case(view.run.folder, case.id)
    tools = list(TOOLS)
    profiles.sort(key=lambda profile: (profile.contender, tools.index(profile.tool)))
    body = [one(view, case, profile) for profile in profiles]
    told = [tag("p", f"A profile could not be read: {problem}.", class_="caution") for problem in problems]
    return join(*told, *body) or None


def one(view: View, case: facts.Case, profile: Profile) -> Html:
    """One profile: what it says in sentences, its tables, its files."""
    record = next((r for r in case.records if r.contender == profile.contender), None)
    cautions = [*unlike(view, record, profile), *map(str, profile.notes)]
    return join(
        tag("h3", f"{profile.contender}, by {profile.tool}"),
        tag("p", " ".join(sentences(profile))),
        [tag("p", f"{text[:1].upper()}{text[1:]}.".replace("..", "."), class_="caution") for text in cautions],
        timeline(profile),
        [rows_of(profile, name) for name in COLUMNS],
        files(view, profile),
    )


def unlike(view: View, record: Record | None, profile: Profile) -> Iterator[str]:
    """In what the profile is not of what the run measured."""
    label = mapping(profile.machine).get("label")
    if label != view.machine.get("label"):
        yield f"it was taken on another machine, {label}"
    measured = None if record is None else record.source.get("digest")
    if measured and profile.source.get("digest") != measured and CHANGED not in profile.notes:
        yield CHANGED


def sentences(profile: Profile) -> Iterator[str]:
    """The figures in words, by tool."""

    def said(name: str, unit: str) -> str | None:
        value = plain(profile.figures.get(name))
        return None if value is None else show(value, unit)

    yield f"Means of {some(profile.calls, 'call')}, {str(profile.started)[:16].replace('T', ' ')}."
    wall = said("wall_ns", "ns")
    if wall:
        yield f"A call took {wall} under the profiler, which slows the host down."
    names = {"device_busy_ns": "busy", "waits_for_host_ns": "waiting for the host", "other_gaps_ns": "in other gaps"}
    spent = [f"{text} {word}" for name, word in names.items() if (text := said(name, "ns"))]
    if spent:
        yield f"From its first kernel to its last the GPU was {listed(spent)}."
    if peak := said("peak_bytes", "bytes"):
        yield f"The highest point of a call is {peak} above the {said('held_before_bytes', 'bytes')} held before it."
    if submit := said("submit_ns", "ns"):
        yield f"A call returns after {submit}; {said('python_share', 'share')} of it under cProfile is Python's own."
    for name, what in (("dram_over_model", "DRAM traffic"), ("tensor_flops_over_model", "Tensor-core work")):
        value = plain(profile.figures.get(name))
        if value is not None:
            yield f"{what} is {digits(value)} times the cost model's."


def rows_of(profile: Profile, name: str) -> Html | None:
    """One table, its longest rows first as the profile has them; None where it is empty."""
    rows = [mapping(found) for found in profile.tables.get(name, ())]
    if not rows:
        return None
    title, key, columns = COLUMNS[name]
    kept = [column for column in columns if any(plain(found.get(column[1])) is not None for found in rows)]
    second = SECOND.get(name)
    heads = [title, *([second] if second else []), *(f">{head}" for head, _, _ in kept)]
    body = [row([*named(found, name, key), *(cell(found, column) for column in kept)]) for found in rows[:ROWS]]
    more = tag("p", f"And {some(len(rows) - ROWS, 'row')} more in the profile's file.") if len(rows) > ROWS else None
    return join(table(heads, body, label=f"{title}, {profile.contender} by {profile.tool}"), more)


def named(found: Mapping[str, Any], name: str, key: str) -> list[Child]:
    """What a row is called, and what else its table says of it in words."""
    if name == "gaps":
        waits = "the host" if found.get("host") else "the device"
        return [join(short(found.get("after")), " → ", short(found.get("before"))), waits]
    return [short(found.get(key)), *([str(found.get("phase") or "")] if name in SECOND else [])]


def short(name: object, most: int = 72) -> Html:
    """A kernel's name, whose whole length is its tooltip."""
    text = str(name)
    return tag("code", text if len(text) <= most else f"{text[: most - 1]}…", title=text if len(text) > most else None)


def cell(found: Mapping[str, Any], column: Column) -> Cell:
    """One figure of a row; its share is drawn behind it."""
    _, key, unit = column
    value = plain(found.get(key))
    if value is None:
        return number("")
    shown = f"{digits(value)} %" if unit == "%" else show(value, unit)
    return number(shown, share=value if key == "share" else None)


def timeline(profile: Profile) -> Html | None:
    """Memory over the time of a profile; None of other tools."""
    points = [pair for pair in profile.timeline if len(pair) == 2]
    if len(points) < 2:
        return None
    top = max(range(len(points)), key=lambda place: points[place][1])
    points = [points[place] for place in sorted({*spaced(len(points), POINTS).tolist(), top})]
    when, held = [rounded(pair[0] / 1e6) for pair in points], [rounded(pair[1] / 1e6) for pair in points]
    most = max(range(len(held)), key=lambda place: held[place])
    phases = [f"{name} {show(plain(length), 'ns')}" for name, length in profile.phases_ns.items()]
    ends = [("At the start", 0), ("At the highest point", most), ("At the end", len(held) - 1)]
    body = [row([word, number(f"{digits(when[at])} ms"), number(f"{digits(held[at])} MB")]) for word, at in ends]
    return Plot(
        f"memory-{slug(profile.contender)}",
        f"Memory over time, {profile.contender}",
        f"{digits(held[most])} MB were held at the highest point, {digits(when[most])} ms after the start.",
        [
            {
                "type": "scatter",
                "mode": "lines",
                "name": html.escape(profile.contender),
                "x": when,
                "y": held,
                "line": {"shape": "hv", "color": HUES[2], "width": 2},
                "hovertemplate": "%{x} ms: %{y} MB<extra></extra>",
            }
        ],
        {
            "xaxis": {"title": {"text": "Since set-up began, ms"}},
            "yaxis": {"title": {"text": "Held above what was there, MB"}, "rangemode": "tozero"},
            "showlegend": False,
        },
        table(["Moment", ">Time", ">Held"], body, label=f"Memory over time, {profile.contender}"),
        note=f"Phases: {', '.join(phases)}." if phases else None,
        height=280,
    ).html()


def files(view: View, profile: Profile) -> Html | None:
    """Links to the larger files beside it; those that are not there, or too large for the site, are named."""
    items: list[Child] = []
    for kind, name in profile.files.items():
        path = folder_of(view.run.folder, profile.case) / Path(name).name
        what = FILES.get(kind, kind)
        if fits(path):
            address = link(f"{FOLDER}/{slug(profile.case)}/{path.name}", 1)
            items.append(tag("li", tag("a", path.name, href=address, download=path.name), f", {what}"))
        elif path.is_file():
            size = show(float(path.stat().st_size), "bytes")
            items.append(tag("li", tag("code", path.name), f", {what}: {size}, in the run's folder {FOLDER}/"))
        else:
            items.append(tag("li", tag("code", path.name), f", {what}: not kept with this run"))
    return tag("ul", items) if items else None


def fits(path: Path) -> bool:
    """Whether a file is there and small enough for the site."""
    return path.is_file() and path.stat().st_size <= LARGEST


def copy(view: View, site: Path) -> None:
    """Put what pages of a run link to into its folder of the site."""
    for case in view.cases:
        for profile in read_case(view.run.folder, case.id)[0]:
            place = site / view.folder / FOLDER / slug(case.id)
            for name in profile.files.values():
                path = folder_of(view.run.folder, case.id) / Path(name).name
                if fits(path):
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place / path.name)
