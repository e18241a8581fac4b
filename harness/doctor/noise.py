"""The noise floor now: how far apart a contest puts two contenders that are the same code.

Contests are the suite's own (`contest.py`), with its turns, clocks, flushed caches and intervals; the contenders are
one setup under two names. One contest is bound by arithmetic, one by memory, and each is held several times, because
what a run reports is one such contest. Wins over the scatter of single calls, which says nothing of a ratio from paired
rounds. Loses sight of what only shows in calls of another length.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..case import Workload
from ..contest import NARROW, Contest
from ..contract import Cost, Operation
from ..failure import describe
from ..pairing import ASSUMED
from ..process import end_with_parent
from ..record import Figure, Record
from ..registry import Implementation, Registry
from ..units import plain, show
from .finding import Finding

TIMES = 5
SECONDS = 3.0
LONGEST = 240.0
NAMES = ("same/reference", "same/again")
SIZES: Mapping[str, Mapping[str, Any]] = {
    "cpu": {"dtype": "float32", "side": 512, "bytes": 8 * 1024**2},
    "cuda": {"dtype": "bfloat16", "side": 4096, "bytes": 1024**3},
}


@dataclass(frozen=True)
class Square:
    """A matrix [n, n] of `dtype`."""

    n: int
    dtype: str


@dataclass(frozen=True)
class Ratio:
    """What came out of one contest of equal code: ratio, its interval, and the median time in ns."""

    ratio: Figure
    latency: float

    @property
    def apart(self) -> float:
        """How far from 1."""
        return abs(self.ratio.value - 1)

    @property
    def covers(self) -> bool:
        """Whether the interval holds 1."""
        low, high = self.ratio.low, self.ratio.high
        return low is None or high is None or low <= 1 <= high


def _square(shape: Square, technique: str, generator: torch.Generator) -> Tensor:
    matrix = torch.randn(shape.n, shape.n, generator=generator, device=generator.device)
    return matrix.to(getattr(torch, shape.dtype))


def _cost(bound: str) -> Callable[[Square, str], Cost]:
    def cost(shape: Square, technique: str) -> Cost:
        size = shape.n**2 * torch.empty(0, dtype=getattr(torch, shape.dtype)).element_size()
        flops = 2 * shape.n**3 if bound == "arithmetic" else shape.n**2
        return Cost(float(flops), 2.0 * size, float(size), shape.dtype)

    return cost


def _product(weights: Tensor, shape: Square) -> Any:
    return lambda inputs: inputs @ weights


def _sum(weights: Tensor, shape: Square) -> Any:
    return lambda inputs: inputs + weights


SETUPS: Mapping[str, Callable[[Tensor, Square], Any]] = {"arithmetic": _product, "memory": _sum}


def registry(bound: str) -> Registry:
    """One operation, one setup under two names."""
    found = Registry()
    name = f"doctor.{bound}"
    found.operations[name] = Operation(name, _square, lambda shape: shape.n, NAMES[:1], _square, _cost(bound))
    for contender in NAMES:
        found.add(
            Implementation(
                operation=name,
                technique="same",
                kind="reference" if contender == NAMES[0] else "optimized",
                name=contender.split("/")[1],
                setup=SETUPS[bound],
                needs=(),
                supports=lambda shape: None,
                doc=__doc__ or "",
                source=Path(__file__),
            )
        )
    return found


def shape_of(bound: str, device: str) -> Square:
    """Calls of some milliseconds on a CPU, some hundred microseconds on a GPU."""
    size = SIZES[device]
    width = 4 if size["dtype"] == "float32" else 2
    side = size["side"] if bound == "arithmetic" else int((size["bytes"] / width) ** 0.5)
    return Square(side, size["dtype"])


def contest(bound: str, device: str, seconds: float = SECONDS) -> Ratio:
    """One contest of equal code. Raises RuntimeError where a contender failed, which equal code on its own must not."""
    known = registry(bound)
    workload = Workload(f"doctor.{bound}", "square", "same", shape_of(bound, device), tiers=())
    ceilings: dict[str, Any] = {"matrix": {}}
    held = Contest(known, workload, NAMES, device, ceilings, str(Path.cwd()), lambda index: None)
    records: Sequence[Record] = held.run(seconds, "")
    for record in records:
        if record.status != "passed":
            raise RuntimeError(f"{record.status}: {record.reason}")
    latency, ratio = records[1].figures["latency"], records[1].figures["ratio"]
    return Ratio(ratio, latency.value)


def measured(device: str, hold: Callable[[str, str], Ratio] = contest, times: int = TIMES) -> Iterator[Finding]:
    """One a resource: the widest ratio of equal code, and how far its time wandered between contests."""
    for bound in SETUPS:
        subject = f"A/A, {bound}"
        try:
            yield judged(subject, [hold(bound, device) for _ in range(times)], device)
        except Exception as error:
            yield _unmeasured(subject, describe(error))


def _unmeasured(subject: str, reason: str) -> Finding:
    why = "without it nobody knows which difference means something"
    return Finding(
        subject, "unseen", f"could not be measured: {reason}", why, "see whether torch works here: make test"
    )


def judged(subject: str, found: Sequence[Ratio], device: str) -> Finding:
    """Beyond what a contest promises to know, equal code must not differ."""
    widest = max(found, key=lambda one: one.apart)
    times = sorted(one.latency for one in found)
    drift = times[-1] / times[0] - 1
    missed = sum(not one.covers for one in found)
    said = (
        f"equal code up to {widest.apart:.1%} apart in {len(found)} contests ({NARROW[device]:.0%} permitted), "
        f"{missed} intervals miss 1; its time, {plain(show(times[len(times) // 2], 'ns'))}, wandered by {drift:.0%} "
        f"({ASSUMED[device]:.0%} permitted)"
    )
    why = (
        "a difference below what equal code shows is none, and a time that wanders cannot be held against a stored one"
    )
    if widest.apart > NARROW[device] or drift > ASSUMED[device]:
        advice = "mend what is told above; where it stays so, compare revisions by make gate, not by stored runs"
        return Finding(subject, "mend", said, why, advice)
    return Finding(subject, "fit", said, why)


def findings(device: str, root: Path, timeout: float = LONGEST) -> Iterator[Finding]:
    """The same from a process of its own, in the checkout `root`, which may crash or hang without harm."""
    words = [sys.executable, "-m", "harness.doctor.noise", device]
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        yield _unmeasured("A/A", f"no answer for {timeout:.0f} s")
        return
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    yield from (Finding(**one) for one in told)
    if done.returncode != 0 or not told:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        yield _unmeasured("A/A", f"its process ended with exit status {done.returncode}: {last[0][:200]}")


def main(words: Sequence[str]) -> None:
    """Entry point of that process: a finding a line as JSON, for the device named."""
    end_with_parent()
    for finding in measured(words[0]):
        print(json.dumps(dataclasses.asdict(finding)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
