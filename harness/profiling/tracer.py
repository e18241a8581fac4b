"""The tool `torch`: where the time of a call goes, by operator and by kernel, from torch's own profiler.

A Chrome trace with the case's phases as ranges, and tables: time, share, calls, FLOP/s and bytes/s where known, and on
a GPU the gaps in which it waited for the host. Wins as the first look at any slow case, on any machine. Loses to
a contest in every figure: the profiler slows the host down, by a few microseconds an operator, so its times are for
shares and order, and gaps are wider than without it. What a GPU kernel waits for is for `ncu` to tell.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from .spans import Row, Span, Trace, merged
from .subject import CALL, Subject
from .traffic import Traffic, Work

MOST_ROWS = 40
SECONDS = 3.0
MOST_CALLS = 10
OPERATOR = "cpu_op"
LAUNCHES = ("cuda_runtime", "cuda_driver")
RANGE = "whalebench: "


def spans(events: Any) -> Iterator[Span]:
    """Those of the profiler's raw events that matter."""
    for event in events:
        name, begin, end = event.name(), int(event.start_ns()), int(event.end_ns())
        on_device = event.device_type().name != "CPU"
        if event.is_user_annotation() or name.startswith(RANGE):
            if not on_device and name.startswith(RANGE):
                yield Span(name, "range", begin, end, lane=event.start_thread_id())
        elif on_device:
            if end > begin:
                stream, number = event.device_resource_id(), event.linked_correlation_id()
                yield Span(name, "kernel", begin, end, stream, number, event.correlation_id())
        elif _kind(event) in LAUNCHES:
            yield Span(name, "launch", begin, end, event.start_thread_id(), 0, event.correlation_id())
        elif _kind(event) == OPERATOR:
            yield Span(name, "operator", begin, end, event.start_thread_id(), event.correlation_id())


def _kind(event: Any) -> str:
    """The profiler's word for a host's event; by its name where this torch does not tell."""
    if hasattr(event, "activity_type"):
        return str(event.activity_type())
    return LAUNCHES[0] if re.match(r"(cuda|cu|hip)[A-Z]", event.name()) else OPERATOR


def run(subject: Subject, folder: Path, stem: str, ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """Profile and write the trace to `folder`/`stem`.trace.json.gz; what a profile file holds is returned."""
    calls = subject.affordable(MOST_CALLS, SECONDS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if subject.device == "cuda" else [])]
    with profile(activities=activities, record_shapes=True, acc_events=True) as seen:
        subject.walk(calls, record_function)
    file = f"{stem}.trace.json.gz"
    seen.export_chrome_trace(str(folder / file))
    trace = Trace(spans(seen.profiler.kineto_results.events()), CALL)
    work = counted(subject)  # last: what torch.compile has seen under a dispatch mode it no longer compiles
    return {"files": {"trace": file}, **tables(trace, work, subject, ceilings)}


def counted(subject: Subject) -> dict[str, Work]:
    """FLOPs and bytes of one call by operator; empty where it cannot be called under a dispatch mode."""
    subject.between()
    try:
        with Traffic() as seen:
            subject.call()
    except Exception:  # custom operators and compiled graphs may refuse one; the profile goes on without
        return {}
    finally:
        subject.synchronize()
    return dict(seen.work)


def tables(trace: Trace, work: Mapping[str, Work], subject: Subject, ceilings: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one call, and rows by operator and kernel, the longest first; times are ns a call."""
    count = len(trace.calls)
    device = trace.device()
    wall = statistics.median(call.length for call in trace.calls)
    busy = device.get("device_busy_ns", wall)
    figures: dict[str, float] = {"wall_ns": wall, **device}
    cost = subject.cost
    if cost is not None:
        total = cost.read_bytes + cost.write_bytes
        figures |= {"flops": cost.flops, "bytes": total, "flop_rate": 1e9 * cost.flops / busy}
        figures["byte_rate"] = 1e9 * total / busy
    rows = [_operator(row, work.get(row.name), count, bool(device)) for row in trace.operators()]
    time = "device_ns" if device else "own_ns"
    whole = sum(row[time] for row in rows)
    kernels = [_kernel(row, count) for row in trace.kernels()]
    if len(kernels) == 1 and kernels[0]["calls"] == 1 and cost is not None:
        kernels[0] |= {"flops": cost.flops, "bytes": cost.read_bytes + cost.write_bytes}
    dtype = None if cost is None else cost.dtype
    for row in [*rows, *kernels]:
        _rates(row, "device_ns" if device else "own_ns", whole, ceilings, dtype)
    rows.sort(key=lambda row: (-row[time], -row["own_ns"]))
    kernels.sort(key=lambda row: -row["device_ns"])
    gaps = [{**row, "ns": int(str(row["ns"])) / count} for row in merged(trace.gaps())]
    return {
        "calls": count,
        "figures": figures,
        "phases_ns": {name.removeprefix(RANGE): length for name, length in trace.phases.items()},
        "tables": {"operators": rows[:MOST_ROWS], "kernels": kernels[:MOST_ROWS], "gaps": gaps[:MOST_ROWS]},
    }


def _operator(row: Row, work: Work | None, count: int, on_device: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": row.name, "own_ns": row.own_ns / count, "calls": row.count / count}
    if on_device:
        found |= {"device_ns": row.device_ns / count, "launches": row.launches / count}
        found["kernels"] = sorted(row.kernels, key=lambda name: -row.kernels[name])[:4]
    if work is not None and work.count == row.count / count:  # else the counting call took another way
        found |= {"flops": work.flops, "bytes": work.bytes}
    return found


def _kernel(row: Row, count: int) -> dict[str, Any]:
    return {"name": row.name, "device_ns": row.device_ns / count, "calls": row.count / count}


def _rates(row: dict[str, Any], time: str, whole: float, ceilings: Mapping[str, Any], dtype: str | None) -> None:
    """Add share, rates, and which ceiling of the machine is nearer, as a share of it, where the run measured them."""
    row["share"] = row[time] / whole if whole else 0.0
    seconds = row[time] / 1e9
    if seconds <= 0:
        return
    limits = {"flops": (ceilings.get("matrix") or {}).get(dtype), "bytes": ceilings.get("read_bandwidth")}
    near: list[tuple[float, str]] = []
    for amount, rate, resource in (("flops", "flop_rate", "arithmetic"), ("bytes", "byte_rate", "memory")):
        if row.get(amount):
            row[rate] = row[amount] / seconds
            if limits[amount]:
                near.append((row[rate] / limits[amount], resource))
    if near:
        row["ceiling_share"], row["ceiling"] = max(near)
