"""Why is this case slow? One contender, or every slow case of a run, by one tool: `python -m harness.profiling`.

What is found is printed and kept beside the run it explains: the newest one that measured the case on this device, or
the one named. Without such a run, or where that is of another machine, it is kept below `runs/profile`. The profiling
itself happens in a process of its own (`worker.py`), which may crash or hang without taking this one along.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog import Case, Catalog, Refused, choose_device, nearest
from ..lookup import PLACES, folders
from ..options import Options
from ..process import WorkerLost, WorkerProcess, WorkerRefused, end_like_ctrl_c
from ..provenance import moment
from ..record import Record, Run, read_header, read_run
from . import counters, file, ncu, report
from .file import TOOLS, Profile
from .subject import Unprofiled

LIMIT = 60.0
ALONE = "profile"
PREFERRED = ("optimized", "library", "compiled", "reference")
WORKER = "harness.profiling.worker"


@dataclass(frozen=True)
class Request:
    """What was asked for; `runs` is where runs are kept, `limit` the seconds a case may take."""

    tool: str
    runs: Path
    limit: float = LIMIT


class Profiler:
    """Holds the worker; `run` is the run whose cases are explained, None without one.

    Raises Refused for a request that cannot be met.
    """

    def __init__(self, options: Options, request: Request, run: Run | None) -> None:
        self._options, self._request = options, request
        self._log = request.runs / ALONE / "worker.log"
        self._worker: WorkerProcess | None = None
        self.catalog = self._start()
        self.machine: dict[str, Any] = self._ask(do="fingerprint")["machine"]
        self.problems = list(self.catalog.problems)
        self.run = self._of_this_machine(run)

    def _start(self) -> Catalog:
        try:
            self._worker = WorkerProcess(self._options, self._log, WORKER)
            return Catalog.from_data(self._worker.wait())
        except WorkerRefused as refusal:
            raise Refused(str(refusal)) from refusal
        except WorkerLost as lost:
            raise Refused(f"the profiling process did not start: {lost}; see {self._log}") from lost
        except OSError as error:
            raise Refused(f"{self._log.parent} cannot be written: {error.strerror or error}; see --runs") from error

    def _ask(self, **command: Any) -> dict[str, Any]:
        if self._worker is None:
            self._start()
        assert self._worker is not None
        return self._worker.ask(**command)

    def _of_this_machine(self, run: Run | None) -> Run | None:
        if run is None:
            return None
        label = run.header.machine.get("label")
        if label == self.machine.get("label"):
            return run
        said = f"{run.folder.name} was measured on {label}, this is {self.machine.get('label')}"
        self.problems.append(f"{said}: profiles are kept in {self._request.runs / ALONE}")
        return None

    @property
    def folder(self) -> Path:
        """The folder of the run that profiles are kept beside."""
        return self._request.runs / ALONE if self.run is None else self.run.folder

    def case(self, name: str) -> Case:
        """A case by its id. Raises Refused, with what may have been meant."""
        known = {case.id: case for case in self.catalog.cases}
        if name not in known:
            raise Refused(f"CASE={name} is unknown; {nearest(name, list(known))}")
        return known[name]

    def contender(self, case: Case, name: str | None) -> str:
        """The contender named, or the run's fastest, or without a run the first able one, ours before others.

        Raises Refused for one that is unknown or cannot run here.
        """
        known = {contender.name: contender for contender in case.contenders}
        if name is not None:
            if name not in known:
                raise Refused(f"NAME={name} is no contender of {case.id}; {nearest(name, list(known))}")
            if known[name].reason is not None:
                raise Refused(f"NAME={name} cannot run {case.id} here: {known[name].reason}")
            return name
        able = [contender for contender in case.contenders if contender.reason is None]
        if not able:
            raise Refused(f"no contender can run {case.id} here; make list says why")
        names = {contender.name for contender in able}
        measured = [record for record in self._records(case.id) if record.contender in names]
        if measured:
            return min(measured, key=lambda record: record.value("latency") or 0.0).contender
        return min(able, key=lambda contender: PREFERRED.index(contender.kind)).name

    def _records(self, case: str) -> list[Record]:
        records = () if self.run is None else self.run.records
        return [record for record in records if record.case == case and record.status == "passed"]

    def record(self, case: str, contender: str) -> Record | None:
        """What the run measured of it."""
        return next((record for record in self._records(case) if record.contender == contender), None)

    def slow(self, below: float) -> list[str]:
        """Cases of the run whose best share of the floor is below a figure, the lowest first."""
        best: dict[str, float] = {}
        for record in () if self.run is None else self.run.records:
            share = record.value("floor_share")
            if share is not None:
                best[record.case] = max(share, best.get(record.case, 0.0))
        return sorted((case for case, share in best.items() if share < below), key=lambda case: best[case])

    def profile(self, case: str, contender: str) -> tuple[Profile, Path]:
        """Take and keep it. Raises Unprofiled, or OSError where it cannot be written."""
        tool, folder = self._request.tool, file.folder_of(self.folder, case).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        stem = file.stem_of(contender, tool)
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        if tool == "ncu":
            answer = ncu.run(self._options, case, contender, folder, stem, self._request.limit)
        else:
            answer = self._answer(case, contender, folder, stem)
        profile = Profile(
            case=case,
            contender=contender,
            tool=tool,
            started=started,
            machine={
                "label": self.machine.get("label"),
                "device": self.catalog.device,
                "software": self.machine.get("software"),
                "git": self.machine.get("git"),
            },
            source=answer["source"],
            notes=[*answer["notes"], *self._unlike(case, contender, answer["source"])],
            **answer["found"],
        )
        return profile, file.write(profile, self.folder)

    def _unlike(self, case: str, contender: str, source: dict[str, str]) -> Iterator[str]:
        record = self.record(case, contender)
        if record is not None and record.source.get("digest") != source["digest"]:
            yield file.CHANGED

    def _answer(self, case: str, contender: str, folder: Path, stem: str) -> dict[str, Any]:
        """The worker's, which is stopped when the time is up."""
        limit = self._request.limit
        begin = time.monotonic()
        if self._worker is None:
            self._start()
        worker = self._worker
        assert worker is not None
        try:
            answer = worker.ask(
                do="profile",
                case=case,
                contender=contender,
                tool=self._request.tool,
                folder=str(folder),
                stem=stem,
                limit=limit,
                ceilings={} if self.run is None else dict(self.run.header.ceilings),
            )
        except WorkerLost as lost:
            worker.kill()
            self._worker = None
            if time.monotonic() - begin >= limit:
                raise Unprofiled("timeout", f"it took more than {limit:.0f} s; give it more by LIMIT=") from lost
            raise Unprofiled(lost.status, str(lost)) from lost
        except RuntimeError as error:
            raise Unprofiled("error", f"the tool itself failed: {error}; see {self._log}") from error
        if answer["event"] == "unprofiled":
            raise Unprofiled(answer["status"], answer["reason"])
        return answer

    def close(self) -> None:
        """Stop the worker."""
        if self._worker is not None:
            self._worker.kill()


def named_run(word: str, runs: Path) -> Run:
    """The run at a path or of a name. Raises Refused."""
    for path in (Path(word), runs / word, *(place / word for place in PLACES)):
        if (path / "run.jsonl").is_file():
            try:
                return read_run(path)
            except (OSError, ValueError) as error:
                raise Refused(f"RUN={word}: {error}") from error
    raise Refused(f"RUN={word}: there is no such run; the folders of {runs} are runs")


def newest_run(runs: Path, device: str, case: str | None) -> Run | None:
    """The newest run below `runs` on a device, that has measured `case` if one is given; None without any."""
    found = []
    for folder in folders(runs):
        try:
            header = read_header(folder)
        except (OSError, ValueError):
            continue
        if header.device == device:
            found.append((moment(header), header.run, folder))
    for _, _, folder in sorted(found, reverse=True):
        try:
            run = read_run(folder)
        except (OSError, ValueError):
            continue
        if any(case in (None, record.case) for record in run.records):
            return run
    return None


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 profiled, 1 a contender failed or could not be profiled in time, 2 the request cannot be met."""
    parser = argparse.ArgumentParser(prog="python -m harness.profiling", description=__doc__)
    parser.add_argument("--case", help="a case's id, as make list prints it")
    parser.add_argument("--name", help="technique/implementation; default: the fastest of the run")
    parser.add_argument("--tool", default="torch", help="; ".join(f"{name}: {what}" for name, what in TOOLS.items()))
    parser.add_argument("--below", type=float, help="every case of a run whose best share of the floor is below it")
    parser.add_argument("--run", help="the run to explain: its folder or name; default: the newest")
    parser.add_argument("--device", help="cpu or cuda; default: the run's, or a GPU where there is one")
    parser.add_argument("--model", help="a bundled name, or the path of a Hugging Face config.json; default: the run's")
    parser.add_argument("--impl", help="a file with your own implementations; default: the run's")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that one case may take")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    asked = parser.parse_args(words)
    end_like_ctrl_c()
    try:
        return _profile(asked)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or asked.runs} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; profiles that were finished are kept", file=sys.stderr)
        return 130


def _profile(asked: argparse.Namespace) -> int:
    if asked.tool not in TOOLS:
        raise Refused(f"TOOL={asked.tool} is unknown; {nearest(asked.tool, list(TOOLS))}")
    if (asked.case is None) == (asked.below is None):
        raise Refused("say which case, make profile CASE=... (make list shows them), or make profile-all BELOW=0.3")
    named = None if asked.run is None else named_run(asked.run, asked.runs)
    device = choose_device(asked.device or (named.header.device if named else None))
    if asked.tool == "ncu" and (reason := counters.unavailable(device)):
        raise Refused(reason)
    run = named or newest_run(asked.runs, device, asked.case)
    if run is None and asked.below is not None:
        raise Refused(f"there is no run on {device} in {asked.runs}; make bench makes one")
    options = Options(str(Path.cwd()), device, model=asked.model, impl=asked.impl, timeout=2 * asked.limit)
    if run is not None:
        then = run.header.options
        options = dataclasses.replace(
            options, model=asked.model or then.get("model"), impl=asked.impl or then.get("impl")
        )
    profiler = Profiler(options, Request(asked.tool, asked.runs, asked.limit), run)
    try:
        for problem in profiler.problems:
            print(f"problem: {problem}", file=sys.stderr)
        if asked.below is None:
            return _one(profiler, profiler.case(asked.case), asked.name)
        return _all(profiler, asked.below)
    finally:
        profiler.close()


def _one(profiler: Profiler, case: Case, name: str | None) -> int:
    contender = profiler.contender(case, name)
    try:
        profile, path = profiler.profile(case.id, contender)
    except Unprofiled as reason:
        print(f"{case.id} {contender}: {reason.status}: {reason}", file=sys.stderr)
        return 1
    print("\n".join([*report.lines(profile, profiler.record(case.id, contender)), "", f"kept: {path}"]))
    return 0


def _all(profiler: Profiler, below: float) -> int:
    if profiler.run is None:
        raise Refused("the run was measured on another machine; its cases are profiled there")
    cases = profiler.slow(below)
    print(f"{len(cases)} cases of {profiler.run.folder} reach less than {below:.0%} of their floor")
    failed = 0
    for number, name in enumerate(cases, 1):
        print(f"\n[{number}/{len(cases)}] {name}", flush=True)
        try:
            failed += _one(profiler, profiler.case(name), None)
        except Refused as refusal:
            print(f"left out: {refusal}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
