"""Lanes of the timing gate: processes that visit cases, one after another, each loading both revisions anew.

Both revisions in one process and one environment is the rule: nothing but their code differs. Where the toolchain is
what changed, each revision has a process in its own environment, and slots go to and fro between the two (Pair); then
what a process is by chance differs too, and it takes more fresh ones to tell a difference.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..deviation import INCOMPATIBLE, INCONCLUSIVE, NOTHING, USAGE
from ..process import WorkerLost, WorkerProcess
from .case import GateCase
from .options import BASE, HEAD, REVISIONS, GateOptions
from .revision import Stopped
from .rounds import timed

WORKER = "harness.gate.worker"
LEAST_SECONDS = 0.1
BASES = [arm for arm, revision in REVISIONS.items() if revision == BASE]
SIDES: Mapping[str, str] = {arm: "base" if revision == BASE else "head" for arm, revision in REVISIONS.items()}


class Lane:
    """One worker at a time, asked until `stop` is set. Raises Stopped for what does not load.

    `python`: the worker's interpreter, by default this one.
    """

    def __init__(
        self, options: GateOptions, log: Path, stop: threading.Event, module: str = WORKER, python: str = ""
    ) -> None:
        self._options, self._log, self._stop, self._module, self._python = options, log, stop, module, python
        self._worker: WorkerProcess | None = None
        self._rng, self._setup = random.SystemRandom(), 0.3
        self._unused = False
        self.opening = 0.0
        self.processes = 0

    def open(self) -> dict[str, Any]:
        """A fresh process; what it offers."""
        if self._stop.is_set():
            raise Stopped(INCONCLUSIVE, "the gate was stopped")
        begin = time.monotonic()
        try:
            if self._worker is None:
                self._worker = WorkerProcess(self._options, self._log, self._module, self._python)
                answer = self._worker.wait()
            else:
                answer = self._worker.ask(do="renew")
        except WorkerLost as lost:
            self.close()
            side = {BASE: "base", HEAD: "head"}.get(lost.index, "harness")
            answer = {"problem": {"side": side, "message": str(lost)}}
        except OSError as error:
            raise Stopped(USAGE, f"{self._log} cannot be written: {error.strerror or error}") from error
        if answer.get("problem"):
            raise _unloadable(answer["problem"], self._log)
        self.processes += 1
        self._unused, self.opening = True, time.monotonic() - begin
        return answer

    def visit(self, cases: Sequence[GateCase], until: float) -> list[tuple[GateCase, dict[str, Any]]]:
        """The answers of a fresh process about cases, which share the time that is left."""
        if not self._unused:
            self.open()
        order = self._rng.sample(list(cases), len(cases))
        answers = []
        for number, case in enumerate(order):
            if self._stop.is_set() or case.settled:
                continue
            begin = time.monotonic()
            seconds = max(LEAST_SECONDS, (until - begin) / (len(order) - number) - self._setup)
            answer = self.ask(case, seconds)
            if "rounds" in answer:
                answers.append((case, answer))
                self._setup = (self._setup + max(0.0, time.monotonic() - begin - seconds)) / 2
            else:
                case.take(answer)  # at once, so that the other lane need not find out for itself
        return answers

    def ask(self, case: GateCase, seconds: float) -> dict[str, Any]:
        """The answer to one visit."""
        words = {"case": case.case, "contender": case.contender, "slowed_by": case.slowed_by}
        return self.command(do="visit", seconds=seconds, **words)

    def command(self, **words: Any) -> dict[str, Any]:
        """The answer to one command; a lost process is a failure of the revision whose code ran."""
        if self._worker is None:
            self.open()
        assert self._worker is not None
        self._unused = False
        try:
            answer = self._worker.ask(**words)
        except WorkerLost as lost:
            self.close()
            if lost.index not in (BASE, HEAD):
                raise Stopped(
                    INCONCLUSIVE, f"no revision's code ran when the measuring process ended: {lost}"
                ) from lost
            side = "base" if lost.index == BASE else "head"
            return {"failed": {"side": side, "status": lost.status, "reason": str(lost)}}
        except RuntimeError as error:
            raise Stopped(INCONCLUSIVE, f"the harness itself failed: {error}; see {self._log}") from error
        if answer["event"] != "visited":
            raise Stopped(INCONCLUSIVE, f"the measuring process was replaced while it was asked to {words['do']}")
        return answer

    def close(self) -> None:
        """End what runs."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


class Pair(Lane):
    """Two workers, each revision under its own toolchain, whose slots alternate; both stay as long as a lane's does.

    The base's arms are timed in the process of the base's interpreter, with the head's harness and contract as ever.
    """

    def __init__(self, options: GateOptions, log: Path, stop: threading.Event) -> None:
        super().__init__(options, log, stop)
        self._sides = {
            "base": Lane(options, log, stop, python=options.base_python),
            "head": Lane(options, log, stop),
        }

    def open(self) -> dict[str, Any]:
        """Two fresh processes; what both offer."""
        begin = time.monotonic()
        base, head = (self._sides[side].open() for side in ("base", "head"))
        self._unused, self.opening, self.processes = True, time.monotonic() - begin, self.processes + 2
        lacks = {(one["case"], one["contender"]): one["base"] for one in base["cases"]}
        missing = "is not listed under the base's toolchain"
        cases = [{**one, "base": lacks.get((one["case"], one["contender"]), missing)} for one in head["cases"]]
        return {**head, "cases": cases, "base_software": base["software"]}

    def ask(self, case: GateCase, seconds: float) -> dict[str, Any]:
        """The answer to one visit by both."""
        self._unused = False
        words = {"case": case.case, "contender": case.contender, "slowed_by": case.slowed_by}
        words["seed"] = self._rng.randrange(2**31)
        try:
            typical = min(
                self._told(side, do="open", arms=[arm for arm in REVISIONS if SIDES[arm] == side], **words)["typical"]
                for side in self._sides
            )
            self._both(do="fill", typical=typical)
            rounds = timed(seconds, self._round, lambda: self._both(do="roll"))
            self._both(do="close")
        except Unlike as unlike:
            return unlike.answer
        return {"event": "visited", "rounds": rounds}

    def _round(self) -> dict[str, float]:
        """A slot of the head between those of the base's arms, so that the other process ran before each; one of the
        head's counts, else it would be better known than the arms it is compared with."""
        bases = self._rng.sample(BASES, len(BASES))
        counts, times = self._rng.choice(bases), {}
        for arm in bases:
            times[arm], head = self._slot(arm), self._slot("head")
            if arm == counts:
                times["head"] = head
        return times

    def _slot(self, arm: str) -> float:
        return float(self._told(SIDES[arm], do="slot", arm=arm)["ns"])

    def _both(self, **words: Any) -> None:
        for side in self._sides:
            self._told(side, **words)

    def _told(self, side: str, **words: Any) -> dict[str, Any]:
        answer = self._sides[side].command(**words)
        if "failed" in answer or "changed" in answer:
            raise Unlike(answer)
        return answer

    def close(self) -> None:
        """End both processes."""
        for lane in self._sides.values():
            lane.close()


class Unlike(Exception):
    """A visit ends without rounds, for the reason that is in `answer`."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(str(answer))
        self.answer = answer


def _unloadable(problem: Mapping[str, str], log: Path) -> Stopped:
    if problem["side"] == "request":
        return Stopped(USAGE, problem["message"])
    code, whose = {
        "head": (NOTHING, "the working tree does not load"),
        "base": (INCOMPATIBLE, "the base does not load with the harness of the working tree"),
    }.get(problem["side"], (INCONCLUSIVE, "the measuring process does not start"))
    return Stopped(code, f"{whose}: {problem['message']}; see {log}")
