"""Is this machine fit to benchmark? Everything is looked at, nothing is changed: `python -m harness.doctor`.

Settings, what others do while this process sleeps, and what the machine takes away while it works, which it does by
holding contests of equal code: their ratio is the noise floor now. Wins before a long run, and beside a surprising
figure. Loses to the run's own telemetry in telling what happened while a figure was taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..catalog import Refused, choose_device
from ..host import Host
from ..telemetry.gpu import opened
from ..telemetry.sampler import Sampler
from . import cpu, gpu
from .finding import UNSEEN, Finding, closing, exit_code, lines
from .noise import findings as noise_floor

QUIET_SECONDS = 2.0
Noise = Callable[[str, Path], Iterator[Finding]]


def torch_state() -> tuple[int, str | None]:
    """Threads that torch computes with, and the CUDA version it was built for."""
    import torch

    return torch.get_num_threads(), torch.version.cuda


def examine(
    device: str,
    host: Host,
    noise: Noise = noise_floor,
    seconds: float = QUIET_SECONDS,
) -> Iterator[Finding]:
    """All findings for `device`, in the order in which they are found."""
    threads, cuda = torch_state()
    yield from cpu.settings(host, threads)
    before = host.moment()
    time.sleep(seconds)
    yield from cpu.quiet(host, before, host.moment())
    nvml, reason = opened()
    if nvml is not None:
        yield from gpu.examine(nvml, cuda)
        yield gpu.counters(host.root)
    elif device == "cuda":
        why = "clocks, throttling and other processes on the GPU would go unnoticed, now and in every run"
        advice = (
            "pip install nvidia-ml-py; where it is installed, make nvidia-smi work first (driver loaded, same version)"
        )
        yield Finding("GPU", "unseen", f"there is one, but {reason}", why, advice)
    else:
        yield Finding("GPU", "note", f"none is looked at: {reason}", "figures are of the CPU")
    yield from _at_work(device, host, noise, nvml)


def _at_work(device: str, host: Host, noise: Noise, nvml: Any) -> Iterator[Finding]:
    """The noise floor, and what the machine did meanwhile."""
    sampler = Sampler(gpus=device == "cuda")
    sampler.start()
    before, begin = host.moment(), time.monotonic()
    try:
        found = list(noise(device, Path.cwd()))
    finally:
        sampler.stop()
    after, end = host.moment(), time.monotonic()
    yield from cpu.strained(host, before, after)
    if device == "cuda" and nvml is not None:
        yield from gpu.under_load(nvml, sampler.summary(begin, end))
    yield from found


def main(words: Sequence[str] | None = None, root: Path = Path("/")) -> int:
    """Exit status: 0 fit, 1 something to mend, 2 it could not look."""
    parser = argparse.ArgumentParser(prog="python -m harness.doctor", description=__doc__)
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="findings as JSON, one object")
    asked = parser.parse_args(words)
    if not sys.platform.startswith("linux"):
        print(f"error: it reads /proc and /sys of Linux, this is {sys.platform}", file=sys.stderr)
        return UNSEEN
    try:
        device = choose_device(asked.device)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return UNSEEN
    findings = []
    try:
        for finding in examine(device, Host(root)):
            findings.append(finding)
            if not asked.json:
                print("\n".join(lines([finding], width=22)), flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if asked.json:
        told = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"device": device, "code": exit_code(findings), "findings": told}, indent=1))
    else:
        print(f"\n{closing(findings)}")
    return exit_code(findings)


if __name__ == "__main__":
    sys.exit(main())
