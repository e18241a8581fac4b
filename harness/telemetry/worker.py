"""The process that holds one contender and calls it, for `python -m harness.telemetry`: `harness/worker.py`'s commands
and three more, `hold`, `block` and `weigh`. The sampler runs in the parent, as it does in a run."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Any

from ..entrant import Entrant
from ..profiling.subject import ProfiledContest, Unprofiled
from ..worker import Worker, serve
from . import energy

WARM_SECONDS = 0.2


class HeldContest(ProfiledContest):
    """A contest of one contender that is timed when it is asked for, and as long."""

    def hold(self) -> Entrant:
        """Raises Unprofiled."""
        self.subject()
        return self._ready

    def _subject(self, entrant: Entrant, graph: bool) -> Any:
        self._ready = entrant
        return entrant


class HoldingWorker(Worker):
    """Answers `hold`, `block` and `weigh` as well."""

    def hold(self, command: dict[str, Any]) -> None:
        """Set one contender of a case up, verify and warm it."""
        workload = self._catalog.workloads[command["case"]]
        contest = HeldContest(
            self._catalog.registry,
            workload,
            [command["contender"]],
            self._catalog.device,
            {},
            self._options.root,
            self._turn,
        )
        self._held: Entrant | None = None  # or both would have to fit
        try:
            self._held = contest.hold()
        except Unprofiled as reason:
            self.send("unheld", status=reason.status, reason=str(reason))
            return
        self._slots(WARM_SECONDS)
        self.send("held", latency_ns=median(self._slots(WARM_SECONDS)))

    def block(self, command: dict[str, Any]) -> None:
        """The median of its samples over so many seconds, as a contest's clock takes them."""
        samples = self._slots(command["seconds"])
        self.send("block", latency_ns=median(samples), samples=len(samples))

    def weigh(self, command: dict[str, Any]) -> None:
        """Its energy over one window; None where there is no counter."""
        assert self._held is not None
        found = energy.of_call(self._held.call, command["latency_ns"] / 1e9)
        self.send("weighed", energy=None if found is None else asdict(found))

    def _slots(self, seconds: float) -> list[float]:
        assert self._held is not None
        self._turn(0)
        samples: list[float] = []
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            samples += self._held.clock.slot()
        return samples


if __name__ == "__main__":
    serve(HoldingWorker)
