"""What a person reads in the terminal: progress while measuring, a table at the end, and the list of what there is."""

from __future__ import annotations

from collections.abc import Iterable

from .catalog import Catalog
from .record import Record
from .session import Session
from .units import aligned, duration, interval, plain, show

COLUMNS = (
    "technique",
    "implementation",
    "latency",
    "95 % interval",
    "vs base",
    "of floor",
    "resident",
    "peak",
    "throughput",
)
SHOWN = (("floor_share", "share"), ("resident", "bytes"), ("peak", "bytes"), ("throughput", "tokens/s"))


def progress(session: Session, number: int, total: int, case: str, contenders: int) -> str:
    """One line before a contest: where we are and how much of the budget is left."""
    left = duration(session.seconds_left)
    return f"[{number:>3}/{total}] {case} · {contenders} contenders · {left} left"


def table(records: Iterable[Record]) -> list[str]:
    """The closing table, case by case, fastest first; failures with their reason, absentees counted."""
    lines: list[str] = []
    cases: dict[str, list[Record]] = {}
    for record in records:
        cases.setdefault(record.case, []).append(record)
    for case, members in cases.items():
        passed = [r for r in members if r.status == "passed"]
        passed.sort(key=lambda r: r.value("latency") or 0.0)
        baseline = next((r.baseline for r in passed if r.baseline), None)
        lines += ["", f"{case}" + (f"   base: {baseline}" if baseline else "")]
        lines += aligned([COLUMNS, *(_row(record) for record in passed)])
        for record in members:
            if record.status not in ("passed", "unavailable"):
                lines.append(f"  {record.contender}: {record.status.upper()}: {record.reason}")
        absent = sum(1 for r in members if r.status == "unavailable")
        if absent:
            lines.append(f"  {absent} cannot run here (make list says why)")
    return lines


def _row(record: Record) -> tuple[str, ...]:
    latency, ratio = record.figures["latency"], record.figures.get("ratio")
    marks = ("!" if record.timing.get("suspect") else "") + ("h" if record.timing.get("clock") == "host-bound" else "")
    unpaired = "~" if record.timing.get("pairing") == "unpaired" else ""
    return (
        record.technique,
        record.implementation,
        plain(show(latency.value, "ns")) + marks,
        interval(latency, "ns") or "-",
        plain(show(ratio.value, "ratio")) + unpaired if ratio else "-",
        *(_figure(record, name, unit) for name, unit in SHOWN),
    )


def _figure(record: Record, metric: str, unit: str) -> str:
    """A figure as the table has it; a dash where there is none."""
    value = record.value(metric)
    return "-" if value is None else plain(show(value, unit))


LEGEND = (
    "vs base: latency over the case's baseline, below 1 is faster (~ not paired) · of floor: 100 % is the hardware's "
    "limit · ! faster than the floor allows: suspect · h bound by the host, not the GPU"
)


def listing(catalog: Catalog) -> list[str]:
    """Cases and contenders; one that cannot run here with the reason."""
    lines = [f"device {catalog.device}, tier {catalog.tier}: {len(catalog.cases)} cases"]
    for case in catalog.cases:
        able = [c.name for c in case.contenders if c.reason is None]
        lines += ["", case.id, f"  runs: {', '.join(able) or 'nothing'}"]
        reasons: dict[str, list[str]] = {}
        for contender in case.contenders:
            if contender.reason is not None:
                reasons.setdefault(contender.reason, []).append(contender.name)
        lines += [f"  not here: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return lines
