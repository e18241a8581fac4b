"""Records: everything known of one contender in one case, as versioned JSON lines with the raw samples beside them.

A run is a folder: `run.jsonl` (first line the machine and its ceilings, then a line a record, on disk as soon as it
is finished) and `samples/`, one compressed NumPy file a case. A wrong result has no latency: a record refuses figures
unless its status is `passed`, and refuses figures that no metric declares. Pages, gates and people read this module;
it needs NumPy and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .metrics import COMMON, Metric

SCHEMA = 1
METHOD = "1"  # raised when a number changes its meaning: how calls are timed, what a figure counts
STATUSES = {
    "passed": "verified before and after it was timed",
    "incorrect": "the result differs from the reference, or something it must not touch was changed",
    "error": "it raised",
    "oom": "it needed more memory than there is",
    "timeout": "it did not answer in time and was stopped",
    "crashed": "it took its process down",
    "unavailable": "it cannot run here, for the reason given",
}


@dataclass(frozen=True)
class Figure:
    """A measured or computed value; `low` and `high` are its interval where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Record:
    """One contender in one case.

    shape         the sizes, by name, as the contract's dataclass has them
    reason        why the status is not `passed`; required then
    figures       by metric name; empty unless passed
    series        lists of numbers by name, as the contract gives them
    verification  error, limit, worst element, seeds: how it was judged
    timing        clock (events, graph, host-bound, wall), caches, pairing, rounds, outliers, suspect; what stopped the
                  contest, the seconds it was given, and those that went to setting up and verifying; the window of
                  its energy; `repeated` and why, where an earlier measurement was taken again
    samples       {"file", "key", "count"} of the raw samples, in order of measurement
    source        file and digest of the implementation when it was measured
    doc           the first paragraph of the implementation's docstring
    telemetry     clocks, power, temperature, throttling, other processes, load by others while it was measured, and
                  `low_clock` where the clock was below the run's; None without a sensor
    """

    case: str
    study: str
    operation: str
    model: str
    sizes: str
    shape: Mapping[str, Any]
    technique: str
    implementation: str
    kind: str
    status: str
    reason: str | None = None
    baseline: str | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    layout: str | None = None
    verification: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] | None = None
    source: Mapping[str, str] = field(default_factory=dict)
    doc: str = ""
    telemetry: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"{self.case} {self.contender}: unknown status {self.status!r}")
        if self.status != "passed" and (self.figures or self.samples):
            raise ValueError(
                f"{self.case} {self.contender} is {self.status}: a result that did not pass has no figures"
            )
        if self.status != "passed" and not self.reason:
            raise ValueError(f"{self.case} {self.contender} is {self.status} without a reason")
        for name, figure in self.figures.items():
            for value in (figure.value, figure.low, figure.high):
                if value is not None and not math.isfinite(value):
                    raise ValueError(f"{self.case} {self.contender}: {name} is {value}")

    @property
    def contender(self) -> str:
        """Technique and implementation: `mla/absorbed`."""
        return f"{self.technique}/{self.implementation}"

    def value(self, metric: str) -> float | None:
        """The figure's value, or None where it was not measured."""
        figure = self.figures.get(metric)
        return None if figure is None else figure.value


@dataclass(frozen=True)
class Header:
    """What holds for a whole run: the machine, its measured ceilings, the options, and every metric by name.

    method   how its numbers were taken; times of two methods are not compared. Runs that do not say so have the first
    """

    run: str
    started: str
    machine: Mapping[str, Any]
    ceilings: Mapping[str, Any]
    options: Mapping[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=lambda: dict(COMMON))
    method: str = METHOD

    @property
    def device(self) -> str:
        """`cuda` or `cpu`: where the run's contenders were measured."""
        return str(self.options.get("device", "cpu"))


@dataclass(frozen=True)
class Run:
    """A run as read back; `problems` names lines that could not be used, and why."""

    folder: Path
    header: Header
    records: tuple[Record, ...]
    problems: tuple[str, ...] = ()

    def samples(self, record: Record) -> NDArray[np.float64]:
        """Nanoseconds [samples] in order of measurement; empty when the file is missing or damaged."""
        return load_samples(self.folder, record)

    def rounds(self, record: Record) -> NDArray[np.float64]:
        """The contest's round [samples] in which each sample was taken."""
        return load_samples(self.folder, record, ":round")


class RunWriter:
    """Appends to a run's folder; each line is flushed to disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "run.jsonl"
        (folder / "samples").mkdir(parents=True, exist_ok=True)

    def header(self, header: Header) -> None:
        """The first line of a new run."""
        self._append({"schema": SCHEMA, "type": "run", **dataclasses.asdict(header)})

    def record(self, record: Record, metrics: Mapping[str, Metric]) -> None:
        """One line. Raises ValueError for a figure that `metrics` does not declare."""
        unknown = set(record.figures) - set(metrics)
        if unknown:
            raise ValueError(f"{record.case} {record.contender}: undeclared metric {', '.join(sorted(unknown))}")
        figures = {name: _known(figure) for name, figure in record.figures.items()}
        self._append({"schema": SCHEMA, "type": "record", **_known(record), "figures": figures})

    @staticmethod
    def sample_file(case: str) -> str:
        """Where a case's samples are, relative to the run."""
        return f"samples/{slug(case)}.npz"

    def samples(self, case: str, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        """Write a case's samples, replacing earlier ones in one step."""
        name = self.sample_file(case)
        partial = self.folder / (name + ".partial")
        with partial.open("wb") as file:
            narrow: dict[str, Any] = {key: np.asarray(a, dtype=np.float32) for key, a in arrays.items()}
            np.savez_compressed(file, **narrow)
        partial.replace(self.folder / name)

    def lanes(self, case: str, lanes: Mapping[str, Any]) -> None:
        """Write what the machine did over time while a case was measured, replacing what an earlier one left."""
        path = self.folder / lane_file(case)
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(lanes, separators=(",", ":"), allow_nan=False))
        partial.replace(path)

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(_compact(line), allow_nan=False, separators=(",", ":"), default=str)
        with self.path.open("a+b") as file:
            if file.tell() and self._torn(file):
                file.write(b"\n")
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _torn(file: Any) -> bool:
        file.seek(-1, os.SEEK_END)
        return bool(file.read(1) != b"\n")


def load_samples(folder: Path, record: Record, suffix: str = "") -> NDArray[np.float64]:
    """A record's samples [samples], nanoseconds; empty when it has none or their file is missing or damaged."""
    if record.samples is None:
        return np.empty(0)
    try:
        with np.load(folder / str(record.samples["file"])) as arrays:
            return np.asarray(arrays[str(record.samples["key"]) + suffix], dtype=np.float64)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return np.empty(0)


def lane_file(case: str) -> str:
    """Where a case's lanes are, relative to the run."""
    return f"telemetry/{slug(case)}.json"


def load_lanes(folder: Path, case: str) -> dict[str, Any]:
    """What `Sampler.lanes` gave while a case was measured; empty without it, and where it is damaged."""
    try:
        found = json.loads((folder / lane_file(case)).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def slug(case: str) -> str:
    """A case's id as a file name: `attention.decode/v3/b1` becomes `attention.decode--v3--b1`."""
    return re.sub(r"[^\w.=+-]", "-", case.replace("/", "--"))


def read_run(folder: Path) -> Run:
    """A run's folder. Damaged lines are named in `problems` and the rest is used; later records replace earlier ones.

    Raises FileNotFoundError without a `run.jsonl`, ValueError when no header of a known schema is in it.
    """
    path = folder / "run.jsonl" if folder.is_dir() else folder
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: no run.jsonl in it")
    header: Header | None = None
    records: dict[tuple[str, str], Record] = {}
    problems: list[str] = []
    for number, text in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            parsed = _parse(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problems.append(f"{path.name} line {number}: {_reason(error)}; the line was left out")
            continue
        if isinstance(parsed, Header):
            header = parsed
        else:
            records[parsed.case, parsed.contender] = parsed
    if header is None:
        more = f"; and {len(problems) - 2} more lines" if len(problems) > 2 else ""
        raise ValueError(f"{path} has no readable header line; {'; '.join(problems[:2]) or 'it is empty'}{more}")
    return Run(path.parent, header, tuple(records.values()), tuple(problems))


def read_header(folder: Path) -> Header:
    """The header alone, from the first line where it stands there. Raises what `read_run` raises."""
    path = folder / "run.jsonl" if folder.is_dir() else folder
    try:
        with path.open("rb") as file:
            parsed = _parse(json.loads(file.readline().decode(errors="replace")))
        if isinstance(parsed, Header):
            return parsed
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return read_run(folder).header


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Every readable run, and a sentence for each one that is not."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return runs, problems


def _known(item: Record | Figure) -> dict[str, Any]:
    """The fields that are not at their default; reading fills the others in."""
    values = dataclasses.asdict(item)
    return {f.name: values[f.name] for f in dataclasses.fields(item) if values[f.name] != _default(f)}


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _compact(value: Any) -> Any:
    """Numbers with seven significant digits, whole ones as integers: more than any timer resolves."""
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {key: _compact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_compact(item) for item in value]
    return value


RECORD_TEXTS = ("case", "study", "operation", "model", "sizes", "technique", "implementation", "kind", "status", "doc")
RECORD_MAPPINGS = ("shape", "figures", "series", "verification", "timing", "samples", "source", "telemetry")


def _require(line: Mapping[str, Any], names: Iterable[str], kind: type, word: str) -> None:
    for name in names:
        if line.get(name) is not None and not isinstance(line[name], kind):
            raise ValueError(f"{name} is {json.dumps(line[name])[:60]}, expected {word}")


def record_from_data(data: Mapping[str, Any]) -> Record:
    """The inverse of `dataclasses.asdict`. Raises TypeError or ValueError for what is no record."""
    _require(data, (*RECORD_TEXTS, "reason", "baseline", "layout"), str, "text")
    _require(data, RECORD_MAPPINGS, Mapping, "an object")
    figures = {name: Figure(**figure) for name, figure in data["figures"].items()}
    return Record(**{**data, "figures": figures})


def header_from_data(data: Mapping[str, Any]) -> Header:
    """The inverse of `dataclasses.asdict`. Raises TypeError, KeyError or ValueError for what is no header."""
    _require(data, ("run", "started", "method"), str, "text")
    _require(data, ("machine", "ceilings", "options", "metrics"), Mapping, "an object")
    metrics = {name: Metric(**metric) for name, metric in data["metrics"].items()}
    return Header(**{"method": "1", **data, "metrics": metrics})


def _parse(line: Any) -> Header | Record:
    if not isinstance(line, dict):
        raise ValueError("not an object")
    if line.pop("schema", None) != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    kind = line.pop("type", None)
    if kind == "run":
        return header_from_data(line)
    if kind == "record":
        return record_from_data(line)
    raise ValueError(f"its type is {kind!r}")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.pos})"
    return str(error)
