"""One sampler a run: GPUs each 20 ms, processors each half second, in a thread beside the measurements.

It is asked afterwards what the machine did between two moments, as a summary for the record and as lanes for the page.
That it does not change what is measured is itself measured: `python -m harness.telemetry`.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..host import Host
from . import gpu, processor

INTERVAL = 0.02
EVERY = 25  # intervals between two looks at the processors, and at who else is on a GPU
LANES = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c", "utilisation")
HOST_LANES = ("frequency_mhz", "others", "steal", "switches")


class Sampler:
    """Samples between `start` and `stop`; `gpus`: whether there are any to look at; `ours`: processes that measure."""

    def __init__(
        self, gpus: bool = True, ours: Callable[[], Sequence[int]] = lambda: (), host: Host | None = None
    ) -> None:
        self._nvml = gpu.opened()[0] if gpus else None
        self._handles = [] if self._nvml is None else gpu.handles(self._nvml)
        self._ours = ours
        self._processors = processor.Processors(ours, host)
        self._samples: list[tuple[float, int, dict[str, Any]]] = []
        self._host: list[tuple[float, dict[str, Any]]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def available(self) -> bool:
        """Whether NVML can be read here."""
        return self._nvml is not None

    def start(self) -> None:
        """Begin sampling, or go on after `stop`."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._loop, daemon=True, name="telemetry")
            self._thread.start()

    def stop(self) -> None:
        """End sampling; what was sampled stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2)
            self._thread = None

    def _loop(self) -> None:
        interval, every = (INTERVAL, EVERY) if self._handles else (INTERVAL * EVERY, 1)
        number = 0
        while True:
            slow = number % every == 0
            if slow:
                self.look()
            self._sample(slow)
            number += 1
            if self._stop.wait(interval):
                return

    def _sample(self, slow: bool) -> None:
        for index, handle in enumerate(self._handles):
            if handle is not None:
                row = gpu.sample(self._nvml, handle)
                row["others"] = gpu.others(self._nvml, handle, self._ours()) if slow else None
                self._samples.append((time.monotonic(), index, row))

    def _rows(self, begin: float, end: float, index: int) -> list[tuple[float, dict[str, Any]]]:
        return [(when, row) for when, number, row in list(self._samples) if number == index and begin <= when <= end]

    def _host_rows(self, begin: float, end: float) -> list[tuple[float, dict[str, Any]]]:
        """Those within, and the last one before: what happens in a short window lies between two looks."""
        rows = list(self._host)
        before = [row for row in rows if row[0] < begin][-1:]
        return before + [row for row in rows if begin <= row[0] <= end]

    def look(self) -> None:
        """A look at the processors now: a window ends with one."""
        self._host.append((time.monotonic(), self._processors.sample()))

    def summary(self, begin: float, end: float, index: int = 0) -> dict[str, Any] | None:
        """Between two `time.monotonic()` moments: median, least and greatest of each reading of CUDA's GPU `index`,
        reasons for throttling, other processes on it, and under `host` what the processors did.

        None when no sample fell into the window. `energy_j` is the total-energy counter's advance over the whole
        window, all contenders and idle gaps included.
        """
        found: dict[str, Any] = {"window_s": round(end - begin, 3)}
        rows = [row for _, row in self._rows(begin, end, index)]
        if rows:
            found |= {"samples": len(rows), **_summed(rows)}
        host = processor.summary(self._host_rows(begin, end))
        if host is not None:
            found["host"] = host
        return found if len(found) > 1 else None

    def lanes(self, begin: float, end: float) -> dict[str, Any]:
        """Readings over time, seconds since `begin`, by GPU and for the processors; empty where nothing was read."""
        found: dict[str, Any] = {"gpus": [], "host": {}}
        for index in range(len(self._handles)):
            rows = self._rows(begin, end, index)
            found["gpus"].append(_lanes([{"when": when, **row} for when, row in rows], LANES, begin))
        found["host"] = _lanes(processor.differences(self._host_rows(begin, end)), HOST_LANES, begin)
        return found


def _summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in gpu.READINGS:
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    bits = 0
    for row in rows:
        bits |= row["throttle_bits"] or 0
    found["throttle"] = gpu.throttled(bits)
    shown = [row["others"] for row in rows if row["others"] is not None]
    found["other_processes"] = max(shown, default=None)
    energies = [row["energy_mj"] for row in rows if row["energy_mj"] is not None]
    found["energy_j"] = (energies[-1] - energies[0]) / 1000 if len(energies) > 1 else None
    return found


def _lanes(rows: Sequence[dict[str, Any]], names: Sequence[str], begin: float) -> dict[str, list[Any]]:
    """`seconds` and each reading that was made at all, of equal length."""
    if not rows:
        return {}
    lanes = {name: [_rounded(row[name]) for row in rows] for name in names}
    return {
        "seconds": [round(row["when"] - begin, 3) for row in rows],
        **{name: lane for name, lane in lanes.items() if any(value is not None for value in lane)},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
