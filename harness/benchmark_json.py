"""pytest-benchmark's JSON, both ways: what `pytest-benchmark compare` and hosted services read.

It holds seconds, statistics of raw samples, and whatever is put in `extra_info`; a record goes there whole, and those
without samples beside the list, so that a run comes back as it was. What another suite measured was not verified here
and says so; its functions become contenders, its groups and parameters cases. Loses telemetry and every figure but
time for readers who do not know us.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .provenance import fingerprint, mapping
from .record import Figure, Header, Record, Run, RunWriter, header_from_data, record_from_data
from .statistics import median_estimate, outliers

Array = NDArray[np.float64]
VERSION = "5.3.1"  # of the format, as pytest-benchmark numbers itself
OURS = "whalebench"
IMPORTED = "Imported, not verified here."


class Unreadable(Exception):
    """A file that is none of pytest-benchmark's, or is damaged; the message is a sentence."""


def benchmarks(run: Run) -> tuple[dict[str, Any], list[Record]]:
    """A run as pytest-benchmark's JSON, and the records without raw samples, which are no benchmarks of it.

    Groups are cases, names contenders; times are seconds.
    """
    git = mapping(run.header.machine.get("git"))
    found, others = [], []
    for record in run.records:
        samples = run.samples(record) if record.status == "passed" else np.empty(0)
        if samples.size:
            found.append(_benchmark(run, record, samples))
        else:
            others.append(record)
    return {
        "machine_info": _machine_info(run.header),
        "commit_info": {
            "id": git.get("commit") or "unknown",
            "branch": git.get("branch") or "(unknown)",
            "dirty": bool(git.get("dirty")),
            "project": OURS,
            "time": run.header.started,
            "author_time": run.header.started,
        },
        "benchmarks": found,
        "datetime": run.header.started,
        "version": VERSION,
        OURS: {"header": dataclasses.asdict(run.header), "others": [_plain(record) for record in others]},
    }, others


def _machine_info(header: Header) -> dict[str, Any]:
    software, cpu = mapping(header.machine.get("software")), mapping(header.machine.get("cpu"))
    return {
        "node": fingerprint(header),
        "processor": cpu.get("name"),
        "machine": header.machine.get("label"),
        "python_implementation": "CPython",
        "python_version": software.get("python"),
        "system": software.get("os"),
        "cpu": {"brand_raw": cpu.get("name"), "count": cpu.get("cores")},
        "gpus": header.machine.get("gpus"),
        "torch": software.get("torch"),
        "triton": software.get("triton"),
    }


def _benchmark(run: Run, record: Record, samples: Array) -> dict[str, Any]:
    rounds = run.rounds(record)
    known = {"record": _plain(record)}
    if rounds.shape == samples.shape:
        known["round"] = rounds.astype(int).tolist()
    return {
        "group": record.case,
        "name": f"{record.contender}[{record.case}]",
        "fullname": f"{record.source.get('file', record.study)}::{record.contender}[{record.case}]",
        "params": {"case": record.case},
        "param": record.case,
        "extra_info": {OURS: known},
        "options": {
            "disable_gc": True,
            "timer": record.timing.get("clock"),
            "min_rounds": 1,
            "max_time": None,
            "min_time": None,
            "warmup": True,
        },
        "stats": _stats(samples / 1e9),
    }


def _plain(record: Record) -> dict[str, Any]:
    return {**vars(record), "figures": {name: vars(figure) for name, figure in record.figures.items()}}


def quartiles(ordered: list[float]) -> tuple[float, float]:
    """First and third quartile as pytest-benchmark has them: medians of halves, between neighbours where odd."""
    n, (quarter, rest) = len(ordered), divmod(len(ordered), 4)
    if n == 1:
        return ordered[0], ordered[0]
    if n % 2 == 0:
        return statistics.median(ordered[: n // 2]), statistics.median(ordered[n // 2 :])
    low, high = (quarter - 1, 3 * quarter) if rest == 1 else (quarter, 3 * quarter + 1)
    near = 0.25 if rest == 1 else 0.75
    return (
        near * ordered[low] + (1 - near) * ordered[low + 1],
        (1 - near) * ordered[high] + near * ordered[high + 1],
    )


def _stats(seconds: Array) -> dict[str, Any]:
    """Every statistic of pytest-benchmark's, of seconds [samples]."""
    data = seconds.tolist()
    ordered, n = sorted(data), len(data)
    mean, median = statistics.fmean(data), statistics.median(data)
    deviation = statistics.stdev(data) if n > 1 else 0.0
    q1, q3 = quartiles(ordered)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    far = sum(abs(value - mean) > deviation for value in data)
    beyond = sum(not low <= value <= high for value in data)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": n,
        "median": median,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": beyond,
        "stddev_outliers": far,
        "outliers": f"{far};{beyond}",
        "ld15iqr": next((value for value in ordered if value >= low), ordered[0]),
        "hd15iqr": next((value for value in reversed(ordered) if value <= high), ordered[-1]),
        "ops": 1 / mean if mean else 0.0,
        "total": math.fsum(data),
        "data": data,
        "iterations": 1,
    }


def import_file(path: Path, runs: Path) -> Path:
    """A new run folder below `runs`. Raises Unreadable, and OSError where it cannot be written."""
    header, found = parsed(path)
    folder = runs / re.sub(r"[^\w.+-]", "-", header.run)
    if folder.exists():
        raise Unreadable(f"{folder} is there already; move it away to import {path} again")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(RunWriter(partial), header, found)
    except (ValueError, TypeError) as error:
        shutil.rmtree(partial)
        raise Unreadable(f"{path} is damaged: {error}") from error
    partial.rename(folder)
    return folder


def _write(writer: RunWriter, header: Header, found: list[tuple[Record, dict[str, Array]]]) -> None:
    writer.header(header)
    cases: dict[str, dict[str, Array]] = {}
    for record, arrays in found:
        for suffix, values in arrays.items():
            cases.setdefault(record.case, {})[record.contender + suffix] = values
    for case, samples in cases.items():
        writer.samples(case, samples)
    for record, arrays in found:
        place = None
        if arrays:
            count = (record.samples or {}).get("count", arrays[""].size)
            place = {"file": writer.sample_file(record.case), "key": record.contender, "count": count}
        writer.record(dataclasses.replace(record, samples=place), header.metrics)


def parsed(path: Path) -> tuple[Header, list[tuple[Record, dict[str, Array]]]]:
    """Header, and each record with its samples by suffix. Raises Unreadable."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("benchmarks"), list):
            raise Unreadable(f"{path} is JSON, but none of pytest-benchmark's: it has no list of benchmarks")
        header = _header(found, path)
        records = [_imported(item) for item in found["benchmarks"]]
        others = mapping(found.get(OURS)).get("others") or []
        records += [(record_from_data(item), {}) for item in others]
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise Unreadable(f"{path} is not JSON, or cut off: {error.msg} in line {error.lineno}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unreadable(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not records:
        raise Unreadable(f"{path} has no benchmarks")
    double = {key for key in (_key(r) for r, _ in records) if sum(_key(r) == key for r, _ in records) > 1}
    if double:
        raise Unreadable(f"{path} is damaged: {min(double)[0]} {min(double)[1]} is in it twice")
    return header, records


def _key(record: Record) -> tuple[str, str]:
    return record.case, record.contender


def _header(found: Mapping[str, Any], path: Path) -> Header:
    """Ours where it is in the file; else what pytest-benchmark recorded."""
    ours = mapping(found.get(OURS)).get("header")
    if ours is not None:
        return header_from_data(ours)
    machine, code = mapping(found.get("machine_info")), mapping(found.get("commit_info"))
    cpu = mapping(machine.get("cpu"))
    brand = str(cpu.get("brand_raw") or machine.get("processor") or machine.get("machine") or "unknown processor")
    count = cpu.get("count")
    software = {"python": machine.get("python_version"), "os": machine.get("system")}
    made = {
        "label": f"{brand}, {count} cores" if count else brand,
        "cpu": {"name": brand, "cores": count},
        "gpus": [],
        "software": {**software, "pytest-benchmark": found.get("version")},
        "git": {"commit": (str(code["id"])[:10] if code.get("id") else None), "branch": code.get("branch"),
                "dirty": bool(code.get("dirty"))},
    }  # fmt: skip
    options = {"device": "cpu", "study": "imported", "imported": path.name,
               "command": f"pytest --benchmark-json={path.name}"}  # fmt: skip
    name = f"{re.sub(r'[^0-9]', '', str(found.get('datetime', '')))[:14] or 'undated'}-imported-{path.stem}"
    method = f"pytest-benchmark {str(found.get('version', 'unknown')).split('.')[0]}"
    return Header(name, str(found.get("datetime", "")), made, {}, options, method=method)


def _imported(item: Mapping[str, Any]) -> tuple[Record, dict[str, Array]]:
    stats, ours = item["stats"], mapping(mapping(item.get("extra_info")).get(OURS))
    seconds = _numbers(stats.get("data") or [])
    samples = {"": seconds * 1e9} if seconds.size else {}
    if "record" in ours:
        record = record_from_data(ours["record"])
        if "round" in ours and samples:
            samples[":round"] = _numbers(ours["round"])
        return record, samples
    return _foreign(item, stats, samples), samples


def _numbers(values: Any) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError("its samples are not a list of numbers")
    return found


def _foreign(item: Mapping[str, Any], stats: Mapping[str, Any], samples: Mapping[str, Array]) -> Record:
    """A benchmark of another suite: the function's file is the operation, its group and parameters the case."""
    known, _, parameters = str(item["fullname"]).partition("[")
    file, _, name = known.rpartition("::")
    place, *classes = file.split("::")
    where = (place.removesuffix(".py"), item.get("group") or "all", parameters.removesuffix("]"))
    words = [_word(part) for part in where]
    if samples:
        estimate = median_estimate(samples[""])
        bounds = (estimate.low, estimate.high) if math.isfinite(estimate.high) else (None, None)
        latency = Figure(estimate.value, *bounds)
    else:
        latency = Figure(float(stats["median"]) * 1e9)
    if latency.value <= 0:
        raise ValueError(f"{item['fullname']} has a median of {latency.value} ns")
    count = int(stats.get("rounds", 0))
    return Record(
        case=f"imported.{words[0]}/{words[1]}/{words[2]}",
        study="imported",
        operation=f"imported.{words[0]}",
        model=words[1],
        sizes=words[2],
        shape={str(key): value for key, value in mapping(item.get("params")).items()},
        technique=_word("-".join([*classes, name])),
        implementation="imported",
        kind="library",
        status="passed",
        figures={"latency": latency},
        timing={
            "clock": "wall",
            "caches": "as its suite left them",
            "pairing": "unpaired",
            "rounds": count,
            "samples": count,
            "outliers": outliers(samples[""]) if samples else 0,
        },
        doc=IMPORTED,
    )


def _word(text: Any) -> str:
    """A part of a case's id."""
    return re.sub(r"[^\w.=+-]+", "-", str(text)).strip("-.") or "-"
