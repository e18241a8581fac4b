"""The process that profiles: `harness/worker.py`'s, with one more command, and with the cases of every tier.

A case is named by its id, so that it need not be told in which tier it stands; the device's own tier comes first.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import catalog
from ..case import TIERS
from ..options import Options
from ..registry import Implementation
from ..worker import Worker, serve
from . import host, memory, tracer
from .subject import Subject, Unprofiled, prepared


def all_tiers(options: Options, turn: Callable[[int], None]) -> catalog.Catalog:
    """The catalog of the tier asked for, or of the device's own with the cases of all others after them.

    Raises Refused as `catalog.build` does.
    """
    found = catalog.build(options, turn)
    if options.tier is None:
        for tier in TIERS:
            other = catalog.build(dataclasses.replace(options, tier=tier, impl=None), turn)
            found.cases += [case for case in other.cases if case.id not in found.workloads]
            found.workloads |= {name: w for name, w in other.workloads.items() if name not in found.workloads}
    return found


def source_of(implementation: Implementation, root: str) -> dict[str, str]:
    """File and digest, as a record has them."""
    file = os.path.relpath(implementation.source, root)
    return {
        "file": file if not file.startswith("..") else implementation.source.name,
        "digest": implementation.digest,
    }


class ProfileWorker(Worker):
    """Answers `profile` as well."""

    def start(self) -> None:
        """Load everything and say what there is, or why not."""
        self._turn(-1)
        try:
            self._catalog = all_tiers(self._options, self._turn)
        except catalog.Refused as refusal:
            self.send("refused", message=str(refusal))
            raise SystemExit(2) from refusal
        self._turn(-1)
        self.send("catalog", **self._catalog.to_data())

    def profile(self, command: dict[str, Any]) -> None:
        """One contender of one case by one tool; larger files go to the folder given, the rest to the parent.

        A case that takes more than `limit` seconds ends the process.
        """
        workload = self._catalog.workloads[command["case"]]
        implementation = self._catalog.registry.implementations[workload.operation][command["contender"]]
        folder, stem, ceilings = Path(command["folder"]), command["stem"], command["ceilings"]
        signal.setitimer(signal.ITIMER_REAL, command["limit"])  # ends this process, wherever it hangs
        try:
            subject = self._subject(command)
            self._turn(0)
            if command["tool"] == "torch":
                found = tracer.run(subject, folder, stem, ceilings)
            elif command["tool"] == "memory":
                found = memory.run(subject, folder, stem)
            else:
                found = host.run(subject, folder, stem)
        except Unprofiled as reason:
            self.send("unprofiled", status=reason.status, reason=str(reason))
            return
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        source = source_of(implementation, self._options.root)
        self.send("profiled", found=found, source=source, notes=[subject.note] if subject.note else [])

    def _subject(self, command: dict[str, Any]) -> Subject:
        workload = self._catalog.workloads[command["case"]]
        names = [command["contender"]]
        ceilings = command.get("ceilings") or {}
        return prepared(self._catalog, workload, names, ceilings, self._options.root, self._turn)


if __name__ == "__main__":
    serve(ProfileWorker)
