"""The process that measures. It is kept across cases and replaced when it dies or stops answering.

The parent starts `python -m harness.worker OPTIONS EVENTS TURN`: OPTIONS is JSON, EVENTS a file descriptor for one
JSON object a line, TURN a file in which the worker notes whose code is running. Commands come in on standard input.
What implementations print goes to standard error, which the parent keeps as the run's log.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import resource
import struct
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from .contest import Contest
from .failure import describe
from .options import Options
from .outcome import outcome
from .process import end_with_parent
from .record import RunWriter
from .trial import Trials

TURN_FORMAT = "<qq"
TURN_BYTES = struct.calcsize(TURN_FORMAT)
MEMORY_SHARE = 0.8


class Turn:
    """Whose code is running, in memory shared with the parent: a counter that shows life, and a contender's index."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), TURN_BYTES)
        self._count = 0

    def __call__(self, index: int) -> None:
        self._count += 1
        self._map[:] = struct.pack(TURN_FORMAT, self._count, index)


class Worker:
    """Answers the parent's commands: machine, contest, outcomes."""

    def __init__(self, options: Options, events: Any, turn: Turn) -> None:
        self._options, self._events, self._turn = options, events, turn

    def send(self, event: str, **values: Any) -> None:
        """One line to the parent."""
        self._events.write(json.dumps({"event": event, **values}) + "\n")
        self._events.flush()

    def start(self) -> None:
        """Load everything and say what there is, or why not."""
        from . import catalog

        self._turn(-1)
        try:
            self._catalog = catalog.build(self._options, self._turn)
        except catalog.Refused as refusal:
            self.send("refused", message=str(refusal))
            raise SystemExit(2) from refusal
        self._turn(-1)
        self.send("catalog", **self._catalog.to_data())

    def machine(self, command: dict[str, Any]) -> None:
        """Fingerprint and measured ceilings."""
        from . import machine, roofline

        metrics = {
            m.name: dataclasses.asdict(m) for op in self._catalog.registry.operations.values() for m in op.metrics
        }
        self.send(
            "machine",
            machine=machine.fingerprint(self._options.path),
            ceilings=roofline.ceilings(self._catalog.device),
            metrics=metrics,
        )

    def fingerprint(self, command: dict[str, Any]) -> None:
        """The machine alone."""
        from . import machine

        self.send("fingerprint", machine=machine.fingerprint(self._options.path))

    def outcomes(self, command: dict[str, Any]) -> None:
        """Records of contenders that were not measured, for the statuses and reasons given."""
        workload = self._catalog.workloads[command["case"]]
        known = self._catalog.registry.implementations[workload.operation]
        records = [
            outcome(workload, known[name], self._options.root, status=status, reason=reason)
            for name, (status, reason) in command["outcomes"].items()
        ]
        self.send("records", records=[dataclasses.asdict(record) for record in records])

    def contest(self, command: dict[str, Any]) -> None:
        """Measure one case, a trial if its operation is one; samples go to the run's folder, records to the parent."""
        workload = self._catalog.workloads[command["case"]]
        operation = self._catalog.registry.operations[workload.operation]
        contest = (Contest if operation.trial is None else Trials)(
            self._catalog.registry,
            workload,
            command["contenders"],
            self._catalog.device,
            command["ceilings"],
            self._options.root,
            self._turn,
        )
        writer = RunWriter(Path(command["folder"]))
        records = contest.run(command["seconds"], writer.sample_file(workload.id))
        writer.samples(workload.id, contest.arrays)
        self.send("records", records=[dataclasses.asdict(record) for record in records])

    def serve(self) -> None:
        """Commands until the parent closes the pipe."""
        for line in sys.stdin:
            command = json.loads(line)
            try:
                getattr(self, command["do"])(command)
            except Exception as error:
                traceback.print_exc()
                self.send("failed", message=describe(error))
            self._turn(-1)


def limit_memory(device: str) -> None:
    """Make a contender that wants all memory fail alone: an allocation limit on the CPU, first choice of the kernel.

    On a GPU the address space is left unlimited, for the driver reserves far more than it uses.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if device != "cuda":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (int(MEMORY_SHARE * total), resource.RLIM_INFINITY))


def serve(kind: type[Worker]) -> None:
    """Entry point of a process that serves as `kind`, until the parent closes the pipe."""
    end_with_parent()
    options, events, turn = Options.from_json(sys.argv[1]), os.fdopen(int(sys.argv[2]), "w"), Turn(sys.argv[3])
    os.dup2(2, 1)
    sys.path.insert(0, options.root)
    worker = kind(options, events, turn)
    from .catalog import Refused, choose_device

    with suppress(Refused):
        limit_memory(choose_device(options.device))
    worker.start()
    worker.serve()


if __name__ == "__main__":
    serve(Worker)
