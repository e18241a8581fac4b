"""The tool `host`: what Python does in a call, function by function, from cProfile: the launch overhead.

On a GPU a call returns when all is enqueued, so what is seen is the host's part alone; on a CPU torch's operators
compute inside of it and are among the built-in functions. Wins where a case is bound by the host. cProfile slows every
Python function down, so the time of a call is taken without it as well.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from .subject import Subject

SECONDS = 4.0
LEAST, MOST = 3, 200
MOST_ROWS = 40
BUILT_IN = "~"
SWITCH = "<method 'disable' of '_lsprof.Profiler' objects>"


def run(subject: Subject, folder: Path, stem: str) -> dict[str, Any]:
    """Times in ns a call; the whole of cProfile's finding in `folder`/`stem`.pstats."""
    plain: list[int] = []
    profiler = cProfile.Profile()
    until = perf_counter_ns() + SECONDS * 1e9
    while len(plain) < LEAST or (len(plain) < MOST and perf_counter_ns() < until):
        plain.append(_enqueued(subject, lambda: None, lambda: None))
        _enqueued(subject, profiler.enable, profiler.disable)
    calls = len(plain)
    subject.synchronize()
    file = f"{stem}.pstats"
    profiler.dump_stats(str(folder / file))
    return {"files": {"pstats": file}, "calls": calls, **tables(profiler, calls, statistics.median(plain))}


def _enqueued(subject: Subject, enable: Callable[[], None], disable: Callable[[], None]) -> int:
    """Nanoseconds after which one call returns."""
    subject.between()
    subject.synchronize()
    enable()
    begin = perf_counter_ns()
    subject.call()
    elapsed = perf_counter_ns() - begin
    disable()
    return elapsed


def tables(profiler: cProfile.Profile, calls: int, plain_ns: float) -> dict[str, Any]:
    """Rows by function, the longest of its own first; `python_share`: what is not in built-in functions."""
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    rows: list[dict[str, Any]] = []
    for (file, line, name), (_, count, own, total, _) in stats.items():
        if name == SWITCH:
            continue
        where = name if file == BUILT_IN else f"{_short(file)}:{line} {name}"
        rows.append(
            {
                "name": where,
                "own_ns": 1e9 * own / calls,
                "total_ns": 1e9 * total / calls,
                "calls": count / calls,
                "built_in": file == BUILT_IN,
            }
        )
    whole = sum(row["own_ns"] for row in rows)
    for row in rows:
        row["share"] = row["own_ns"] / whole if whole else 0.0
    rows.sort(key=lambda row: -row["own_ns"])
    python = sum(row["own_ns"] for row in rows if not row["built_in"])
    figures = {"submit_ns": plain_ns, "profiled_ns": whole, "python_share": python / whole if whole else 0.0}
    return {"figures": figures, "tables": {"functions": rows[:MOST_ROWS]}}


def _short(file: str) -> str:
    """The last three parts of a path: enough to find it, the same on every machine."""
    return "/".join(Path(file).parts[-3:])
