"""A made-up past of any size, and what it costs to keep and to draw it.

    python -m tests.harness.past --runs 1000 --cases 500

writes that many runs (seeded; levels, noise, spikes, commits, a torch upgrade, a second machine), adds them to a
history in a process of its own, then opens it and builds its pages in another, and prints seconds and peak memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.record import SCHEMA, Figure, Header, Record

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
NOISE = 0.02
OPERATIONS = ("attention.decode", "attention.prefill", "ffn.layer", "linear.product", "linear.quantize")


def header(number: int, machine: int = 0, torch: str = "2.11.0") -> Header:
    """Of the run with this number, on one of several machines."""
    cpu = {"name": f"made-up processor {machine}", "cores": 2, "threads": 2, "memory_bytes": 2**34}
    made = {
        "label": f"made-up machine {machine}",
        "cpu": cpu,
        "gpus": [],
        "software": {"python": "3.12.3", "torch": torch, "triton": "3.6.0"},
        "git": {"commit": f"{0xABC0000000 + number:010x}", "branch": "main", "dirty": False},
    }
    started = (START + datetime.timedelta(hours=6 * number)).isoformat()
    return Header(f"run-{number:05d}-m{machine}", started, made, {}, {"device": "cpu", "tier": "cpu"})


def record(case: int, latency: float, digest: str = "0" * 12, **changes: object) -> Record:
    """A record that passed, with a latency in nanoseconds and an interval of one per cent."""
    operation = OPERATIONS[case % len(OPERATIONS)]
    figures = {"latency": Figure(latency, latency * 0.995, latency * 1.005), "peak": Figure(4096.0 * (case + 1))}
    figures |= {"resident": Figure(1e6 + case), "throughput": Figure(1e9 / latency), "flops": Figure(1e6 * (case + 1))}
    made = Record(
        case=f"{operation}/made/n{case:04d}",
        study=operation.split(".")[0],
        operation=operation,
        model="made",
        sizes=f"n{case:04d}",
        shape={"n": case},
        technique="plain",
        implementation="quick",
        kind="optimized",
        status="passed",
        figures=figures,
        verification={"error": 1e-7, "limit": 1e-5, "checked": ["output"], "precision": "float64", "seed": 1},
        timing={
            "clock": "wall",
            "caches": "cold",
            "pairing": "paired",
            "rounds": 30,
            "samples": 90,
            "stopped": "narrow",
        },
        source={"file": "impls/made/quick.py", "digest": digest},
        doc="Made up.",
    )
    return dataclasses.replace(made, **changes)


def latencies(runs: int, cases: int, seed: int = 0) -> np.ndarray:
    """Nanoseconds [runs, cases]: every fifth case changes its level by a tenth twice, one value in fifty is a spike."""
    rng = np.random.default_rng(seed)
    logs = rng.normal(0, NOISE, (runs, cases)) + rng.uniform(9, 15, cases)
    for case in range(0, cases, 5):
        for place in rng.integers(runs // 10, max(runs - runs // 10, runs // 10 + 1), 2):
            logs[place:, case] += rng.choice([-0.1, 0.1])
    spikes = rng.random((runs, cases)) < 0.02
    return np.exp(logs + spikes * rng.uniform(0.1, 1.0, (runs, cases)))


def write(folder: Path, head: Header, records: list[Record]) -> Path:
    """A run's folder, without syncing each line to disk."""
    folder.mkdir(parents=True)
    lines = [{"schema": SCHEMA, "type": "run", **dataclasses.asdict(head)}]
    lines += [{"schema": SCHEMA, "type": "record", **dataclasses.asdict(one)} for one in records]
    (folder / "run.jsonl").write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return folder


def generate(top: Path, runs: int, cases: int, seed: int = 0) -> None:
    """Write a past: every fourth run is of a second machine, torch is upgraded half way."""
    times = latencies(runs, cases, seed)
    for number in range(runs):
        machine = int(number % 4 == 3)
        head = header(number, machine, "2.11.0" if number < runs / 2 else "2.13.0")
        records = [record(case, float(times[number, case]) * (1 + 2 * machine)) for case in range(cases)]
        write(top / head.run, head, records)


STEPS = {
    "add the runs": "from harness.history import main; code = main(['{runs}', '--history', '{store}'])",
    "open the history": "from harness.store import History; from pathlib import Path; "
    "code = not len(History(Path('{store}')).points().runs)",
    "open it and build its pages": "from reports.history import main; "
    "code = main(['--history', '{store}', '--out', '{site}'])",
}


def measured(code: str) -> tuple[float, float]:
    """Seconds and peak bytes of a process of its own. Raises CalledProcessError where it fails."""
    told = "; import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code + told], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, 1024.0 * int(done.stdout.split()[-1])


def main() -> int:
    """Exit status 0; what was measured is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.past", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for runs, history and pages, kept afterwards")
    asked = parser.parse_args()
    top = asked.keep or Path(tempfile.mkdtemp(prefix="past-"))
    try:
        if not (top / "runs").is_dir():
            generate(top / "runs", asked.runs, asked.cases, asked.seed)
        paths = {"runs": top / "runs", "store": top / "history.sqlite", "site": top / "site"}
        paths["store"].unlink(missing_ok=True)
        for step, code in STEPS.items():
            seconds, peak = measured(code.format(**paths))
            print(f"{step}: {seconds:.1f} s, {peak / 2**20:.0f} MiB", flush=True)
        sizes = [path.stat().st_size for path in paths["site"].glob("*.html")]
        print(
            f"history {paths['store'].stat().st_size / 1e6:.0f} MB; {len(sizes)} pages, up to {max(sizes) / 1e3:.0f} kB"
        )
        print(f"largest child {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10:.0f} MiB")
    finally:
        if asked.keep is None:
            shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
