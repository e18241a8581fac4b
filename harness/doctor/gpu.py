"""The doctor's findings about GPUs, read through NVML before anything of ours runs on them.

Every reading may fail on its own: not supported by this GPU, not permitted to this user, or the GPU is lost. What is
not supported or not permitted is told in one line a GPU; a lost GPU ends its examination. Clocks, temperature and
throttling under work are read by the sampler while the noise floor is measured (`under_load`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..telemetry.gpu import read, throttled, visible
from ..units import plain, show
from .finding import Finding

LOST, NOT_PERMITTED, RESET_REQUIRED = 15, 4, 16  # NVML's error codes
SLOWDOWN, UNCORRECTED, VOLATILE = 1, 1, 0  # NVML's enumerations
MARGIN_C = 5
LEAST_FREE = 0.9
CLOCK_SHARE = 0.9
POWER_SHARE = 0.98
BUSY_PERCENT = 5
ADMINISTRATOR = 1 << 21 | 1 << 38  # CAP_SYS_ADMIN, CAP_PERFMON
PARAMETERS = "proc/driver/nvidia/params"
NCU_PLACES = ("usr/local/cuda*/bin/ncu", "opt/nvidia/nsight-compute/*/ncu")


class LostGpu(Exception):
    """The GPU does not answer any more."""


class Gpu:
    """One GPU's readings; what could not be read is in `unread`: reading -> (NVML's error code, its words)."""

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml = nvml
        self.unread: dict[str, tuple[int | None, str]] = {}
        self._handle: Any = None
        self._handle = self._guarded("handle", lambda: nvml.nvmlDeviceGetHandleByIndex(index))

    def read(self, what: str, query: str, *arguments: Any) -> Any:
        """The answer to `query` about this GPU, or None. Raises LostGpu."""
        if self._handle is None:
            return None
        return self._guarded(what, lambda: getattr(self._nvml, query)(self._handle, *arguments))

    def _guarded(self, what: str, query: Any) -> Any:
        try:
            return query()
        except Exception as error:  # pynvml raises one class an error code; an old one lacks the function
            code = getattr(error, "value", None)
            if code in (LOST, RESET_REQUIRED):
                raise LostGpu(str(error)) from error
            said = "this version of nvidia-ml-py lacks it" if isinstance(error, AttributeError) else str(error)
            self.unread[what] = (code if isinstance(code, int) else None, said)
            return None


def examine(nvml: Any, cuda: str | None) -> Iterator[Finding]:
    """Driver, then GPU by GPU; `cuda` is the version torch was built for."""
    yield _driver(nvml, cuda)
    try:
        count = nvml.nvmlDeviceGetCount()
    except Exception as error:  # pynvml raises one class an error code
        why = "clocks, throttling and other processes on the GPUs would go unnoticed"
        yield Finding("GPUs", "unseen", f"NVML does not count them: {error}", why, "make nvidia-smi work first")
        return
    for index in visible(nvml, count):
        try:
            yield from _gpu(nvml, index)
        except LostGpu as lost:
            why = "a GPU that fell off the bus answers nothing, and every CUDA call on it fails"
            advice = "look for Xid in dmesg, then reset the GPU or restart the machine"
            yield Finding(f"GPU {index}", "mend", f"NVML says: {lost}", why, advice)


def _driver(nvml: Any, cuda: str | None) -> Finding:
    why = "a driver older than torch's CUDA cannot run its kernels, or compiles them anew at each start"
    told: dict[str, str] = {}
    number: int | None = None
    for name, query in (("driver", "nvmlSystemGetDriverVersion"), ("NVML", "nvmlSystemGetNVMLVersion")):
        try:
            told[name] = str(getattr(nvml, query)())
        except Exception as error:
            told[name] = f"unknown ({error})"
    try:
        number = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except Exception as error:
        told["its CUDA"] = f"unknown ({error})"
    said = ", ".join(f"{name} {version}" for name, version in told.items())
    if number is None or cuda is None:
        return Finding("driver", "note", f"{said}; torch's CUDA {cuda or 'none'}", why)
    here, wanted = divmod(number, 1000)[0], int(cuda.split(".")[0])
    said += f", for CUDA {here}.{number % 1000 // 10}; torch's CUDA {cuda}"
    if here < wanted:
        return Finding(
            "driver", "mend", said, why, f"install a driver for CUDA {wanted}, or a torch built for CUDA {here}"
        )
    return Finding("driver", "fit", said, why)


def _gpu(nvml: Any, index: int) -> Iterator[Finding]:
    gpu, name = Gpu(nvml, index), f"GPU {index}"
    model = gpu.read("name", "nvmlDeviceGetName")
    yield Finding(name, "fit", _text(model) or "found, without a name", "what is examined below")
    yield from filter(
        None,
        (
            _persistence(gpu, name),
            _power(gpu, name),
            _temperature(gpu, name),
            _throttle(gpu, name),
            _neighbours(gpu, name, nvml),
            _memory(gpu, name),
            _ecc(gpu, name),
            _mig(gpu, name),
        ),
    )
    if gpu.unread:
        yield _unread(gpu, name)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _unread(gpu: Gpu, name: str) -> Finding:
    reasons: dict[str, list[str]] = {}
    for what, (_, said) in gpu.unread.items():
        reasons.setdefault(said, []).append(what)
    told = "; ".join(f"{', '.join(whats)} ({said})" for said, whats in reasons.items())
    forbidden = any(code == NOT_PERMITTED for code, _ in gpu.unread.values())
    advice = "run it as a user who may read them, or ask whoever administers the machine" if forbidden else ""
    return Finding(f"{name} not readable", "note", told, "what cannot be read cannot be ruled out", advice)


def _persistence(gpu: Gpu, name: str) -> Finding | None:
    mode = gpu.read("persistence", "nvmlDeviceGetPersistenceMode")
    why = "without it the driver unloads between processes, and each one's first calls wait for its start"
    if mode is None:
        return None
    if not mode:
        return Finding(f"{name} persistence", "mend", "off", why, f"sudo nvidia-smi -i {name.split()[1]} -pm 1")
    return Finding(f"{name} persistence", "fit", "on", why)


def _power(gpu: Gpu, name: str) -> Finding | None:
    limit = gpu.read("power limit", "nvmlDeviceGetEnforcedPowerLimit")
    usual = gpu.read("default power limit", "nvmlDeviceGetPowerManagementDefaultLimit")
    why = "under a lower limit matrix products run at lower clocks than this model of GPU can"
    if limit is None or usual is None:
        return None
    said = f"{limit / 1e3:,.0f} W, {usual / 1e3:,.0f} W by default"
    if limit < POWER_SHARE * usual:
        advice = f"sudo nvidia-smi -i {name.split()[1]} -pl {usual / 1e3:.0f}, or say the limit beside every figure"
        return Finding(f"{name} power limit", "mend", said, why, advice)
    return Finding(f"{name} power limit", "fit", said, why)


def _temperature(gpu: Gpu, name: str) -> Finding | None:
    now = gpu.read("temperature", "nvmlDeviceGetTemperature", 0)
    slow = gpu.read("slowdown temperature", "nvmlDeviceGetTemperatureThreshold", SLOWDOWN)
    why = "near its limit the GPU lowers its clocks, and later calls take longer than earlier ones"
    if now is None:
        return None
    if slow is None:
        return Finding(f"{name} temperature", "note", f"{now} °C, its limit cannot be read", why)
    said = f"{now} °C, slows down at {slow} °C"
    if now > slow - MARGIN_C:
        return Finding(f"{name} temperature", "mend", said, why, "look after cooling, or wait until it is cool")
    return Finding(f"{name} temperature", "fit", said, why)


def _throttle(gpu: Gpu, name: str) -> Finding | None:
    bits = gpu.read("throttle reasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    why = "while one is active clocks are below what the GPU can do"
    if bits is None:
        return None
    active = throttled(bits)
    if active:
        advice = "look after power supply and cooling, and measure when none is active"
        return Finding(f"{name} throttling", "mend", ", ".join(active), why, advice)
    return Finding(f"{name} throttling", "fit", "no reason active", why)


def _neighbours(gpu: Gpu, name: str, nvml: Any) -> Finding | None:
    running = gpu.read("processes", "nvmlDeviceGetComputeRunningProcesses")
    load = gpu.read("utilisation", "nvmlDeviceGetUtilizationRates")
    why = "another process takes multiprocessors, bandwidth, memory and power, at moments of its own"
    if running is None:
        return None
    others = [process for process in running if process.pid != os.getpid()]
    busy = f", the GPU was busy {load.gpu} % of the last moment" if load is not None else ""
    if others:
        told = ", ".join(f"process {p.pid}{_held(p)}" for p in others[:4])
        return Finding(f"{name} processes", "mend", told + busy, why, "end them, or measure on another GPU")
    if load is not None and load.gpu > BUSY_PERCENT:
        said = f"none that shows{busy}"
        return Finding(
            f"{name} processes", "mend", said, why, "find out on the host who uses it, outside this container"
        )
    return Finding(f"{name} processes", "fit", f"none{busy}", why)


def _held(process: Any) -> str:
    used = getattr(process, "usedGpuMemory", None)
    return f" holds {plain(show(float(used), 'bytes'))}" if isinstance(used, int) else ""


def _memory(gpu: Gpu, name: str) -> Finding | None:
    found = gpu.read("memory", "nvmlDeviceGetMemoryInfo")
    why = "cases are sized for the whole memory; what others hold makes them end in oom"
    if found is None:
        return None
    said = f"{plain(show(float(found.free), 'bytes'))} of {plain(show(float(found.total), 'bytes'))} free"
    if found.free < LEAST_FREE * found.total:
        return Finding(f"{name} memory", "mend", said, why, "end what holds it, or measure on another GPU")
    return Finding(f"{name} memory", "fit", said, why)


def _ecc(gpu: Gpu, name: str) -> Finding | None:
    mode = gpu.read("ECC", "nvmlDeviceGetEccMode")
    why = "with errors that ECC could not correct results are wrong, and the driver takes memory out of use"
    if mode is None:
        return None
    errors = gpu.read("ECC errors", "nvmlDeviceGetTotalEccErrors", UNCORRECTED, VOLATILE) if mode[0] else None
    if errors:
        said = f"{errors:,} uncorrected errors since the driver started"
        return Finding(f"{name} ECC", "mend", said, why, "reset the GPU; where they come back, have it replaced")
    return Finding(f"{name} ECC", "fit" if mode[0] else "note", "on, no uncorrected errors" if mode[0] else "off", why)


def _mig(gpu: Gpu, name: str) -> Finding | None:
    mode = gpu.read("MIG", "nvmlDeviceGetMigMode")
    why = "a slice has part of the multiprocessors and of the bandwidth, and shares power with its neighbours"
    if mode is None:
        return None
    if mode[0]:
        return Finding(
            f"{name} MIG", "note", "on: what is measured is a slice", why, "switch MIG off for the whole GPU"
        )
    return Finding(f"{name} MIG", "fit", "off", why)


def under_load(nvml: Any, seen: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What the sampler saw of the GPU that torch calls 0 while the noise floor was measured."""
    index = next(iter(visible(nvml, read(nvml.nvmlDeviceGetCount) or 0)), 0)
    subject, why = (
        f"GPU {index} clock at work",
        "a time is of one clock; below its maximum something holds the GPU back",
    )
    most = None
    try:
        most = Gpu(nvml, index).read("maximum clock", "nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)
    except LostGpu as lost:
        advice = "look for Xid in dmesg, then reset the GPU or restart the machine"
        yield Finding(subject, "mend", f"the GPU was lost: {lost}", why, advice)
        return
    clock = (seen or {}).get("sm_clock_mhz")
    if not seen or clock is None:
        yield Finding(subject, "note", "not sampled", why)
        return
    held = ", ".join(seen.get("throttle") or []) or "no throttling"
    said = f"{clock['median']:,.0f} MHz ({clock['min']:,.0f} to {clock['max']:,.0f}){f' of {most:,}' if most else ''}"
    slow = most is not None and clock["median"] < CLOCK_SHARE * most
    advice = "lock the clocks (sudo nvidia-smi -lgc), raise the power limit, or look after cooling"
    yield Finding(subject, "mend" if slow or seen.get("throttle") else "fit", f"{said}, {held}", why, advice)


def find_ncu(root: Path = Path("/")) -> str | None:
    """Path of Nsight Compute's command, on PATH or where it is installed by default; None without it."""
    found: Sequence[str] = [str(path) for place in NCU_PLACES for path in sorted(root.glob(place))]
    return shutil.which("ncu") or (found[-1] if found else None)


def counters_forbidden(root: Path = Path("/")) -> bool | None:
    """Whether the driver keeps counters from ordinary users; None where its parameters cannot be read."""
    try:
        found = re.search(r"RmProfilingAdminOnly: (\d)", (root / PARAMETERS).read_text())
    except OSError:
        return None
    return None if found is None else found.group(1) == "1"


def may_profile(root: Path = Path("/")) -> bool:
    """Whether this process is an administrator to the driver, by its capabilities; a container's root is none."""
    try:
        found = re.search(r"CapEff:\s*([0-9a-f]+)", (root / "proc/self/status").read_text())
    except OSError:
        return False
    return found is not None and bool(int(found.group(1), 16) & ADMINISTRATOR)


def counters(root: Path = Path("/"), administrator: bool | None = None) -> Finding:
    """Whether `make profile TOOL=ncu` can read hardware counters here."""
    why = "counters tell which resource a kernel waits for; times do not need them"
    ncu, forbidden = find_ncu(root), counters_forbidden(root)
    administrator = may_profile(root) if administrator is None else administrator
    if ncu is None:
        return Finding(
            "counters", "note", "ncu is not installed", why, "install Nsight Compute for make profile TOOL=ncu"
        )
    if forbidden and not administrator:
        advice = "load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0, or profile as root of the host"
        return Finding(
            "counters", "note", f"{ncu} is there, but the driver keeps counters to administrators", why, advice
        )
    said = "whether the driver permits them cannot be read" if forbidden is None else "permitted"
    return Finding("counters", "note" if forbidden is None else "fit", f"{ncu}, {said}", why)
