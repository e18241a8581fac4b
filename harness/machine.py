"""What the measurements ran on: CPU, GPUs, driver, libraries, git state, and who else was using the GPU.

Everything is read, nothing assumed; what cannot be read is None and the page says so. No setting of the machine is
changed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch


def fingerprint(root: Path) -> dict[str, Any]:
    """The machine as a JSON object; `root` is the checkout whose commit is recorded."""
    cpu = _cpu()
    gpus = _gpus()
    names = [gpu["name"] for gpu in gpus]
    label = f"{len(names)} x {names[0]}" if len(names) > 1 else names[0] if names else cpu["name"]
    return {
        "label": label if names else f"{label}, {cpu['cores']} cores",
        "cpu": cpu,
        "gpus": gpus,
        "software": software(),
        "git": git_state(root),
    }


def git_state(root: Path) -> dict[str, Any]:
    """Commit, branch and whether the tree differs from the commit.

    Outside a git checkout (a copy on a machine without network) they are None, but for the commit, if
    WHALEBENCH_COMMIT names it.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": git("rev-parse", "--short=10", "HEAD") or os.environ.get("WHALEBENCH_COMMIT"),
        "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _cpu() -> dict[str, Any]:
    info = _read("/proc/cpuinfo")
    name = re.search(r"model name\s*:\s*(.+)", info)
    memory = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    return {
        "name": name.group(1).strip() if name else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "l3_bytes": last_level_cache_bytes(),
        "load": list(os.getloadavg()),
    }


def last_level_cache_bytes() -> int | None:
    """Size of the largest cache the kernel reports, or None."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        found = re.match(r"(\d+)([KM]?)", _read(str(path)))
        if found:
            sizes.append(int(found.group(1)) * {"": 1, "K": 1024, "M": 1024**2}[found.group(2)])
    return max(sizes, default=None)


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    from .telemetry.gpu import describe_gpu

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": properties.name,
                "memory_bytes": properties.total_memory,
                "multiprocessors": properties.multi_processor_count,
                "l2_bytes": properties.L2_cache_size,
                "capability": f"{properties.major}.{properties.minor}",
                **describe_gpu(index),
            }
        )
    return gpus


def software() -> dict[str, Any]:
    """Versions of what is installed."""
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        **{name: _version(name) for name in ("triton", "numpy", "pytest", "pytest-benchmark", "nvidia-ml-py")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
