"""Hardware counters by kernel of one call each of several contenders, read by Nsight Compute in one process.

ncu replays each kernel as often as its counters need, with cold caches before each. A kernel that only waits stands
before each call and tells the calls apart (`call.py`). Counters differ between GPUs, so ncu is asked first which there
are. Wins over one process a contender: libraries are loaded once. Loses the call as a whole: what one kernel leaves in
the L2 for the next is read again here, and what one writes last may still lie in the L2 when its counting ends.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..doctor.gpu import counters_forbidden, find_ncu
from ..options import Options
from .subject import Unprofiled

# A column of the table: alternatives in order of preference, each the counters whose values are added.
OPS = "sm__ops_path_tensor_src_"
COUNTERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "device_ns": (("gpu__time_duration.sum",),),
    "dram_read_bytes": (("dram__bytes_read.sum",),),
    "dram_write_bytes": (("dram__bytes_write.sum",),),
    "l2_bytes": (("lts__t_bytes.sum",),),
    "tensor_instructions": (
        ("sm__inst_executed_pipe_tensor.sum",),
        ("sm__inst_executed_pipe_tensor_op_gmma.sum", "sm__inst_executed_pipe_tensor_op_hmma.sum"),
    ),
    "tensor_flops_16": ((f"{OPS}bf16_dst_fp32.sum", f"{OPS}fp16_dst_fp32.sum", f"{OPS}tf32_dst_fp32.sum"),),
    "tensor_flops_8": ((f"{OPS}fp8_dst_fp32.sum",), (f"{OPS}fp8.sum",)),
    "dram_percent": (("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",),),
    "sm_percent": (("sm__throughput.avg.pct_of_peak_sustained_elapsed",),),
}
SUMMED = tuple(name for name in COUNTERS if not name.endswith("_percent"))
MARK = "spin_kernel"  # what torch.cuda._sleep launches
FORBIDDEN = "ERR_NVGPUCTRPERM"
STILL = "TOOL=torch shows time by kernel, TOOL=memory and TOOL=host need no counters either"
PERMISSION = "load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0, or profile as root"
QUERY_SECONDS = 60
Call = tuple[str, str]


def unavailable(device: str) -> str | None:
    """Why counters cannot be read here and what still works, in a sentence; None where ncu is there to be tried."""
    if device != "cuda":
        return f"TOOL=ncu reads counters of an NVIDIA GPU, and this is a CPU; {STILL}"
    if find_ncu() is None:
        return (
            f"TOOL=ncu needs Nsight Compute's command ncu, which is neither on PATH nor under /usr/local/cuda; {STILL}"
        )
    return None


def take(
    options: Options, calls: Sequence[Call], report: Path, seconds: float, begun: float | None = None
) -> Iterator[dict[str, Any]]:
    """For each call that came about, in order: what `call.py` says of it and, unless that is a reason, its `rows`.

    The report is left for ncu's own viewer. Everything is given up after `seconds`; after `begun` seconds no further
    call is begun. Raises Unprofiled where nothing was counted.
    """
    ncu = find_ncu()
    assert ncu is not None
    chosen = choose(_known(ncu))
    with tempfile.TemporaryDirectory() as place:
        answers = Path(place) / "answers"
        words = [options.to_json(), json.dumps(calls), str(seconds if begun is None else begun), str(answers)]
        child = [sys.executable, "-m", "harness.profiling.call", *words]
        said = _completed(command(ncu, chosen, report.resolve(), child), options.path, seconds)
        told = [json.loads(line) for line in answers.read_text().splitlines()] if answers.is_file() else []
    counted = [answer for answer in told if "reason" not in answer]
    if not told or (counted and not report.is_file()):
        raise Unprofiled("error", _why(said))
    parts: list[list[dict[str, Any]]] = []
    if counted:
        words = [ncu, "--import", str(report.resolve()), "--csv", "--page=raw", "--print-units=base"]
        parts = list(divided(table(_completed(words, report.parent, seconds), chosen)))
        if len(parts) < len(counted) or not any(parts):
            raise Unprofiled("error", f"ncu saw no kernel in {len(counted) - len(parts) or len(counted)} of the calls")
    rows = iter(parts)
    for answer in told:
        yield answer if "reason" in answer else {**answer, "rows": next(rows)}


def command(ncu: str, chosen: Mapping[str, Sequence[str]], report: Path, child: Sequence[str]) -> list[str]:
    """The words that take counters of what `child` does between the marks it sets."""
    return [
        ncu,
        "--target-processes=all",
        "--profile-from-start=off",
        "--clock-control=none",
        "--cache-control=all",
        f"--metrics={','.join(name for names in chosen.values() for name in names)}",
        "--force-overwrite",
        f"--export={report}",
        *child,
    ]


def choose(known: set[str]) -> dict[str, tuple[str, ...]]:
    """By column the first alternative that this GPU has; all first ones where it is not known what it has."""
    found = {}
    for column, alternatives in COUNTERS.items():
        able = [names for names in alternatives if {name.split(".")[0] for name in names} <= known]
        if able or not known:
            found[column] = (able or list(alternatives))[0]
    return found


def _known(ncu: str) -> set[str]:
    """Base names of the counters that ncu lists for this machine's GPUs; empty where it does not say."""
    try:
        words = [ncu, "--query-metrics"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return {line.split()[0] for line in done.stdout.splitlines() if "__" in line.partition(" ")[0]}


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


def table(text: str, chosen: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Rows by kernel, in order, from ncu's raw page as CSV: names, units, then values; what it lacks is None."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if len(lines) < 3:
        return []
    names, _, *values = csv.reader(io.StringIO("\n".join(lines)))
    found = []
    for row in (dict(zip(names, line, strict=False)) for line in values):
        numbers = {column: _sum(row.get(name) for name in chosen.get(column, ())) for column in COUNTERS}
        found.append({"name": row.get("Kernel Name", "?"), **numbers})
    return found


def _sum(texts: Iterable[str | None]) -> float | None:
    """None without any, and where one is not a number."""
    found = [_number(text) for text in texts]
    known = [number for number in found if number is not None]
    return sum(known) if known and len(known) == len(found) else None


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


def divided(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows after each mark, without it."""
    part: list[dict[str, Any]] | None = None
    for row in rows:
        if MARK in row["name"]:
            if part is not None:
                yield part
            part = []
        elif part is not None:
            part.append(row)
    if part is not None:
        yield part


def totals(rows: Sequence[Mapping[str, Any]], model: Mapping[str, float] | None) -> dict[str, float]:
    """Sums over kernels of what all of them have, and DRAM bytes and tensor FLOPs over the model's."""
    found: dict[str, float] = {}
    for name in SUMMED:
        values = [row[name] for row in rows]
        if rows and all(value is not None for value in values):
            found[name] = sum(values)
    if {"tensor_flops_16", "tensor_flops_8"} <= set(found):
        found["tensor_flops"] = found["tensor_flops_16"] + found["tensor_flops_8"]
    if model is not None:
        found |= {"model_flops": model["flops"], "model_bytes": model["bytes"]}
        if {"dram_read_bytes", "dram_write_bytes"} <= set(found) and model["bytes"]:
            found["dram_over_model"] = (found["dram_read_bytes"] + found["dram_write_bytes"]) / model["bytes"]
        if "tensor_flops" in found and model["flops"]:
            found["tensor_flops_over_model"] = found["tensor_flops"] / model["flops"]
    return found
