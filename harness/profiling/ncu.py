"""The tool `ncu`: hardware counters of each kernel of one call, by Nsight Compute, beside the model of bytes.

ncu starts a process of its own (`call.py`), replays each kernel of one call as often as its counters need, with
cold caches before each, and leaves a report that its own viewer opens. Wins where a kernel's resource is in question.
Loses to `torch` in seeing the call as a whole: what one kernel leaves in the L2 for the next is read again here. It
needs Nsight Compute and the driver's permission; without either the reason is told.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..doctor.gpu import counters_forbidden, find_ncu
from ..options import Options
from .subject import Unprofiled

METRICS = {
    "gpu__time_duration.sum": "device_ns",
    "dram__bytes_read.sum": "dram_read_bytes",
    "dram__bytes_write.sum": "dram_write_bytes",
    "lts__t_bytes.sum": "l2_bytes",
    "sm__inst_executed_pipe_tensor.sum": "tensor_instructions",
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent",
}
DEVIATION = 0.10
FORBIDDEN = "ERR_NVGPUCTRPERM"
STILL = "TOOL=torch shows time by kernel, TOOL=memory and TOOL=host need no counters either"
PERMISSION = "load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0, or profile as root"


def unavailable(device: str) -> str | None:
    """Why counters cannot be read here and what still works, in a sentence; None where ncu is there to be tried."""
    if device != "cuda":
        return f"TOOL=ncu reads counters of an NVIDIA GPU, and this is a CPU; {STILL}"
    if find_ncu() is None:
        return (
            f"TOOL=ncu needs Nsight Compute's command ncu, which is neither on PATH nor under /usr/local/cuda; {STILL}"
        )
    return None


def command(ncu: str, report: Path, child: Sequence[str]) -> list[str]:
    """The words that take counters of what `child` does between the marks it sets."""
    return [
        ncu,
        "--target-processes=all",
        "--profile-from-start=off",
        "--clock-control=none",
        "--cache-control=all",
        f"--metrics={','.join(METRICS)}",
        "--force-overwrite",
        f"--export={report}",
        *child,
    ]


def run(options: Options, case: str, contender: str, folder: Path, stem: str, seconds: float) -> dict[str, Any]:
    """What a profile file holds, source and notes included. Raises Unprofiled with the reason."""
    ncu = find_ncu()
    assert ncu is not None
    report = (folder / f"{stem}.ncu-rep").resolve()
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "answer.json"
        child = [sys.executable, "-m", "harness.profiling.call", options.to_json(), case, contender, str(answer)]
        said = _completed(command(ncu, report, child), options.path, seconds)
        told = json.loads(answer.read_text()) if answer.is_file() else {}
    if "reason" in told:
        raise Unprofiled(told["status"], told["reason"])
    if not told or not report.is_file():
        raise Unprofiled("error", _why(said))
    rows = table(
        _completed([ncu, "--import", str(report), "--csv", "--page=raw", "--print-units=base"], folder, seconds)
    )
    if not rows:
        raise Unprofiled("error", "ncu saw no kernel in the call")
    figures = totals(rows, told["model"])
    notes = [*told["notes"], *wrong_model(figures)]
    return {
        "found": {"files": {"report": report.name}, "calls": 1, "figures": figures, "tables": {"counters": rows}},
        "source": told["source"],
        "notes": notes,
    }


def _completed(words: Sequence[str], root: Path, seconds: float) -> str:
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise Unprofiled("timeout", f"ncu took more than {seconds:.0f} s; give it more by LIMIT=") from error
    except OSError as error:
        raise Unprofiled("error", f"ncu could not be started: {error.strerror or error}") from error
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _why(said: str) -> str:
    """The reason in what ncu printed."""
    if FORBIDDEN in said:
        known = " (the driver's parameters say so too)" if counters_forbidden() else ""
        return f"the driver does not permit counters to this user{known}; {PERMISSION}; {STILL}"
    errors = [line.removeprefix("==ERROR==").strip() for line in said.splitlines() if line.startswith("==ERROR==")]
    last = said.strip().splitlines()[-1:] or ["nothing"]
    return f"ncu did not finish; it said: {(errors or last)[0][:300]}"


def table(text: str) -> list[dict[str, Any]]:
    """Rows by kernel, in order, from ncu's raw page as CSV: names, units, then values; what it lacks is None."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if len(lines) < 3:
        return []
    names, _, *values = csv.reader(io.StringIO("\n".join(lines)))
    found = []
    for row in (dict(zip(names, line, strict=False)) for line in values):
        found.append(
            {"name": row.get("Kernel Name", "?"), **{short: _number(row.get(m)) for m, short in METRICS.items()}}
        )
    return found


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def totals(rows: Sequence[Mapping[str, Any]], model: Mapping[str, float] | None) -> dict[str, float]:
    """Sums over kernels of what all of them have, and DRAM bytes over the model's."""
    found: dict[str, float] = {}
    for name in ("device_ns", "dram_read_bytes", "dram_write_bytes", "l2_bytes", "tensor_instructions"):
        values = [row[name] for row in rows]
        if all(value is not None for value in values):
            found[name] = sum(values)
    if model is not None:
        found |= {"model_flops": model["flops"], "model_bytes": model["bytes"]}
        if {"dram_read_bytes", "dram_write_bytes"} <= set(found) and model["bytes"]:
            found["dram_over_model"] = (found["dram_read_bytes"] + found["dram_write_bytes"]) / model["bytes"]
    return found


def wrong_model(figures: Mapping[str, float]) -> list[str]:
    """A sentence where measured bytes deviate from the model's by more than a tenth."""
    ratio = figures.get("dram_over_model")
    if ratio is None or abs(ratio - 1) <= DEVIATION:
        return []
    return [
        f"DRAM traffic is {ratio:.2f} times the contract's least bytes, over {DEVIATION:.0%} off: the model of bytes "
        "does not describe this implementation"
    ]
