"""Runs for other programs: pytest-benchmark's JSON, CSV and Parquet out, pytest-benchmark's JSON in.

`python -m harness.interchange export RUN --format csv`, `python -m harness.interchange import FILE`. CSV and Parquet
hold a row a figure, whatever metrics a run declares.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .benchmark_json import Unreadable, benchmarks, import_file
from .deviation import INCOMPATIBLE, NOTHING, PASS, USAGE
from .provenance import commit, fingerprint
from .record import Run, read_run
from .units import some

COLUMNS = (
    "run", "started", "commit", "machine", "fingerprint", "method", "device", "case", "study", "operation", "model",
    "sizes", "technique", "implementation", "kind", "status", "reason", "metric", "unit", "value", "low", "high",
)  # fmt: skip


def rows(run: Run) -> Iterator[tuple[Any, ...]]:
    """One row a figure, in the order of COLUMNS; a record without figures has one row without a metric."""
    header = run.header
    start = (
        header.run,
        header.started,
        commit(header),
        header.machine.get("label"),
        fingerprint(header),
        header.method,
    )
    for r in run.records:
        who = (*start, header.device, r.case, r.study, r.operation, r.model, r.sizes, r.technique, r.implementation)
        state = (*who, r.kind, r.status, r.reason)
        for name, figure in r.figures.items():
            metric = header.metrics.get(name)
            yield (*state, name, metric.unit if metric else None, figure.value, figure.low, figure.high)
        if not r.figures:
            yield (*state, None, None, None, None, None)


def write_csv(run: Run, path: Path) -> str:
    """A row a figure; returns what was written, in words."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        count = sum(1 for row in rows(run) if writer.writerow(row))
    return f"{count} rows"


def write_parquet(run: Run, path: Path) -> str:
    """The same rows as columns. Raises ModuleNotFoundError without pyarrow."""
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    columns = list(zip(*rows(run), strict=True)) or [()] * len(COLUMNS)
    kinds = [arrow.float64() if name in ("value", "low", "high") else arrow.string() for name in COLUMNS]
    arrays = [arrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    parquet.write_table(arrow.Table.from_arrays(arrays, names=list(COLUMNS)), path)
    return f"{len(columns[0])} rows"


def write_benchmarks(run: Run, path: Path) -> str:
    """pytest-benchmark's JSON; returns what was written and what was left out. Raises ValueError without any sample."""
    found, others = benchmarks(run)
    if not found["benchmarks"]:
        raise ValueError(f"{run.header.run} has no raw samples, and pytest-benchmark's statistics are made of them")
    path.write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")
    without = (
        f"; {some(len(others), 'record')} without samples beside them, which only whalebench reads" if others else ""
    )
    return some(len(found["benchmarks"]), "benchmark") + without


FORMATS: Mapping[str, tuple[str, Callable[[Run, Path], str]]] = {
    "pytest-benchmark": (".json", write_benchmarks),
    "csv": (".csv", write_csv),
    "parquet": (".parquet", write_parquet),
}


def export(words: argparse.Namespace) -> int:
    """Write a run in another format."""
    ending, write = FORMATS[words.format]
    try:
        run = read_run(words.run)
        out = words.out or Path(f"{re.sub(r'[^A-Za-z0-9.+-]', '-', run.header.run)}{ending}")
        told = write(run, out)
    except ModuleNotFoundError as error:
        print(f"error: Parquet needs the package {error.name}: python -m pip install pyarrow", file=sys.stderr)
        return USAGE
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return INCOMPATIBLE
    for problem in run.problems:
        print(f"problem: {problem}")
    print(f"{out}: {told}")
    return INCOMPATIBLE if run.problems else PASS if run.records else NOTHING


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 usage or a missing package, 4 nothing to export, 6 a damaged file."""
    parser = argparse.ArgumentParser(prog="python -m harness.interchange", description=__doc__)
    verbs = parser.add_subparsers(required=True)
    out = verbs.add_parser("export", help="a run for other programs")
    out.add_argument("run", type=Path)
    out.add_argument("--format", choices=FORMATS, default="pytest-benchmark")
    out.add_argument("--out", type=Path, help="the file; default: the run's name")
    out.set_defaults(verb=export)
    back = verbs.add_parser("import", help="pytest-benchmark's JSON as a run")
    back.add_argument("file", type=Path)
    back.add_argument("--runs", type=Path, default=Path("runs"))
    back.set_defaults(verb=bring)
    asked = parser.parse_args(words)
    code: int = asked.verb(asked)
    return code


def bring(words: argparse.Namespace) -> int:
    """Import a file as a run."""
    if not words.file.is_file():
        print(f"error: {words.file} is not there", file=sys.stderr)
        return USAGE
    try:
        folder = import_file(words.file, words.runs)
    except Unreadable as error:
        print(f"error: {error}", file=sys.stderr)
        return INCOMPATIBLE
    except OSError as error:
        print(f"error: {words.runs} cannot be written: {error.strerror or error}", file=sys.stderr)
        return USAGE
    print(f"{folder}: {some(len(read_run(folder).records), 'record')}; make report shows it")
    return PASS


if __name__ == "__main__":
    sys.exit(main())
