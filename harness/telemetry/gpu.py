"""GPUs through NVML: which ones CUDA sees, what each is, and what it does at one moment.

NVML comes with the driver; its Python binding is the package nvidia-ml-py. Every reading may fail alone: not supported,
not permitted, or the GPU is lost; it is None then. NVML counts all GPUs of the machine, CUDA those that
CUDA_VISIBLE_DEVICES leaves, by number or identity; indices here are CUDA's. Where GPUs are unlike each other CUDA puts
the fastest first, unless CUDA_DEVICE_ORDER=PCI_BUS_ID; NVML never does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

THROTTLE = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}
READINGS = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c", "utilisation", "memory_used_bytes")


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


def read(query: Any, *arguments: Any) -> Any:
    """A query's answer, or None where this GPU or driver does not support it."""
    try:
        return query(*arguments)
    except Exception:  # pynvml raises one class an error code
        return None


def visible(nvml: Any, count: int) -> list[int]:
    """NVML's indices, below `count`, of the GPUs that CUDA sees, in CUDA's order; all where none is named.

    CUDA_VISIBLE_DEVICES names them by number or by the beginning of their identity, `GPU-8f1c`; like CUDA this stops at
    a name that fits none.
    """
    words = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    found: list[int] = []
    for word in words:
        if word.isdigit():
            fitting = [int(word)] if int(word) < count else []
        else:
            fitting = [index for index in range(count) if word and _identity(nvml, index).startswith(word)]
        if not fitting:
            break
        found.append(fitting[0])
    return found or list(range(count))


def _identity(nvml: Any, index: int) -> str:
    handle = read(nvml.nvmlDeviceGetHandleByIndex, index)
    found = None if handle is None else read(nvml.nvmlDeviceGetUUID, handle)
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found or "")


def handles(nvml: Any) -> list[Any]:
    """NVML's handles of the GPUs that CUDA sees, in CUDA's order; None in place of one that is lost."""
    count = read(nvml.nvmlDeviceGetCount) or 0
    return [read(nvml.nvmlDeviceGetHandleByIndex, index) for index in visible(nvml, count)]


def describe_gpu(index: int) -> dict[str, Any]:
    """Driver, power limit, clock limits, ECC, MIG and the processes on one GPU; only why not without NVML."""
    nvml = opened()[0]
    if nvml is None:
        return {"telemetry": "not available: needs the package nvidia-ml-py"}
    gpus = handles(nvml)
    gpu = gpus[index] if index < len(gpus) else None
    if gpu is None:
        return {"telemetry": f"not available: NVML does not find GPU {index}, or lost it"}
    limit = read(nvml.nvmlDeviceGetEnforcedPowerLimit, gpu)
    ecc = read(nvml.nvmlDeviceGetEccMode, gpu)
    mig = read(nvml.nvmlDeviceGetMigMode, gpu)
    processes = read(nvml.nvmlDeviceGetComputeRunningProcesses, gpu)
    return {
        "driver": read(nvml.nvmlSystemGetDriverVersion),
        "power_limit_w": None if limit is None else limit / 1000,
        "max_sm_clock_mhz": read(nvml.nvmlDeviceGetMaxClockInfo, gpu, nvml.NVML_CLOCK_SM),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": None if mig is None else bool(mig[0]),
        "processes": None if processes is None else len(processes),
    }


def sample(nvml: Any, gpu: Any) -> dict[str, Any]:
    """The READINGS now, the reasons for throttling as bits, and the total-energy counter in millijoules."""
    power = read(nvml.nvmlDeviceGetPowerUsage, gpu)
    memory = read(nvml.nvmlDeviceGetMemoryInfo, gpu)
    load = read(nvml.nvmlDeviceGetUtilizationRates, gpu)
    return {
        "sm_clock_mhz": read(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": read(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_MEM),
        "power_w": None if power is None else power / 1000,
        "temperature_c": read(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU),
        "utilisation": None if load is None else load.gpu / 100,
        "memory_used_bytes": None if memory is None else memory.used,
        "throttle_bits": read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu),
        "energy_mj": read(nvml.nvmlDeviceGetTotalEnergyConsumption, gpu),
    }


def others(nvml: Any, gpu: Any, ours: Sequence[int]) -> int | None:
    """Processes on the GPU that are not `ours`; None where NVML does not show them, as in a container not even ours.

    Where it counts by the host's process ids, ours is one of those it shows under another.
    """
    running = read(nvml.nvmlDeviceGetComputeRunningProcesses, gpu)
    if running is None or (ours and not running):
        return None
    known = {process.pid for process in running} & set(ours)
    return max(0, len(running) - (len(known) if known else min(1, len(ours))))


def throttled(bits: int) -> list[str]:
    """The reasons in words."""
    return [name for bit, name in THROTTLE.items() if bits & bit]
