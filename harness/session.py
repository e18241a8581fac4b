"""A run: its folder, its worker, its budget. pytest and `python -m harness.run` both drive it case by case.

A contender that crashes or hangs its process gets that status, the worker is replaced, and the contest goes on
without it. Each record is on disk before the next case begins.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .catalog import Case, Catalog, Refused
from .folder import new_folder
from .metrics import COMMON, Metric
from .options import DEFAULT_BUDGETS, SUITE_BUDGET, Options
from .process import WorkerLost, WorkerProcess, WorkerRefused, end_like_ctrl_c
from .record import Header, Record, RunWriter, read_run, record_from_data
from .telemetry.clocks import Clocks
from .telemetry.sampler import Sampler

LEAST_SECONDS = 2.0


def _read(data: Any, path: Sequence[str]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


class Session:
    """Everything between a request and its records.

    Raises Refused when the request cannot be met: unknown names, a device that is not there, a run that cannot be
    resumed.
    """

    def __init__(self, options: Options, runs: Path, resume: str | None = None) -> None:
        self.begun = time.monotonic()
        if options.budget is not None and not 0 < options.budget < math.inf:
            raise Refused(f"BUDGET={options.budget:g} is not a number of seconds above 0")
        end_like_ctrl_c()
        self._done: dict[str, dict[str, Record]] = {}
        self._header: Header | None = None
        self.problems: list[str] = []
        if resume is not None:
            options = self._resume(options, runs, resume)
        else:
            self.folder = new_folder(runs, options.study or "all", options.path)
        self.options = options
        self._writer: RunWriter | None = None
        self._worker: WorkerProcess | None = None
        self._expected: set[str] = set()
        self.left_out: list[str] = []
        self._inside = 0.0
        self.catalog = self._start()
        self._sampler, self._clocks = Sampler(self.catalog.device == "cuda", self._ours), Clocks()
        if self._header is not None:
            self._require_same_machine(self._header)
        self.budget = self._default_budget() if options.budget is None else options.budget

    def _default_budget(self) -> float:
        """The tier's seconds for each study that has cases; all studies together share a little more on a CPU."""
        studies = len({case.study for case in self.catalog.cases})
        total = DEFAULT_BUDGETS[self.catalog.tier] * max(1, studies)
        return min(SUITE_BUDGET, total) if self.catalog.tier == "cpu" else total

    def _resume(self, options: Options, runs: Path, resume: str) -> Options:
        self.folder = Path(resume) if Path(resume).is_dir() else runs / resume
        try:
            run = read_run(self.folder)
        except (OSError, ValueError) as error:
            raise Refused(f"RESUME={resume}: {error}") from error
        self._header = run.header
        self.problems += run.problems
        for record in run.records:
            self._done.setdefault(record.case, {})[record.contender] = record
        if self.folder.resolve().is_relative_to(options.path.resolve() / "reports" / "recorded"):
            raise Refused(f"RESUME={resume}: a recorded run is not continued; start a new one")
        words = ("device", "tier", "study", "model", "impl")
        asked: dict[str, Any] = {word: run.header.options.get(word) for word in words}
        for word, value in asked.items():
            wanted = getattr(options, word)
            if wanted is not None and wanted != value:
                was = f"with {word.upper()}={value}" if value else f"without {word.upper()}="
                raise Refused(f"RESUME={resume}: it was begun {was}; leave {word.upper()}= out, or start a new run")
        return dataclasses.replace(options, **asked)

    def _require_same_machine(self, header: Header) -> None:
        """One run is of one machine and one commit. Raises Refused otherwise."""
        here = self.worker.ask(do="fingerprint")["machine"]
        for name, path in (("machine", ("label",)), ("torch", ("software", "torch")), ("commit", ("git", "commit"))):
            then, now = _read(header.machine, path), _read(here, path)
            if then != now:
                self.close()
                raise Refused(f"RESUME={self.folder.name}: its {name} is {then}, here it is {now}; start a new run")

    def _start(self) -> Catalog:
        """Start a worker and read what it offers; without the user's file if that file takes the process down."""
        try:
            self._worker = WorkerProcess(self.options, self.folder / "worker.log")
        except OSError as error:
            raise Refused(f"{self.folder} cannot be written: {error.strerror or error}; see --runs") from error
        try:
            answer = self._worker.wait()
        except WorkerRefused as refusal:
            self._discard_folder()
            raise Refused(str(refusal)) from refusal
        except WorkerLost as lost:
            if self.options.impl is None:
                log = self.folder / "worker.log"
                raise Refused(f"the measuring process did not start: {lost}; see {log}") from lost
            self.problems.append(f"IMPL={self.options.impl}: loading it failed: {lost}")
            self.options = dataclasses.replace(self.options, impl=None)
            return self._start()
        catalog = Catalog.from_data(answer)
        self.problems += [p for p in catalog.problems if p not in self.problems]
        return catalog

    def _discard_folder(self) -> None:
        (self.folder / "worker.log").unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    @property
    def worker(self) -> WorkerProcess:
        """The worker at hand; a new one after the last was lost."""
        if self._worker is None:
            self._start()
        assert self._worker is not None
        return self._worker

    def case(self, case: str) -> Case:
        """A case of the catalog by its id."""
        return next(c for c in self.catalog.cases if c.id == case)

    def expect(self, cases: Iterable[str]) -> None:
        """Which cases are to come: what is left of the budget is shared among those not measured yet."""
        self._expected = set(cases)

    def _share(self, case_id: str) -> float:
        """Seconds for the contest of a case, which is expected no longer."""
        waiting = len(self._expected | {case_id})
        self._expected.discard(case_id)
        return max(LEAST_SECONDS, self.seconds_left / waiting)

    @property
    def seconds_left(self) -> float:
        """What remains of the budget."""
        return self.budget - (time.monotonic() - self.begun)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every declared metric, the operations' own included."""
        return self._header.metrics if self._header else COMMON

    def contenders(self, case: Case, selected: Sequence[str]) -> list[str]:
        """`selected` with what its contest needs besides: the baseline, and a reference of each technique."""
        able = {c.name: c for c in case.contenders if c.reason is None}
        names = [name for name in selected if name in able]
        needed = [f"{able[name].technique}/reference" for name in names]
        needed += [name for name in case.baseline if name in able][:1]
        return [*names, *dict.fromkeys(n for n in needed if n in able and n not in names)]

    def measure(self, case_id: str, selected: Sequence[str]) -> dict[str, Record]:
        """The contest of a case; records by contender, also of those that cannot run here.

        Contests that do not fit in the budget any more are left out: the result is empty and `left_out` says so.
        Raises OSError when the run's folder cannot be written.
        """
        case = self.case(case_id)
        names = self.contenders(case, selected)
        done = self._done.get(case_id, {})
        reasons = {c.name: c.reason for c in case.contenders if c.reason is not None}
        if all(name in done for name in [*names, *reasons]):
            self._expected.discard(case_id)
            return done
        if self.seconds_left <= 0 and self._writer is not None:
            self.left_out += [] if case_id in self.left_out else [case_id]
            return {}
        self._write_header()
        seconds = self._share(case_id)
        records = self._steady(case_id, names, seconds) if names else []
        records += self._outcomes(case_id, {name: ("unavailable", str(why)) for name, why in reasons.items()})
        assert self._writer is not None
        for record in records:
            self._writer.record(record, self.metrics)
        self._done[case_id] = {record.contender: record for record in records}
        return self._done[case_id]

    def _steady(self, case_id: str, names: list[str], seconds: float) -> list[Record]:
        """A contest with the machine's state in its records; a second one where the clock was low, if time is left."""
        begin = time.monotonic()
        records, window = self._sampled(case_id, names, seconds)
        low = self._clocks.low(window)
        if low is not None and self.seconds_left > time.monotonic() - begin:
            again, later = self._sampled(case_id, names, min(seconds, self.seconds_left))
            records = [dataclasses.replace(r, timing={**r.timing, "repeated": low} if r.timing else {}) for r in again]
            window, low = later, self._clocks.low(later)
        self._clocks.add(window)
        if low is not None:
            window = {**(window or {}), "low_clock": low}
        return [dataclasses.replace(record, telemetry=window) for record in records]

    def _sampled(self, case_id: str, names: list[str], seconds: float) -> tuple[list[Record], dict[str, Any] | None]:
        """One contest, and what the machine did meanwhile; lanes over time go to the run's folder."""
        assert self._writer is not None
        self._sampler.look()
        begin = time.monotonic()
        records = self._contest(case_id, names, seconds)
        self._sampler.look()
        end = time.monotonic()
        self._inside += end - begin
        self._writer.lanes(case_id, self._sampler.lanes(begin, end))
        return records, self._sampler.summary(begin, end)

    def _ours(self) -> list[int]:
        return [os.getpid()] + ([] if self._worker is None else [self._worker.pid])

    def _contest(self, case_id: str, names: list[str], seconds: float) -> list[Record]:
        lost: dict[str, tuple[str, str]] = {}
        remaining = list(names)
        while remaining:
            assert self._header is not None
            try:
                answer = self.worker.ask(
                    do="contest",
                    case=case_id,
                    contenders=remaining,
                    seconds=seconds,
                    ceilings=dict(self._header.ceilings),
                    folder=str(self.folder.resolve()),
                )
                records = [record_from_data(data) for data in answer["records"]]
                return records + self._outcomes(case_id, lost)
            except WorkerLost as gone:
                self.worker.kill()  # with whatever it started
                self._worker = None
                if gone.index < 0:
                    lost.update(dict.fromkeys(remaining, ("error", f"the harness itself failed: {gone}")))
                    break
                lost[remaining.pop(gone.index)] = (gone.status, str(gone))
            except RuntimeError as error:
                lost.update(dict.fromkeys(remaining, ("error", f"the harness itself failed: {error}")))
                break
        return self._outcomes(case_id, lost)

    def _outcomes(self, case_id: str, outcomes: Mapping[str, tuple[str, str]]) -> list[Record]:
        if not outcomes:
            return []
        answer = self.worker.ask(do="outcomes", case=case_id, outcomes=dict(outcomes))
        return [record_from_data(data) for data in answer["records"]]

    def _write_header(self) -> None:
        if self._writer is not None:
            return
        self._writer = RunWriter(self.folder)
        self._sampler.start()
        if self._header is not None:
            return
        begin = time.monotonic()
        found = self.worker.ask(do="machine")
        self._inside += time.monotonic() - begin
        declared = {name: Metric(**metric) for name, metric in found["metrics"].items()}
        options: dict[str, Any] = dataclasses.asdict(self.options)
        options |= {"device": self.catalog.device, "tier": self.catalog.tier, "budget": self.budget}
        for private in ("root", "package", "benches"):
            options.pop(private)
        self._header = Header(
            run=self.folder.name,
            started=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            machine=found["machine"],
            ceilings=found["ceilings"],
            options=options,
            metrics=COMMON | declared,
        )
        self._writer.header(self._header)

    @property
    def account(self) -> str:
        """How long the run took, and how much of that went to neither contests nor the machine's ceilings."""
        total = time.monotonic() - self.begun
        return f"{total:.0f} s, of which {total - self._inside:.0f} s outside measuring, verifying and compiling"

    @property
    def records(self) -> list[Record]:
        """Everything recorded so far."""
        return [record for case in self._done.values() for record in case.values()]

    def close(self) -> None:
        """Stop worker and sampler; the records stay."""
        self._sampler.stop()
        if self._worker is not None:
            self._worker.kill()
            self._worker = None
        if self._header is None:
            self._discard_folder()
