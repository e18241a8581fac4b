"""What a run was taken on, reduced to what decides whether two runs can be held against each other.

The fingerprint covers the processors that did the work and their limits, nothing that changes from day to day; the
toolchain is what compiles and drives the code. Times are compared on one fingerprint and one method only; a change of
toolchain is told and marked. Loses to a full description of the machine wherever something else matters: cooling,
neighbours, firmware.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .record import Header, Record, Run
from .units import tidy

TOOLS = ("torch", "triton", "cuda", "cudnn", "python")
CLOCK_SHARE = 0.02
Aspect = Literal["machine", "method", "toolchain", "clocks", "code"]


@dataclass(frozen=True)
class Trait:
    """One thing known of both runs; `differs` says whether it is another in each."""

    aspect: Aspect
    name: str
    before: str
    after: str
    differs: bool


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, an empty one otherwise."""
    return value if isinstance(value, Mapping) else {}


def gpus(header: Header) -> list[Mapping[str, Any]]:
    """The GPUs of a run on GPUs; none for a run on a CPU, whatever the machine has."""
    found = header.machine.get("gpus")
    return [mapping(gpu) for gpu in found] if header.device == "cuda" and isinstance(found, list) else []


def traits(header: Header) -> dict[str, Any]:
    """Device, CPU and GPUs as far as they decide on times."""
    cpu = mapping(header.machine.get("cpu"))
    known = {"device": header.device, **{f"cpu {name}": cpu.get(name) for name in ("name", "cores", "threads")}}
    for index, gpu in enumerate(gpus(header)):
        names = ("name", "multiprocessors", "power_limit_w", "ecc", "mig")
        known |= {f"gpu {index} {name}": gpu.get(name) for name in names}
        memory = gpu.get("memory_bytes")
        known[f"gpu {index} memory_gib"] = round(memory / 2**30) if isinstance(memory, (int, float)) else None
    return known


def fingerprint(header: Header) -> str:
    """Eight hexadecimal digits, equal for runs on equal machines."""
    return hashlib.sha256(json.dumps(traits(header), sort_keys=True, default=str).encode()).hexdigest()[:8]


def label(header: Header) -> str:
    """The machine in a few words."""
    return str(header.machine.get("label") or "a machine that was not recorded")


def toolchain(header: Header) -> dict[str, str]:
    """Versions by name; what was not recorded is left out."""
    software = mapping(header.machine.get("software"))
    known = {name: software.get(name) for name in TOOLS}
    known["driver"] = next((gpu.get("driver") for gpu in gpus(header)), None)
    return {name: str(value) for name, value in known.items() if value is not None}


def changed_tools(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What differs between two toolchains, in words: `torch 2.11.0 -> 2.13.0`; empty where nothing does."""
    names = [name for name in (*TOOLS, "driver") if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in names)


def commit(header: Header) -> str:
    """The commit measured, with a star where the tree differed from it; empty where unknown."""
    git = mapping(header.machine.get("git"))
    found = str(git.get("commit") or "")[:10]
    return f"{found}*" if found and git.get("dirty") else found


def moment(header: Header) -> float:
    """Seconds since 1970 at which the run began, without a zone read as UTC; 0 where no date is recorded."""
    try:
        found = datetime.datetime.fromisoformat(header.started)
    except ValueError:
        return 0.0
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    try:
        return found.timestamp()
    except (OverflowError, OSError):
        return 0.0


def clock_mhz(records: Iterable[Record]) -> float | None:
    """Median over records of the SM clock while each was measured; None without a sensor."""
    found = []
    for record in records:
        value = mapping(mapping(record.telemetry).get("sm_clock_mhz")).get("median")
        if isinstance(value, (int, float)):
            found.append(float(value))
    return statistics.median(found) if found else None


def compared_traits(before: Run, after: Run) -> list[Trait]:
    """Machine, method, toolchain, clocks and commit of two runs, in that order."""
    headers: Sequence[Header] = (before.header, after.header)
    found = [_trait("machine", "machine", *(f"{label(h)} ({fingerprint(h)})" for h in headers))]
    one, other = (traits(header) for header in headers)
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            found.append(_trait("machine", name.replace("_", " "), _word(one.get(name)), _word(other.get(name))))
    found.append(_trait("method", "method", *(header.method for header in headers)))
    tools = [toolchain(header) for header in headers]
    for name in (*TOOLS, "driver"):
        if name in tools[0] or name in tools[1]:
            found.append(_trait("toolchain", name, *(known.get(name, "not recorded") for known in tools)))
    found += _clocks(before, after)
    found.append(_trait("code", "commit", *(commit(header) or "not recorded" for header in headers)))
    return found


def _clocks(before: Run, after: Run) -> list[Trait]:
    limits = [next((gpu.get("max_sm_clock_mhz") for gpu in gpus(run.header)), None) for run in (before, after)]
    found = []
    if limits != [None, None]:
        found.append(_trait("clocks", "highest SM clock, MHz", *(_word(limit) for limit in limits)))
    clocks = [clock_mhz(run.records) for run in (before, after)]
    if clocks != [None, None]:
        one, other = clocks
        apart = one is None or other is None or abs(one - other) > CLOCK_SHARE * max(one, other)
        found.append(Trait("clocks", "median SM clock, MHz", _word(one), _word(other), apart))
        held = [sum(bool(mapping(r.telemetry).get("throttle")) for r in run.records) for run in (before, after)]
        found.append(_trait("clocks", "records with throttling", *map(str, held)))
    return found


def _trait(aspect: Aspect, name: str, before: str, after: str) -> Trait:
    return Trait(aspect, name, before, after, before != after)


def _word(value: Any) -> str:
    if value is None:
        return "not recorded"
    return tidy(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
