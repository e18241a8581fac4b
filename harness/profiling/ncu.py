"""The tool `ncu`: hardware counters of each kernel of one call, by Nsight Compute, beside the model of bytes.

Leaves a report that ncu's own viewer opens. Wins where a kernel's resource is in question. Loses to `torch` in seeing
the call as a whole (`counters.py` says why). It needs Nsight Compute and the driver's permission; without either the
reason is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..options import Options
from .counters import take, totals
from .subject import Unprofiled

DEVIATION = 0.10


def run(options: Options, case: str, contender: str, folder: Path, stem: str, seconds: float) -> dict[str, Any]:
    """What a profile file holds, source and notes included. Raises Unprofiled with the reason."""
    report = folder / f"{stem}.ncu-rep"
    answer = next(take(options, [(case, contender)], report, seconds))
    if "reason" in answer:
        raise Unprofiled(answer["status"], answer["reason"])
    figures = totals(answer["rows"], answer["model"])
    found = {"files": {"report": report.name}, "calls": 1, "figures": figures, "tables": {"counters": answer["rows"]}}
    return {"found": found, "source": answer["source"], "notes": wrong_model(figures)}


def wrong_model(figures: Mapping[str, float]) -> list[str]:
    """A sentence where measured bytes deviate from the model's by more than a tenth."""
    ratio = figures.get("dram_over_model")
    if ratio is None or abs(ratio - 1) <= DEVIATION:
        return []
    return [
        f"DRAM traffic is {ratio:.2f} times the contract's least bytes, over {DEVIATION:.0%} off: the model of bytes "
        "does not describe this implementation"
    ]
