"""Starts the process that collects exact facts, and starts another without a contender that took it down.

The process gets one thread and the instructions that every processor of its kind has, so that operators and
allocations are the same everywhere. It writes what it finds line by line, and whose turn it is before that: the last
turn without facts is the culprit of a crash or a hang.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .baseline import Facts
from .deviation import Rule
from .options import Options

POLL_SECONDS = 0.1
HARNESS_PATIENCE = 5  # times as long as for a contender: importing and drawing, on a busy machine
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "TRITON_INTERPRET": "0"}
INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}  # where the processor has more


class Failed(Exception):
    """The process ended and no contender is to blame; `refused`: the request could not be met."""

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass
class Found:
    """What was collected; `absent` says why there is nothing, `reasons` why a contender failed or cannot run."""

    facts: Facts = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    toolchain: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    absent: str | None = None

    def add(self, line: Mapping[str, Any]) -> None:
        """One line of the process. Raises Failed for a refusal."""
        if "refused" in line:
            raise Failed(str(line["refused"]), refused=True)
        self.toolchain = line.get("toolchain", self.toolchain)
        self.absent = line.get("absent", self.absent)
        self.problems += line.get("problems", [])
        self.rules |= {name: Rule(**rule) for name, rule in line.get("metrics", {}).items()}
        if "case" in line:
            self.facts.setdefault(line["case"], {}).update(line["facts"])
            if line.get("reason"):
                self.reasons[line["case"], next(iter(line["facts"]))] = line["reason"]


class Collection:
    """Facts of one kind being collected in the background: "cases", "kernels", or "listings" with a folder and a match
    as `more`."""

    def __init__(self, what: str, options: Options, more: Sequence[str] = ()) -> None:
        self._what, self._options, self._more, self._found = what, options, more, Found()
        self._skipped: list[list[str]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="whalebench-exact-")
        self._file, self._log = Path(self._folder.name, "facts"), Path(self._folder.name, "log")
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        instructions = INSTRUCTIONS if platform.machine() in ("x86_64", "AMD64") else {}
        self._file.write_text("")
        words = [self._what, self._options.to_json(), json.dumps(self._skipped), str(self._file), *self._more]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "harness.facts", *words],
                cwd=self._options.root,
                env={**os.environ, **ONE_THREAD, **instructions},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self) -> Found:
        """Wait for everything. Raises Failed when it cannot be collected."""
        try:
            while not self._attempt():
                self._process = self._start()
            return self._found
        finally:
            self.stop()

    def _attempt(self) -> bool:
        """Whether this process came to its end; else the contender to blame is noted and will be skipped."""
        status = self._wait()
        turn: list[str] | None = None
        for line in map(json.loads, self._file.read_text().split("\n")[:-1]):
            self._found.add(line)
            if "turn" in line:
                turn = line["turn"]
            elif "case" in line and turn is not None and turn[1] in line["facts"]:
                self._skipped.append(turn)
                turn = None
            elif "done" in line:
                return True
        if turn is None:
            raise Failed(f"collecting the facts of {self._what} failed, {status[1]}: {self._last_words()}")
        self._skipped.append(turn)
        self._found.facts.setdefault(turn[0], {})[turn[1]] = {"status": status[0]}
        self._found.reasons[turn[0], turn[1]] = status[1]
        return False

    def _wait(self) -> tuple[str, str]:
        """How the process ended: a status and words."""
        size, since, patience = 0, time.monotonic(), self._options.timeout * HARNESS_PATIENCE
        while self._process.poll() is None:
            time.sleep(POLL_SECONDS)
            now = self._file.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
                last = self._file.read_text().rstrip("\n").rsplit("\n", 1)[-1]
                patience = self._options.timeout * (1 if last.startswith('{"turn"') else HARNESS_PATIENCE)
            if time.monotonic() - since > patience:
                self._kill()
                return "timeout", f"no answer for {patience:.0f} s; it was stopped"
        code = self._process.returncode
        if code < 0:
            return "crashed", f"its process was killed by {signal.Signals(-code).name}"
        return "crashed", f"its process ended with exit status {code}"

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the process and remove its files."""
        if self._process.poll() is None:
            self._kill()
        self._folder.cleanup()
