"""What does telemetry cost, and does energy repeat? `python -m harness.telemetry`, two minutes and a half on a GPU.

A contender of each study is called in blocks of a fifth of a second, in turn with the sampler running and without it,
in random order: the ratio of their times is what sampling costs, and must be within half a per cent. On a GPU the
energy of a call is then measured ten times, each in a window of its own, and must repeat within three per cent. The
sampler runs in this process and the calls in another, as in a run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog import Catalog, Refused, choose_device, nearest
from ..options import Options
from ..process import WorkerLost, WorkerProcess, WorkerRefused, end_like_ctrl_c
from ..statistics import ratio_estimate
from ..units import aligned, digits, plain, show
from .sampler import Sampler

WORKER = "harness.telemetry.worker"
CHEAP = 0.005
REPEATS = 0.03
BLOCK_SECONDS = 0.2
LEAST_PAIRS = 6
WEIGHED = 10
CASES = 3
SECONDS = 30.0
PREFERRED = ("optimized", "library", "reference")
Row = dict[str, Any]


def chosen(catalog: Catalog, asked: str | None) -> list[tuple[str, str]]:
    """The case asked for, or the first of each study, three at most, each with a contender, ours before others.

    Raises Refused for a case that is unknown, or that nobody can run here.
    """
    known = {case.id: case for case in catalog.cases}
    if asked is not None and asked not in known:
        raise Refused(f"--case {asked} is unknown; {nearest(asked, list(known))}")
    found: dict[str, tuple[str, str]] = {}
    for case in catalog.cases if asked is None else [known[asked]]:
        able = [c for c in case.contenders if c.reason is None and c.kind in PREFERRED]
        if able and case.study not in found:
            found[case.study] = (case.id, min(able, key=lambda c: PREFERRED.index(c.kind)).name)
    if not found:
        raise Refused(f"nothing can run {asked or 'here'}; make list says why")
    return list(found.values())[:CASES]


def cost(worker: WorkerProcess, sampler: Sampler, seconds: float, rng: random.Random) -> Row:
    """The ratio of times with the sampler to times without, from pairs of blocks, with its interval."""
    times: dict[bool, list[float]] = {True: [], False: []}
    end = time.monotonic() + seconds
    while len(times[True]) < LEAST_PAIRS or time.monotonic() < end:
        for sampled in rng.sample((True, False), 2):
            if sampled:
                sampler.start()
            try:
                times[sampled].append(worker.ask(do="block", seconds=BLOCK_SECONDS)["latency_ns"])
            finally:
                sampler.stop()
    ratio = ratio_estimate(np.asarray(times[True]), np.asarray(times[False]))
    return {"pairs": len(times[True]), "ratio": ratio.value, "low": ratio.low, "high": ratio.high}


def weighed(worker: WorkerProcess, latency_ns: float) -> list[Row]:
    """Ten measurements of the energy of one call; none where the counter does not tell."""
    found = []
    for _ in range(WEIGHED):
        energy = worker.ask(do="weigh", latency_ns=latency_ns)["energy"]
        if energy is None:
            return []
        found.append(energy)
    return found


def cheap(row: Row) -> bool | None:
    """Whether sampling changes the time by less than half a per cent; None where the interval does not tell."""
    low, high = row["low"] - 1, row["high"] - 1
    if low > -CHEAP and high < CHEAP:
        return True
    return False if low > CHEAP or high < -CHEAP else None


def spread(energies: Sequence[Row]) -> float:
    """The largest distance from the median, over the median."""
    joules = np.asarray([energy["joules"] for energy in energies])
    middle = float(np.median(joules))
    return float(np.max(np.abs(joules - middle))) / middle


def measured(options: Options, asked: argparse.Namespace, log: Path) -> Iterator[Row]:
    """A row a case. Raises Refused, or WorkerLost."""
    worker = WorkerProcess(options, log, WORKER)
    rng = random.Random()
    try:
        catalog = Catalog.from_data(worker.wait())
        device = catalog.device
        sampler = Sampler(gpus=device == "cuda", ours=lambda: (worker.pid,))
        for case, contender in chosen(catalog, asked.case):
            row: Row = {"case": case, "contender": contender, "device": device}
            held = worker.ask(do="hold", case=case, contender=contender)
            if held["event"] == "unheld":
                yield {**row, "reason": f"{held['status']}: {held['reason']}"}
                continue
            row["latency_ns"] = held["latency_ns"]
            row["cost"] = cost(worker, sampler, asked.seconds, rng)
            row["energies"] = weighed(worker, held["latency_ns"]) if device == "cuda" else []
            yield row
    except WorkerRefused as refusal:
        raise Refused(str(refusal)) from refusal
    finally:
        worker.kill()


def line(row: Row) -> list[str]:
    """Cells: case, contender, latency, cost and its interval, energy and how it repeats."""
    if "reason" in row:
        return [row["case"], row["contender"], row["reason"][:60], "", "", "", ""]
    found, energies = row["cost"], row["energies"]
    told = {True: "within 0.5 %", False: "NOT within 0.5 %", None: "not told"}[cheap(found)]
    change = [f"{100 * (found[name] - 1):+.2f} %" for name in ("ratio", "low", "high")]
    cells = [row["case"], row["contender"], plain(show(row["latency_ns"], "ns"))]
    cells += [f"{change[0]} [{change[1]}, {change[2]}]", told]
    if not energies:
        return [*cells, "no energy counter" if row["device"] == "cuda" else "no GPU", ""]
    joules = float(np.median([energy["joules"] for energy in energies]))
    apart = spread(energies)
    said = f"{'within' if apart <= REPEATS else 'NOT within'} 3 %: {digits(100 * apart, 2)} %"
    return [*cells, f"{digits(joules)} J", said]


def verdict(rows: Sequence[Row]) -> int:
    """Exit status: 0 both hold, 1 one does not, 3 it cannot be told."""
    good = [row for row in rows if "reason" not in row]
    costs = [cheap(row["cost"]) for row in good]
    if False in costs or any(spread(row["energies"]) > REPEATS for row in good if row["energies"]):
        return 1
    unknown = not good or len(good) < len(rows) or None in costs
    return 3 if unknown or any(row["device"] == "cuda" and not row["energies"] for row in good) else 0


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 both hold, 1 one does not, 2 the request cannot be met, 3 it cannot be told."""
    parser = argparse.ArgumentParser(prog="python -m harness.telemetry", description=__doc__)
    parser.add_argument("--case", help="one case, as make list prints it; default: the first of three studies")
    parser.add_argument("--study", help="one study, for example ffn")
    parser.add_argument("--tier", help="smoke, cpu, gpu or full")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="a case, for the cost; default: %(default)g")
    parser.add_argument("--out", type=Path, help="a file for everything measured, as JSON")
    asked = parser.parse_args(words)
    end_like_ctrl_c()
    try:
        if not 0 < asked.seconds < math.inf:
            raise Refused(f"--seconds {asked.seconds:g} is not a number of seconds above 0")
        options = Options(str(Path.cwd()), choose_device(asked.device), asked.tier, study=asked.study)
        rows = []
        for row in measured(options, asked, Path("runs") / "telemetry.log"):
            rows.append(row)
            print(f"{row['case']}: measured", flush=True)
        if asked.out is not None:
            asked.out.write_text(json.dumps(rows, indent=1) + "\n")
    except (Refused, WorkerLost, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    header = ["case", "contender", "latency", "sampling changes it by", "", "energy a call", "repeats"]
    print("\n".join(["", *aligned([header, *map(line, rows)])]))
    return verdict(rows)


if __name__ == "__main__":
    sys.exit(main())
