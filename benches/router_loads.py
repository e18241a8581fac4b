"""Keeps how a balance run's router spread its tokens: `python -m benches.router_loads RUN` writes the loads that
workloads named `recorded` are routed by.

What is in the repository was made by

    OMP_NUM_THREADS=1 make balance ARMS=none STEPS=400 DEVICE=cpu
    python -m benches.router_loads runs/...-ffn-balance-...

Without balancing, because with it the loads of so small a model are those of uniform routing (MaxVio 0.16 with
DeepSeek-V3's bias after as many steps, 2.5 without). The same Python release, whose library is the text, on one thread
gives the same loads; others give others, with another digest, which stands in every case's shape, so that records of
different loads are told apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness.record import Record, read_run
from impls.ffn.recorded import FILE, digest_of

ARM = "none"


def content(record: Record, command: str, threads: object) -> dict[str, Any]:
    """What the file says of one arm's last validation. Raises ValueError for an arm without loads or steps."""
    loads = {name.removeprefix("load_"): values for name, values in record.series.items() if name.startswith("load_l")}
    steps = record.timing.get("steps")
    if record.status != "passed" or not loads or not record.sizes == f"s{steps}":
        raise ValueError(f"{record.contender} did not reach its last step with loads: it {record.status} at {steps}")
    router, corpus = record.shape["shape"]["ffn"]["router"], record.shape["corpus"]
    found = {
        "what": f"Tokens of each expert by layer on validation windows after training. {record.doc}",
        "made by": f"{command}, {threads} threads",
        "case": record.case,
        "text": {"label": corpus["label"], "digest": corpus["digest"]},
        "router": router,
        "loads": {name: [int(value) for value in values] for name, values in loads.items()},
    }
    return {**found, "digest": digest_of(found)}


def written(found: dict[str, Any]) -> str:
    """A line a field, and a line a layer."""
    layers = ",\n".join(f"    {json.dumps(name)}: {json.dumps(loads)}" for name, loads in found["loads"].items())
    lines = [
        f"  {json.dumps(name)}: " + (f"{{\n{layers}\n  }}" if name == "loads" else json.dumps(value))
        for name, value in found.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(words: list[str] | None = None) -> int:
    """Exit status 2 for a run without the arm."""
    parser = argparse.ArgumentParser(prog="python -m benches.router_loads", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=FILE)
    asked = parser.parse_args(words)
    try:
        run = read_run(asked.run)
        record = next((r for r in run.records if (r.operation, r.implementation) == ("ffn.balance", ARM)), None)
        if record is None:
            raise ValueError(f"{asked.run} holds no training with {ARM}; make balance ARMS={ARM} gives one")
        found = content(record, str(run.header.options.get("command")), record.timing.get("threads"))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    asked.out.write_text(written(found))
    print(f"{asked.out}: digest {found['digest']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
