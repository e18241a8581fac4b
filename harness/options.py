"""What a run was asked for; the same object reaches the terminal, the worker process and the record."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

DEFAULT_BUDGETS = {"smoke": 24.0, "cpu": 170.0, "gpu": 460.0, "full": 3600.0}  # a study; start and pages on top
SUITE_BUDGET = 580.0  # of all studies on a CPU


@dataclass(frozen=True)
class Options:
    """The user's words, defaults filled in by the worker where they depend on the machine.

    root     checkout whose `impls/` and `benches/` are used
    device   "cpu", "cuda", or None for a GPU where there is one
    tier     None for "cpu" or "gpu", after the device
    budget   seconds for the whole run; None for the tier's default
    timeout  seconds without a sign of life after which a contender is stopped
    """

    root: str
    device: str | None = None
    tier: str | None = None
    budget: float | None = None
    study: str | None = None
    model: str | None = None
    impl: str | None = None
    timeout: float = 120.0
    package: str = "impls"
    benches: str = "benches"

    def to_json(self) -> str:
        """For the worker's command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        """The inverse of `to_json`."""
        return cls(**json.loads(text))

    @property
    def path(self) -> Path:
        """`root` as a path."""
        return Path(self.root)
