"""Processors while something is measured: frequency, load by others, steal, and how often we were made to wait.

Counters come from `host.py`; of two moments the difference counts. Load by others is what the cores that we may use
worked and we did not. A switch that is not voluntary is the scheduler taking the core from a thread that could go on.
Sees nothing of what a hypervisor hides: a virtual machine's frequency is the one it was told.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..host import Host

FREQUENCIES = 8  # cores that are asked: each answer interrupts one on some processors
Row = dict[str, Any]


class Processors:
    """Rows of counters for a sampler; `ours` says which processes the measurement consists of."""

    def __init__(self, ours: Callable[[], Sequence[int]], host: Host | None = None) -> None:
        self._ours, self._host = ours, Host() if host is None else host

    def sample(self) -> Row:
        """Counters now: seconds busy and stolen, CPU seconds and switches by process of ours, mean frequency."""
        busy, steal = self._host.cores()
        return {
            "busy_s": busy,
            "steal_s": steal,
            "ours": {pid: found for pid in self._ours() if (found := self._host.process(pid)) is not None},
            "frequency_mhz": self._frequency(),
        }

    def _frequency(self) -> float | None:
        host = self._host
        found = [float(text) / 1e3 for text in host.of_cores("cpufreq/scaling_cur_freq", FREQUENCIES) if text.isdigit()]
        if not found:
            lines = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", host.text("proc/cpuinfo"), re.MULTILINE)
            found = [float(lines[cpu]) for cpu in host.cpus if cpu < len(lines)]
        return statistics.mean(found) if found else None


def differences(rows: Sequence[tuple[float, Row]]) -> list[Row]:
    """Between each two rows (moment, counters): cores busy with others and stolen, switches a second, frequency."""
    found = []
    for (begin, before), (end, after) in pairwise(rows):
        seconds = end - begin
        if seconds <= 0:
            continue
        row: Row = {"when": end, "frequency_mhz": after["frequency_mhz"], "others": None, "steal": None}
        if before["busy_s"] is not None and after["busy_s"] is not None:
            own = _advance(before["ours"], after["ours"], "cpu_s")
            row["others"] = max(0.0, (after["busy_s"] - before["busy_s"] - own) / seconds)
            row["steal"] = (after["steal_s"] - before["steal_s"]) / seconds
        for name in ("switches", "waits"):
            row[name] = _advance(before["ours"], after["ours"], name) / seconds
        found.append(row)
    return found


def _advance(before: Mapping[int, Row], after: Mapping[int, Row], name: str) -> float:
    """Of the processes that were there at both ends."""
    return float(sum(max(0, after[pid][name] - before[pid][name]) for pid in set(before) & set(after)))


def summary(rows: Sequence[tuple[float, Row]]) -> dict[str, Any] | None:
    """Of a window: means of load by others and steal (cores), of switches (a second), and the frequency's spread."""
    if len(rows) < 2:
        return None
    whole = differences([rows[0], rows[-1]])
    if not whole:
        return None
    found = {name: value for name, value in whole[0].items() if name not in ("when", "frequency_mhz")}
    spread = [row["frequency_mhz"] for _, row in rows if row["frequency_mhz"] is not None]
    if spread:
        found["frequency_mhz"] = {"median": statistics.median(spread), "min": min(spread), "max": max(spread)}
    return found
