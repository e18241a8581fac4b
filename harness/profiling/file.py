"""A profile as a file beside the run: what one tool found of one contender in one case.

`<run>/profiles/<case>/<contender>-<tool>.json`, one JSON object, with larger files (trace, snapshot, report) beside it
under the names in `files`. Pages and people read this module; it needs the standard library and nothing else. A profile
belongs to its run only as far as machine, commit and source say so, which is why it carries them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..record import slug

SCHEMA = 1
TOOLS = {
    "torch": "time by operator and kernel, a Chrome trace; any machine",
    "memory": "what is allocated by whom, and what held the peak; any machine",
    "host": "cProfile of what Python does in a call; any machine",
    "ncu": "hardware counters by kernel; an NVIDIA GPU with Nsight Compute",
}
FOLDER = "profiles"
CHANGED = "its code has changed since the run measured it"


@dataclass(frozen=True)
class Profile:
    """What a tool found.

    started   ISO date with zone
    machine   label, device, versions of software and the commit it was taken with
    source    file and digest of the implementation when it was profiled, as a record has them
    calls     how many calls figures and tables are averages of
    figures   numbers by name; names end in their unit: _ns, _bytes, _share; flop_rate and byte_rate are per second
    phases_ns time of each phase of the trace: set up, first call, between calls, call
    tables    rows by table: operators, kernels, gaps (torch); holders, allocated (memory); functions (host);
              counters (ncu). Figures of a row have the same units
    timeline  [[ns since the start, bytes held]] (memory)
    files     names of larger files beside this one, by what they are
    notes     sentences on how it was taken
    """

    case: str
    contender: str
    tool: str
    started: str
    machine: Mapping[str, Any]
    source: Mapping[str, str]
    calls: int = 1
    figures: Mapping[str, float] = field(default_factory=dict)
    phases_ns: Mapping[str, float] = field(default_factory=dict)
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    timeline: Sequence[Sequence[float]] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.tool not in TOOLS:
            raise ValueError(f"{self.case} {self.contender}: unknown tool {self.tool!r}")
        for name in ("machine", "source", "figures", "phases_ns", "tables", "files"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{self.case} {self.contender}: {name} is no mapping")


def folder_of(run: Path, case: str) -> Path:
    """Where the profiles of a case are kept, below a run's folder."""
    return run / FOLDER / slug(case)


def stem_of(contender: str, tool: str) -> str:
    """Name without ending of a profile's files."""
    return f"{slug(contender)}-{tool}"


def write(profile: Profile, run: Path) -> Path:
    """Write below a run's folder, replacing an earlier one of the same tool in one step; returns the file."""
    path = folder_of(run, profile.case) / f"{stem_of(profile.contender, profile.tool)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    data = {"schema": SCHEMA, "type": "profile", **dataclasses.asdict(profile)}
    partial.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
    partial.replace(path)
    return path


def read(path: Path) -> Profile:
    """The inverse of `write`. Raises OSError, or ValueError for what is no profile of this schema."""
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA or data.pop("type", None) != "profile":
            raise ValueError(f"not a profile of schema {SCHEMA}")
        return Profile(**data)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_case(run: Path, case: str) -> tuple[list[Profile], list[str]]:
    """Every readable profile of a case in a run's folder by contender, and a sentence for each that is not."""
    profiles, problems = [], []
    for path in sorted(folder_of(run, case).glob("*.json")):
        try:
            profiles.append(read(path))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return profiles, problems
