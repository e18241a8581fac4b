"""Workloads: named model shapes, phases and sizes; a case is one operation on one workload.

A case's id, `operation/model/sizes`, is what a person types: `attention.decode/v3/b128-s4096`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TIERS = {
    "smoke": "one small case an operation, 30 s a study, any machine",
    "cpu": "small slices of real shapes, for a machine without a GPU",
    "gpu": "real shapes, at most 40 cases a study and 8 minutes",
    "full": "the whole grid, GPU",
}


@dataclass(frozen=True)
class Workload:
    """One operation on one model's shape at given sizes.

    model, sizes  the words of the case's id
    shape         what the operation's contract understands; a dataclass
    tiers         where it is measured
    compiled      techniques whose compiled reference takes part: compiling costs 20 s and more
    graph         replay each call from a CUDA graph instead of launching it
    """

    operation: str
    model: str
    sizes: str
    shape: Any
    tiers: tuple[str, ...]
    compiled: tuple[str, ...] = ()
    graph: bool = False

    @property
    def id(self) -> str:
        """`operation/model/sizes`."""
        return f"{self.operation}/{self.model}/{self.sizes}"

    @property
    def study(self) -> str:
        """`attention` of `attention.decode`."""
        return self.operation.split(".")[0]
