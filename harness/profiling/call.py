"""One call of a contender between the marks that Nsight Compute waits for: the process that `ncu.py` starts.

`python -m harness.profiling.call OPTIONS CASE CONTENDER FILE` writes to FILE, as JSON, what the contract says the call
must move, or the reason why there was none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from ..options import Options
from ..process import end_with_parent
from .subject import Unprofiled, prepared
from .worker import all_tiers, source_of


def called(options: Options, case: str, contender: str) -> dict[str, Any]:
    """Set up, verify, and call once between marks."""
    catalog = all_tiers(options, lambda index: None)
    workload = catalog.workloads[case]
    try:
        subject = prepared(catalog, workload, [contender], {}, options.root, lambda index: None)
    except Unprofiled as reason:
        return {"status": reason.status, "reason": str(reason)}
    subject.between()
    subject.synchronize()
    torch.cuda.profiler.start()
    subject.call()
    subject.synchronize()
    torch.cuda.profiler.stop()
    cost = subject.cost
    model = None if cost is None else {"flops": cost.flops, "bytes": cost.read_bytes + cost.write_bytes}
    implementation = catalog.registry.implementations[workload.operation][contender]
    notes = [subject.note] if subject.note else []
    return {"model": model, "source": source_of(implementation, options.root), "notes": notes}


def main(words: list[str]) -> None:
    """Entry point of the process."""
    end_with_parent()
    options = Options.from_json(words[0])
    sys.path.insert(0, options.root)
    found = called(options, words[1], words[2])
    Path(words[3]).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
