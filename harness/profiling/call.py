"""Calls of contenders between the marks that Nsight Compute waits for: the process that `counters.py` starts.

`python -m harness.profiling.call OPTIONS CALLS SECONDS FILE` sets up and verifies each of CALLS, JSON of [[case,
contender]], and calls it once, as long as fewer than SECONDS have passed. Each call follows a kernel that only waits,
by which its kernels are known in the report. FILE gets a line of JSON for each as soon as it is done: what the contract
says the call must move, or the reason why there was no call. Trials are not for this: their steps are too many kernels.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from ..catalog import Catalog
from ..options import Options
from ..process import end_with_parent
from .subject import Subject, UntimedContest
from .worker import all_tiers, source_of

MARK_CYCLES = 1000


def called(catalog: Catalog, root: str, calls: Sequence[Sequence[str]], seconds: float) -> Iterator[dict[str, Any]]:
    """What became of each call, in order; it ends early when the time is up."""
    begin = time.monotonic()
    for case, members in groupby(calls, key=lambda call: call[0]):
        workload, names = catalog.workloads[case], [name for _, name in members]
        known = catalog.registry.implementations[workload.operation]
        if catalog.registry.operations[workload.operation].trial is not None:
            reason = "it is a trial: its steps are too many kernels to count; TOOL=torch shows them"
            yield from ({"case": case, "contender": name, "status": "unavailable", "reason": reason} for name in names)
            continue
        contest = UntimedContest(catalog.registry, workload, names, catalog.device, {}, root, lambda index: None)
        for name, subject in contest.subjects():
            found = {"case": case, "contender": name, "source": source_of(known[name], root)}
            if isinstance(subject, Subject):
                count(subject)
                cost = subject.cost
                model = None if cost is None else {"flops": cost.flops, "bytes": cost.read_bytes + cost.write_bytes}
                yield {**found, "model": model}
            else:
                yield {**found, "status": subject.status, "reason": str(subject)}
            del subject
            if time.monotonic() - begin > seconds:
                return


def count(subject: Subject) -> None:
    """One call, with a mark before it."""
    subject.between()
    subject.synchronize()
    torch.cuda.profiler.start()
    torch.cuda._sleep(MARK_CYCLES)
    subject.call()
    subject.synchronize()
    torch.cuda.profiler.stop()


def main(words: list[str]) -> None:
    """Entry point of the process."""
    end_with_parent()
    options, calls, seconds = Options.from_json(words[0]), json.loads(words[1]), float(words[2])
    sys.path.insert(0, options.root)
    catalog = all_tiers(options, lambda index: None)
    with Path(words[3]).open("w") as file:
        for found in called(catalog, options.root, calls, seconds):
            file.write(json.dumps(found) + "\n")
            file.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
