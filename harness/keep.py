"""Keeps a run for others to see: `python -m harness.keep RUN` puts it, thinned, under `reports/recorded/`.

One folder a study and machine, replaced, not added. At most 500 samples a record are kept, evenly spaced in the order
of measurement; their full number and all statistics stay in the record.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from .record import Record, Run, RunWriter, load_samples, read_run

SAMPLES = 500
LIMIT_BYTES = 2 * 1024**2


def keep(run: Run, into: Path) -> Path:
    """Write `run` to its folder below `into`; returns the folder. Raises ValueError for a run without records."""
    if not run.records:
        raise ValueError(f"{run.folder} holds no records")
    studies = sorted({record.study for record in run.records})
    machine = re.sub(r"[^a-z0-9]+", "-", str(run.header.machine.get("label", "unknown")).lower()).strip("-")
    folder = into / f"{'-'.join(studies)}-{machine}"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    writer = RunWriter(partial)
    writer.header(run.header)
    cases: dict[str, list[Record]] = {}
    for record in run.records:
        cases.setdefault(record.case, []).append(record)
    for case, members in cases.items():
        arrays = {}
        for record in members:
            for suffix in ("", ":round"):
                values = load_samples(run.folder, record, suffix)
                if values.size:
                    arrays[record.contender + suffix] = values[thinned(values.size)]
        if arrays:
            writer.samples(case, arrays)
        for record in members:
            has = record.samples is not None and record.contender in arrays
            writer.record(dataclasses.replace(record, samples=record.samples if has else None), run.header.metrics)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def thinned(count: int) -> slice:
    """Every n-th sample, so that at most 500 stay."""
    return slice(None, None, max(1, int(np.ceil(count / SAMPLES))))


def main() -> int:
    """Exit status 2 when the run cannot be read or is too large to be kept in the repository."""
    parser = argparse.ArgumentParser(prog="python -m harness.keep", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--into", type=Path, default=Path("reports/recorded"))
    asked = parser.parse_args()
    try:
        folder = keep(read_run(asked.run), asked.into)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.2f} MB")
    if size > LIMIT_BYTES:
        print(f"error: more than {LIMIT_BYTES / 1e6:.1f} MB is too much to keep in the repository", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
