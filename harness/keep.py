"""Keeps a run for others to see: `python -m harness.keep RUN` puts it, thinned, under `reports/recorded/`.

One folder a study and machine, replaced, not added; a run of one operation alone, as the longer commands write, has a
folder of that operation, so that it does not take the place of the study's. At most 500 samples a record are kept,
evenly spaced in the order of measurement, fewer where the run would outgrow 2 MB; their full number and all statistics
stay in the record. What the machine did over time is kept in at most 100 readings a lane. Profiles are not kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shutil
import sys
from pathlib import Path

import numpy as np

from .record import Record, Run, RunWriter, load_lanes, load_samples, read_run
from .telemetry.lanes import thinned as thinned_lanes

SAMPLES = (500, 250, 100)
READINGS = 100
LIMIT_BYTES = 2 * 1024**2


def keep(run: Run, into: Path) -> Path:
    """Write `run` to its folder below `into`, replacing what is there; returns the folder.

    Raises ValueError for a run without records, and for one that stays larger than 2 MB with the fewest samples.
    """
    if not run.records:
        raise ValueError(f"{run.folder} holds no records")
    folder = into / name(run)
    partial = folder.with_name(folder.name + ".partial")
    size = next((size for most in SAMPLES if (size := _write(run, partial, most)) <= LIMIT_BYTES), None)
    if size is None:
        shutil.rmtree(partial)
        raise ValueError(f"{run.folder} is more than {LIMIT_BYTES / 1e6:.1f} MB, too much to keep in the repository")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def name(run: Run) -> str:
    """The run's folder: its studies, or its only operation, and the machine."""
    operations, studies = ({getattr(r, kind) for r in run.records} for kind in ("operation", "study"))
    words = list(operations) if len(operations) == 1 else sorted(studies)
    words.append(str(run.header.machine.get("label", "unknown")))
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _write(run: Run, folder: Path, most: int) -> int:
    """Write the run with at most so many samples a record to a new folder; returns its bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    writer = RunWriter(folder)
    writer.header(run.header)
    cases: dict[str, list[Record]] = {}
    for record in run.records:
        cases.setdefault(record.case, []).append(record)
    for case, members in cases.items():
        arrays = {}
        for record in members:
            for suffix in ("", ":round", ":value"):
                values = load_samples(run.folder, record, suffix)
                if values.size:
                    arrays[record.contender + suffix] = values[thinned(values.size, most)]
        if arrays:
            writer.samples(case, arrays)
        lanes = thinned_lanes(load_lanes(run.folder, case), READINGS)
        if any(lanes["gpus"]) or lanes["host"]:
            writer.lanes(case, lanes)
        for record in members:
            has = record.samples is not None and record.contender in arrays
            writer.record(dataclasses.replace(record, samples=record.samples if has else None), run.header.metrics)
    return _size(folder)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def thinned(count: int, most: int) -> slice:
    """Every n-th sample, so that at most `most` stay."""
    return slice(None, None, max(1, int(np.ceil(count / most))))


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
    print(f"{folder}: {_size(folder) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
