"""A profile as a person reads it in the terminal: where the time or the memory of a call goes, in a few rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..record import Record
from ..units import aligned, digits, plain, show
from .file import Profile

ROWS = 12
NAME_LENGTH = 60
NOTHING = "-"


def lines(profile: Profile, record: Record | None) -> list[str]:
    """What was found, with what the run measured of the same contender, if it did."""
    head = f"{profile.case} {profile.contender}, by {profile.tool}, {profile.calls} calls on {profile.machine['label']}"
    told = [head, *_measured(record)]
    told += {"torch": _time, "memory": _memory, "host": _host, "ncu": _counters}[profile.tool](profile)
    told += [f"note: {note}" for note in profile.notes]
    return told + [f"{what}: {name}" for what, name in profile.files.items()]


def _measured(record: Record | None) -> Iterator[str]:
    if record is not None:
        share = record.value("floor_share")
        floor = "" if share is None else f", {plain(show(share, 'share'))} of its floor"
        clock = ", bound by the host" if record.timing.get("clock") == "host-bound" else ""
        yield f"measured by the run: {plain(show(record.value('latency'), 'ns'))}{floor}{clock}"


def _value(row: Mapping[str, Any], name: str, unit: str) -> str:
    value = row.get(name)
    return NOTHING if value is None else plain(show(float(value), unit))


def _name(row: Mapping[str, Any]) -> str:
    name = str(row["name"])
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", *aligned([("", *header), *(("", *row) for row in rows)])] if rows else []


def _time(profile: Profile) -> list[str]:
    figures, tables = profile.figures, profile.tables
    told = [f"a call while profiled: {plain(show(figures['wall_ns'], 'ns'))}"]
    time, device = ("device_ns", True) if "device_busy_ns" in figures else ("own_ns", False)
    if device:
        parts = {"busy": "device_busy_ns", "waiting for the host": "waits_for_host_ns", "other gaps": "other_gaps_ns"}
        spent = ", ".join(f"{word} {plain(show(figures[name], 'ns'))}" for word, name in parts.items())
        told.append(f"on the GPU {plain(show(figures['device_window_ns'], 'ns'))}: {spent}")
    if "flop_rate" in figures:
        rates = f"{plain(show(figures['flop_rate'], 'FLOP/s'))}, {plain(show(figures['byte_rate'], 'bytes/s'))}"
        told.append(f"by the contract's FLOPs and least bytes: {rates}")
    header = ("operator", "GPU" if device else "time", "share", "calls", "FLOP/s", "bytes/s", "of ceiling")
    told += _table(header, [_timed(row, time) for row in tables["operators"][:ROWS] if row[time] or row["own_ns"]])
    told += _table(("kernel", *header[1:]), [_timed(row, time) for row in tables["kernels"][:ROWS]])
    gaps = [
        (
            f"{row['after'][:28]} > {row['before'][:28]}",
            plain(show(row["ns"], "ns")),
            "host" if row["host"] else "device",
        )
        for row in tables["gaps"][:ROWS]
    ]
    return told + _table(("gap between kernels", "a call", "waits for"), gaps)


def _timed(row: Mapping[str, Any], time: str) -> tuple[str, ...]:
    near = f"{row['ceiling']} {plain(show(row['ceiling_share'], 'share'))}" if "ceiling" in row else NOTHING
    rates = (_value(row, "flop_rate", "FLOP/s"), _value(row, "byte_rate", "bytes/s"))
    return (_name(row), _value(row, time, "ns"), _value(row, "share", "share"), digits(row["calls"]), *rates, near)


def _memory(profile: Profile) -> list[str]:
    figures, tables = profile.figures, profile.tables
    peak, before = (plain(show(figures[name], "bytes")) for name in ("peak_bytes", "held_before_bytes"))
    told = [f"highest point of a call: {peak} above the {before} that set-up and the first call left"]
    header = ("operator", "phase", "bytes", "pieces", "largest")
    for title, name in (("held at the highest point", "holders"), ("allocated by one call, freed or not", "allocated")):
        rows = [
            (
                row["operator"],
                row["phase"],
                _value(row, "bytes", "bytes"),
                str(row["count"]),
                _value(row, "largest", "bytes"),
            )
            for row in tables[name][:ROWS]
        ]
        told += ["", title, *_table(header, rows)[1:]] if rows else ["", f"{title}: nothing"]
    return told


def _host(profile: Profile) -> list[str]:
    figures = profile.figures
    submit, profiled = (plain(show(figures[name], "ns")) for name in ("submit_ns", "profiled_ns"))
    python = plain(show(figures["python_share"], "share"))
    told = [f"a call returns after {submit}; under cProfile {profiled}, of which {python} in Python's own functions"]
    header = ("function", "own time", "share", "with callees", "calls")
    rows = [
        (
            _name(row),
            _value(row, "own_ns", "ns"),
            _value(row, "share", "share"),
            _value(row, "total_ns", "ns"),
            digits(row["calls"]),
        )
        for row in profile.tables["functions"][:ROWS]
    ]
    return told + _table(header, rows)


def _counters(profile: Profile) -> list[str]:
    figures = profile.figures
    told = []
    if "dram_over_model" in figures:
        told.append(f"DRAM traffic over the contract's least bytes: {digits(figures['dram_over_model'])}")
    header = ("kernel", "time", "DRAM read", "DRAM written", "L2", "of DRAM", "of SM", "tensor instr.")
    rows = [
        (
            _name(row),
            _value(row, "device_ns", "ns"),
            _value(row, "dram_read_bytes", "bytes"),
            _value(row, "dram_write_bytes", "bytes"),
            _value(row, "l2_bytes", "bytes"),
            _percent(row, "dram_percent"),
            _percent(row, "sm_percent"),
            _value(row, "tensor_instructions", "count"),
        )
        for row in profile.tables["counters"][: 2 * ROWS]
    ]
    return told + _table(header, rows)


def _percent(row: Mapping[str, Any], name: str) -> str:
    return NOTHING if row.get(name) is None else f"{row[name]:.0f} %"
