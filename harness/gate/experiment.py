"""How often the timing gate is wrong: runs of equal code and of code slowed by a known share, quiet and disturbed.

Every run is an ordinary gate run of the commit at hand against itself, so the head's verdicts are those on equal code,
and the slowed copy's those on a regression of known size: +5, +10 and +20 % by turns. The same code is measured quiet
and beside two busy neighbours, which the experiment starts itself. Each run is on disk before the next begins, and an
experiment that was interrupted goes on where it stopped. Loses sight of what a slowdown can look like besides a share
of the time of every call.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..deviation import PASS, REGRESSION, USAGE
from ..process import end_like_ctrl_c
from ..units import aligned, duration
from .neighbour import Neighbours
from .options import GateOptions
from .outcome import case_data
from .revision import BaseTree, Revision, Stopped, find
from .run import GateRun

CONDITIONS = {"quiet": 0, "busy": 2}
SIZES = (0.05, 0.10, 0.20)
FILE, SUMMARY = "runs.jsonl", "experiment.json"
KINDS = ("slower", "unclear", "same", "faster")


@dataclass(frozen=True)
class Wish:
    """What must hold of one row: a share of verdicts, at least or at most."""

    kinds: tuple[str, ...]
    least: float = 0.0
    most: float = 1.0

    def holds(self, counts: Mapping[str, int]) -> bool:
        """Whether it does; of no verdicts it does not."""
        total = sum(counts.values())
        share = sum(counts.get(kind, 0) for kind in self.kinds) / total if total else -1.0
        return self.least <= share <= self.most

    def __str__(self) -> str:
        words = " or ".join(self.kinds)
        return (
            f"{words} at most {100 * self.most:g} %" if self.least == 0 else f"{words} at least {100 * self.least:g} %"
        )


WISHES: Mapping[float, tuple[Wish, ...]] = {
    0.0: (Wish(("slower",), most=1 / 400),),
    0.05: (Wish(("slower", "unclear"), least=0.8), Wish(("same", "faster"), most=0.0)),
    0.10: (Wish(("slower",), least=0.95), Wish(("same", "faster"), most=0.0)),
    0.20: (Wish(("slower",), least=0.95), Wish(("same", "faster"), most=0.0)),
}


class Journal:
    """The finished runs of an experiment, in a folder. Raises Stopped for those of another commit or machine."""

    def __init__(self, folder: Path, commit: str) -> None:
        self._path, self._mark = folder / FILE, {"commit": commit, "machine": platform.node()}
        self.runs: list[dict[str, Any]] = []
        for number, line in enumerate(self._path.read_text().splitlines() if self._path.is_file() else [], 1):
            try:
                run = json.loads(line)
            except ValueError:
                continue  # the last line of one that was killed while writing
            if {name: run.get(name) for name in self._mark} != self._mark:
                said = (
                    f"{self._path}, line {number}, is of commit {str(run.get('commit'))[:10]} on {run.get('machine')}"
                )
                raise Stopped(USAGE, f"{said}; give another folder with OUT=")
            self.runs.append(run)

    def add(self, run: Mapping[str, Any]) -> None:
        """Keep a finished run, at once and whole."""
        self.runs.append({**self._mark, **run})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text("".join(json.dumps(one) + "\n" for one in self.runs))
        os.replace(new, self._path)

    def of(self, condition: str) -> list[dict[str, Any]]:
        """Runs under one condition."""
        return [run for run in self.runs if run["condition"] == condition]

    def counts(self, condition: str, size: float) -> Counter[str]:
        """Verdicts on arms slowed by `size`; 0 for equal code."""
        arm = "canary" if size else "head"
        runs = [run for run in self.of(condition) if not size or run["size"] == size]
        return Counter(case[arm]["kind"] for run in runs for case in run["cases"] if case[arm])

    def rows(self) -> Iterator[tuple[str, float, Counter[str]]]:
        """Condition, size and verdicts."""
        for condition in CONDITIONS:
            for size in (0.0, *SIZES):
                yield condition, size, self.counts(condition, size)

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {
                "condition": condition,
                "slowed_by": size,
                "verdicts": sum(counts.values()),
                **{kind: counts.get(kind, 0) for kind in KINDS},
                "wishes": {str(wish): wish.holds(counts) for wish in WISHES[size]},
            }
            for condition, size, counts in self.rows()
        ]
        seconds = {condition: [round(run["seconds"], 1) for run in self.of(condition)] for condition in CONDITIONS}
        return {**self._mark, "rows": rows, "seconds": seconds}


def lines(journal: Journal) -> list[str]:
    """The table, and what does not hold."""
    table: list[tuple[str, ...]] = [("condition", "code", "verdicts", *KINDS)]
    missed: list[str] = []
    for condition, size, counts in journal.rows():
        code = f"slowed by {100 * size:g} %" if size else "equal"
        table.append((condition, code, str(sum(counts.values())), *(str(counts.get(kind, 0)) for kind in KINDS)))
        if counts:
            missed += [f"not met: {condition}, {code}: {wish}" for wish in WISHES[size] if not wish.holds(counts)]
        else:
            missed.append(f"no verdict yet: {condition}, {code}")
    seconds = [run["seconds"] for run in journal.runs]
    told = [f"{len(seconds)} runs, the longest {duration(max(seconds))}"] if seconds else []
    return [*aligned(table), *told, *missed]


def measure(asked: argparse.Namespace, root: Path, head: Revision, journal: Journal) -> None:
    """The runs that are missing. Raises Stopped when one cannot be measured."""
    options = GateOptions(root=str(root), device="cpu", budget=asked.budget, timeout=asked.timeout)
    with BaseTree(root, head, options.package, options.benches, options.copies) as tree:
        own = GateOptions(**{**options.__dict__, "root": str(tree.path / "tree"), "base_path": str(tree.path)})
        for condition, neighbours in CONDITIONS.items():
            for number in range(len(journal.of(condition)), asked.runs):
                size = SIZES[number % len(SIZES)]
                begin, load = time.monotonic(), os.getloadavg()[0]
                with Neighbours(root, neighbours):
                    found = GateRun(own, asked.out / "worker.log", asked.match, size).run()
                seconds = time.monotonic() - begin
                cases = [case_data(case) for case in found.cases]
                journal.add({"condition": condition, "size": size, "seconds": seconds, "load": load, "cases": cases})
                kinds = Counter(case.head.kind for case in found.cases if case.head)
                told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
                print(f"[{number + 1}/{asked.runs}] {condition}, equal code: {told}; {duration(seconds)}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 when everything holds, 1 when not, 2 for a request that cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m harness.gate.experiment", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="gate runs a condition; default: 40, 45 minutes in all")
    parser.add_argument("--out", type=Path, default=Path("runs", "gate-experiment"), help="their folder")
    parser.add_argument("--match", default="", help="only cases with this in their name")
    parser.add_argument("--budget", type=float, help="seconds a run; default: the gate's")
    parser.add_argument("--timeout", type=float, default=60.0, help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    end_like_ctrl_c()
    root = Path.cwd()
    try:
        if asked.runs < 1:
            raise Stopped(USAGE, f"N={asked.runs} is no number of runs")
        head = find(root, "HEAD")
        journal = Journal(asked.out, head.commit)
        try:
            measure(asked, root, head, journal)
        finally:
            if journal.runs:
                (asked.out / SUMMARY).write_text(json.dumps(journal.summary(), indent=1) + "\n")
                print("\n".join(lines(journal)))
    except Stopped as stopped:
        print(f"error: {stopped}", file=sys.stderr)
        return stopped.code
    except OSError as error:
        print(f"error: {error.filename or asked.out} cannot be used: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on, {asked.out} has what is finished", file=sys.stderr)
        return 130
    return PASS if all(all(row["wishes"].values()) for row in journal.summary()["rows"]) else REGRESSION


if __name__ == "__main__":
    sys.exit(main())
