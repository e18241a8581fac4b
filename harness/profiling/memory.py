"""The tool `memory`: what a contender allocates, when, by which operator, and what held the highest point of a call.

The events are torch's own profiler's, on a CPU and on a GPU alike; on a GPU torch's snapshot is kept as well, with the
Python lines of each allocation, which https://pytorch.org/memory_viz draws in the browser without sending it anywhere.
Loses sight of memory that is not torch's, and of weights and inputs, which were there before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .subject import CALL, Subject
from .tracer import RANGE

ALLOCATORS = ("empty", "new_", "zeros", "ones", "full", "resize_", "rand", "clone", "contiguous", "to", "_to_copy")
OUTSIDE = "outside operators"
MOST_ROWS = 30
MOST_POINTS = 2000
SNAPSHOT_ENTRIES = 200_000


@dataclass(frozen=True)
class Allocation:
    """Bytes taken (above 0) or given back (below 0) at an address; `operator` did it, in a phase."""

    when_ns: int
    address: int
    bytes: int
    operator: str
    phase: str


@dataclass(frozen=True)
class History:
    """Bytes held after each event [(ns, bytes)] above what was there before, and what held the highest point of a call.

    `holders` are rows by phase and operator, the largest first; `allocated` the same of all that calls took, freed or
    not.
    """

    points: Sequence[tuple[int, int]]
    before: int
    peak: int
    kept: int
    holders: Sequence[dict[str, Any]]
    allocated: Sequence[dict[str, Any]]


def history(allocations: Iterable[Allocation], phase: str) -> History:
    """Replay what happened; the peak is the highest point in `phase`, `before` what was held when it began."""
    held = peak = before = 0
    begun = False
    alive: dict[int, Allocation] = {}
    holders: list[Allocation] = []
    taken: list[Allocation] = []
    points = []
    for event in sorted(allocations, key=lambda event: event.when_ns):
        if event.phase == phase and not begun:
            begun, before, peak, holders = True, held, held, list(alive.values())
        held += event.bytes
        points.append((event.when_ns, held))
        if event.bytes > 0:
            alive[event.address] = event
        else:
            alive.pop(event.address, None)
        if event.phase == phase:
            taken += [event] if event.bytes > 0 else []
            if held > peak:
                peak, holders = held, list(alive.values())
    return History(points, before, peak, held, _grouped(holders), _grouped(taken))


def _grouped(events: Iterable[Allocation]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        groups[event.phase, event.operator].append(event.bytes)
    rows = [
        {"phase": phase, "operator": operator, "bytes": sum(sizes), "count": len(sizes), "largest": max(sizes)}
        for (phase, operator), sizes in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(str(row["bytes"])))[:MOST_ROWS]


def allocations(roots: Iterable[Any], device: str) -> Iterator[Allocation]:
    """The profiler's event tree, flattened; only what was taken on `device`."""
    stack: list[tuple[Any, str, str]] = [(root, OUTSIDE, "") for root in roots]
    while stack:
        node, operator, phase = stack.pop()
        kind, fields = node.typed
        if kind.name == "Allocation":
            if fields.device.type == device:
                yield Allocation(node.start_time_ns, fields.ptr, fields.alloc_size, operator, phase)
            continue
        if node.name.startswith(RANGE):
            phase = node.name.removeprefix(RANGE)
        elif operator == OUTSIDE or not _allocator(node.name):
            operator = node.name
        stack += [(child, operator, phase) for child in node.children]


def _allocator(name: str) -> bool:
    return any(name.removeprefix("aten::").startswith(word) for word in ALLOCATORS)


def run(subject: Subject, folder: Path, stem: str) -> dict[str, Any]:
    """One call after setting up anew; on a GPU with a snapshot in `folder`/`stem`.pickle."""
    on_gpu = subject.device == "cuda"
    files = {}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    if on_gpu:
        torch.cuda.memory._record_memory_history(max_entries=SNAPSHOT_ENTRIES)
    try:
        with profile(activities=activities, profile_memory=True, record_shapes=True, acc_events=True) as seen:
            subject.walk(1, record_function)
        if on_gpu:
            files["snapshot"] = f"{stem}.pickle"
            torch.cuda.memory._dump_snapshot(str(folder / files["snapshot"]))
    finally:
        if on_gpu:
            torch.cuda.memory._record_memory_history(enabled=None)
    roots = seen.profiler.kineto_results.experimental_event_tree()
    found = history(allocations(roots, subject.device), CALL.removeprefix(RANGE))
    step = max(1, len(found.points) // MOST_POINTS)
    start = found.points[0][0] if found.points else 0
    return {
        "files": files,
        "calls": 1,
        "figures": {
            "peak_bytes": found.peak - found.before,
            "held_before_bytes": found.before,
            "held_after_bytes": found.kept,
        },
        "tables": {"holders": list(found.holders), "allocated": list(found.allocated)},
        "timeline": [[when - start, held] for when, held in found.points[::step]],
    }
