"""Reads the kernel's counters of a Linux machine: CPU time by core and process, steal, swapping, cgroups, throttling.

`Host` reads below a root folder, so that a test can be any machine; `Moment` holds the counters of one instant, of
which the doctor compares two. What cannot be read is None or empty. Wins over `os` and psutil by seeing what a
container may see and nothing else; loses sight of processes outside this PID namespace, whose time shows in the cores'.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
CGROUPS = "sys/fs/cgroup"
IDLE, WAITING, STEAL = 3, 4, 7  # columns of a core's line in /proc/stat
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Moment:
    """Counters at one instant; times in seconds.

    busy, steal   of the cores this process may use: time spent working, and time the hypervisor gave to others
    own           CPU time of this process and of those it started that have ended
    processes     CPU time by (process id, name)
    swapped       pages swapped in and out since the machine started; None where unreadable
    throttled     times the cgroup's quota stopped us; None without one
    hot           times a core slowed down for its temperature; None where unreadable
    """

    when: float
    busy: float | None
    steal: float | None
    own: float
    processes: Mapping[tuple[int, str], float]
    swapped: int | None
    throttled: int | None
    hot: int | None


class Host:
    """A machine as its /proc and /sys below `root` tell it; `cpus` are the cores this process may use."""

    def __init__(self, root: Path = Path("/"), cpus: Sequence[int] | None = None) -> None:
        self.root = root
        if cpus is None:
            cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        self.cpus = list(cpus)

    def text(self, path: str) -> str:
        """The contents of a file; empty where it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: str) -> int | None:
        """The whole number in a file; None where there is none."""
        found = self.text(path).split()
        return int(found[0]) if found and re.fullmatch(r"-?\d+", found[0]) else None

    def of_cores(self, path: str, most: int | None = None) -> list[str]:
        """What each core's file below /sys/devices/system/cpu/cpuN holds, of those, or the first, that have it."""
        found = (self.text(f"sys/devices/system/cpu/cpu{cpu}/{path}") for cpu in self.cpus[:most])
        return [text for text in found if text]

    def fields(self, path: str) -> dict[str, int]:
        """A file of lines `name number`, or `name: number kB` in bytes."""
        found = {}
        for line in self.text(path).splitlines():
            match = re.match(r"(\S+?):?\s+(-?\d+)( kB)?$", line)
            if match:
                found[match.group(1)] = int(match.group(2)) * (1024 if match.group(3) else 1)
        return found

    def moment(self) -> Moment:
        """The counters now."""
        busy, steal = self.cores()
        pages = self.fields("proc/vmstat")
        counts = [int(text) for text in self.of_cores("thermal_throttle/core_throttle_count") if text.isdigit()]
        return Moment(
            when=time.monotonic(),
            busy=busy,
            steal=steal,
            own=sum(os.times()[:4]),
            processes=dict(self._processes()),
            swapped=pages["pswpin"] + pages["pswpout"] if {"pswpin", "pswpout"} <= set(pages) else None,
            throttled=self._throttled(),
            hot=sum(counts) if counts else None,
        )

    def cores(self) -> tuple[float | None, float | None]:
        """Seconds that the cores we may use worked, and that were stolen from them, since the machine started."""
        busy = steal = 0
        seen = False
        for line in self.text("proc/stat").splitlines():
            match = re.match(r"cpu(\d+) (.+)", line)
            if match and int(match.group(1)) in self.cpus:
                columns = [int(word) for word in match.group(2).split()]
                if len(columns) > STEAL:
                    seen = True
                    steal += columns[STEAL]
                    busy += sum(columns[:STEAL]) - columns[IDLE] - columns[WAITING]
        return (busy / TICKS, steal / TICKS) if seen else (None, None)

    def process(self, pid: int) -> dict[str, float] | None:
        """CPU seconds of a process, and how often its threads lost the core (`switches`) or gave it up (`waits`)."""
        spent = self._spent(pid)
        if spent is None:
            return None
        counts = {"nonvoluntary_ctxt_switches": 0, "voluntary_ctxt_switches": 0}
        for path in (self.root / "proc" / str(pid) / "task").glob("[0-9]*"):
            fields = self.fields(f"proc/{pid}/task/{path.name}/status")
            counts = {name: count + fields.get(name, 0) for name, count in counts.items()}
        return {
            "cpu_s": spent[1],
            "switches": counts["nonvoluntary_ctxt_switches"],
            "waits": counts["voluntary_ctxt_switches"],
        }

    def _spent(self, pid: int) -> tuple[str, float] | None:
        """Name and CPU seconds of a process."""
        match = re.match(r"\d+ \((.*)\) (.+)", self.text(f"proc/{pid}/stat"), re.DOTALL)
        columns = match.group(2).split() if match else []
        if match is None or len(columns) <= 12:
            return None
        return match.group(1), (int(columns[11]) + int(columns[12])) / TICKS

    def _processes(self) -> Iterator[tuple[tuple[int, str], float]]:
        for path in (self.root / "proc").glob("[0-9]*"):
            spent = self._spent(int(path.name))
            if spent is not None:
                yield (int(path.name), spent[0]), spent[1]

    def _groups(self, controller: str) -> list[str]:
        """Folders of this process's cgroup and those above it, for a controller of version 1 or for version 2."""
        found = []
        for line in self.text("proc/self/cgroup").splitlines():
            number, controllers, path = (*line.split(":", 2), "", "")[:3]
            if number == "0" or controller in controllers.split(","):
                base = CGROUPS if number == "0" else f"{CGROUPS}/{controllers}"
                if not (self.root / base).is_dir():
                    base = f"{CGROUPS}/{controller}"
                parts = [part for part in path.split("/") if part and part != ".."]
                found += ["/".join([base, *parts[:count]]) for count in range(len(parts), -1, -1)]
        return found

    def quota(self) -> float | None:
        """Cores' worth of time that the tightest cgroup allows; None where there is no limit."""
        found = []
        for group in self._groups("cpu"):
            words = self.text(f"{group}/cpu.max").split()
            limit = (
                int(words[0]) if len(words) == 2 and words[0].isdigit() else self.number(f"{group}/cpu.cfs_quota_us")
            )
            period = int(words[1]) if len(words) == 2 else self.number(f"{group}/cpu.cfs_period_us")
            if limit is not None and limit > 0 and period:
                found.append(limit / period)
        return min(found, default=None)

    def _throttled(self) -> int | None:
        counts = [self.fields(f"{group}/cpu.stat").get("nr_throttled") for group in self._groups("cpu")]
        known = [count for count in counts if count is not None]
        return max(known, default=None)

    def memory_limit(self) -> tuple[int, int] | None:
        """Bytes allowed and bytes used of the tightest memory cgroup; None where there is no limit."""
        found = []
        for group in self._groups("memory"):
            for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                most, now = self.number(f"{group}/{limit}"), self.number(f"{group}/{used}")
                if most is not None and now is not None and most < UNLIMITED:
                    found.append((most, now))
        return min(found, default=None)
