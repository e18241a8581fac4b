"""One NVML sampler: clocks, power, temperature, throttle reasons, utilisation, memory and energy of each GPU.

It runs in a thread beside the measurements and is asked afterwards what the GPUs did between two moments. NVML comes
with the driver; its Python binding is the package nvidia-ml-py. Without it there is no telemetry, and the run says so.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

INTERVAL = 0.02
THROTTLE = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


def opened() -> tuple[Any | None, str]:
    """NVML's Python module, ready for use, or None and why not in a few words."""
    try:
        import pynvml
    except ImportError:
        return None, "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except Exception as error:  # the library or the driver is missing or does not answer: each its own exception type
        return None, f"NVML says: {error}"
    return pynvml, ""


def _nvml() -> Any | None:
    return opened()[0]


def _read(query: Any, *arguments: Any) -> Any:
    """A query's answer, or None where this GPU or driver does not support it."""
    try:
        return query(*arguments)
    except Exception:  # pynvml raises one class an error code
        return None


def describe_gpu(index: int) -> dict[str, Any]:
    """Driver, power limit, clock limits, ECC, MIG and the processes on one GPU; empty without NVML."""
    nvml = _nvml()
    if nvml is None:
        return {"telemetry": "not available: needs the package nvidia-ml-py"}
    gpu = _read(nvml.nvmlDeviceGetHandleByIndex, index)
    if gpu is None:
        return {"telemetry": f"not available: NVML does not find GPU {index}, or lost it"}
    limit = _read(nvml.nvmlDeviceGetEnforcedPowerLimit, gpu)
    ecc = _read(nvml.nvmlDeviceGetEccMode, gpu)
    mig = _read(nvml.nvmlDeviceGetMigMode, gpu)
    processes = _read(nvml.nvmlDeviceGetComputeRunningProcesses, gpu)
    return {
        "driver": _read(nvml.nvmlSystemGetDriverVersion),
        "power_limit_w": None if limit is None else limit / 1000,
        "max_sm_clock_mhz": _read(nvml.nvmlDeviceGetMaxClockInfo, gpu, nvml.NVML_CLOCK_SM),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": None if mig is None else bool(mig[0]),
        "processes": None if processes is None else len(processes),
    }


class Sampler:
    """Samples every GPU each 20 ms between `start` and `stop`; `summary` tells what happened in a window."""

    def __init__(self) -> None:
        self._nvml = _nvml()
        self._samples: list[tuple[float, int, dict[str, Any]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="nvml sampler")

    @property
    def available(self) -> bool:
        """Whether NVML can be read here."""
        return self._nvml is not None

    def start(self) -> None:
        """Begin sampling; does nothing without NVML."""
        if self.available:
            self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _loop(self) -> None:
        nvml = self._nvml
        assert nvml is not None
        handles = [_read(nvml.nvmlDeviceGetHandleByIndex, i) for i in range(_read(nvml.nvmlDeviceGetCount) or 0)]
        gpus = [(index, gpu) for index, gpu in enumerate(handles) if gpu is not None]
        while not self._stop.wait(INTERVAL):
            for index, gpu in gpus:
                self._samples.append((time.monotonic(), index, self._sample(nvml, gpu)))

    @staticmethod
    def _sample(nvml: Any, gpu: Any) -> dict[str, Any]:
        power = _read(nvml.nvmlDeviceGetPowerUsage, gpu)
        energy = _read(nvml.nvmlDeviceGetTotalEnergyConsumption, gpu)
        memory = _read(nvml.nvmlDeviceGetMemoryInfo, gpu)
        load = _read(nvml.nvmlDeviceGetUtilizationRates, gpu)
        return {
            "sm_clock_mhz": _read(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": _read(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_MEM),
            "power_w": None if power is None else power / 1000,
            "temperature_c": _read(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
            "utilisation": None if load is None else load.gpu / 100,
            "memory_used_bytes": None if memory is None else memory.used,
            "throttle_bits": _read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu),
            "energy_mj": energy,
        }

    def summary(self, begin: float, end: float, index: int = 0) -> dict[str, Any] | None:
        """Median, least and greatest of each reading of GPU `index` between two `time.monotonic()` moments.

        None without NVML or when no sample fell into the window. `energy_j` is the total-energy counter's advance
        over the whole window, all contenders and idle gaps included.
        """
        rows = [row for when, gpu, row in list(self._samples) if gpu == index and begin <= when <= end]
        if not rows:
            return None
        found: dict[str, Any] = {"samples": len(rows), "window_s": round(end - begin, 3)}
        for name in (
            "sm_clock_mhz",
            "memory_clock_mhz",
            "power_w",
            "temperature_c",
            "utilisation",
            "memory_used_bytes",
        ):
            values = [row[name] for row in rows if row[name] is not None]
            if values:
                found[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        bits = 0
        for row in rows:
            bits |= row["throttle_bits"] or 0
        found["throttle"] = [name for bit, name in THROTTLE.items() if bits & bit]
        energies = [row["energy_mj"] for row in rows if row["energy_mj"] is not None]
        found["energy_j"] = (energies[-1] - energies[0]) / 1000 if len(energies) > 1 else None
        return found
