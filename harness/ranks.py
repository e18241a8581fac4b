"""The parent of several ranks: starts them with torchrun on this host, follows what they report, notices which one died
or hangs, and stops them all.

It knows nothing of what they measure: the program and its words come from outside, events come back as the program
reported them (`rank.py`). torchrun ends the other ranks when one dies; a hang it would not notice, so every rank tells
what it does next, and whether that needs the others: the one that does not wait, or is furthest behind, is at fault.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .rank import LIFE_FORMAT

POLL_SECONDS = 0.05
PATIENCE, STARTING = 22.0, 120.0  # with the seconds that stopping takes, at most 2 + 5, a hang ends within 30 s
ENDING = 5.0  # for torchrun to say how a rank ended, and to end the others
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
FAILURE = re.compile(r"rank\s*: (\d+) \(local_rank.*?exitcode\s*: (-?\d+)", re.DOTALL)


class _Life(NamedTuple):
    """A rank's last sign of life, seen first at `since`."""

    beats: int
    waits: bool
    step: str
    since: float


class RanksLost(Exception):
    """The run ended early. `rank`: whose fault it was, None if unknown; `status`: error, oom, timeout or crashed."""

    def __init__(self, rank: int | None, status: str, message: str) -> None:
        super().__init__(message)
        self.rank, self.status = rank, status


class Ranks:
    """`count` ranks of `program`, the words after torchrun's own: `-m module ...` or a file, and its arguments.

    Events, signs of life and everything the ranks print (`ranks.log`) are in `folder`, which the program must be told.
    A rank without a sign of life for `patience` seconds ends the run.
    """

    def __init__(
        self, program: Sequence[str], count: int, folder: Path, root: Path, patience: float = PATIENCE
    ) -> None:
        self.count, self.folder, self._patience = count, folder, patience
        self.log = folder / "ranks.log"
        folder.mkdir(parents=True, exist_ok=True)
        words = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(count), *program]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words],
                cwd=root,
                env=_environment(root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._begun = time.monotonic()
        self._read = [0] * count
        self._pids: dict[int, int] = {}
        self._errors: dict[int, Mapping[str, Any]] = {}
        self._done: set[int] = set()
        self._life: dict[int, _Life] = {}

    def events(self) -> Iterator[dict[str, Any]]:
        """What the ranks report, as it comes, until all are done. Raises RanksLost when a rank died or hangs."""
        while True:
            ended = self._process.poll() is not None
            yield from self._new()
            if ended or len(self._done) == self.count:
                break
            if self._errors or self._gone():
                break
            self._watch()
            time.sleep(POLL_SECONDS)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=ENDING)
        yield from self._new()
        if len(self._done) < self.count:
            lost = self._lost()  # before the others are stopped, which would look like their own end
            self.close()
            raise lost

    def _new(self) -> Iterator[dict[str, Any]]:
        """Events not seen before, rank by rank; the ranks' own comings and goings are kept here."""
        for rank in range(self.count):
            path = self.folder / f"rank-{rank}.jsonl"
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(self._read[rank])
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[rank] += len(whole)
            for line in whole.splitlines():
                event: dict[str, Any] = json.loads(line)
                if not self._noted(event):
                    yield event

    def _noted(self, event: Mapping[str, Any]) -> bool:
        """Whether the event was about the rank itself."""
        rank = int(event["rank"])
        if event["event"] == "start":
            self._pids[rank] = int(event["pid"])
        elif event["event"] == "error":
            self._errors[rank] = event
        elif event["event"] == "done":
            self._done.add(rank)
        else:
            return False
        return True

    def _gone(self) -> list[int]:
        """Ranks whose process is no more, though they were not done."""
        return [rank for rank, pid in self._pids.items() if rank not in self._done and not _exists(pid)]

    def _watch(self) -> None:
        """Raises RanksLost when the rank furthest behind shows no sign of life."""
        now = time.monotonic()
        missing = [rank for rank in range(self.count) if rank not in self._pids]
        if missing:
            if now - self._begun > STARTING:
                self.close()
                names = ", ".join(map(str, missing))
                raise RanksLost(
                    missing[0], "timeout", f"rank {names} did not start in {STARTING:.0f} s; see {self.log}"
                )
            return
        for rank in self._pids:
            beats, waits, step = self._sign(rank)
            if rank not in self._life or self._life[rank].beats != beats:
                self._life[rank] = _Life(beats, waits, step, now)
        suspects = _suspects({rank: life for rank, life in self._life.items() if rank not in self._done})
        if suspects and all(now - life.since > self._patience for life in suspects.values()):
            self.close()
            raise _hangs(suspects, self.count, self._patience)

    def _sign(self, rank: int) -> tuple[int, bool, str]:
        with suppress(OSError, struct.error):
            beats, waits, step = struct.unpack(LIFE_FORMAT, (self.folder / f"rank-{rank}.life").read_bytes())
            return int(beats), bool(waits), bytes(step).rstrip(b"\0").decode(errors="replace")
        return 0, False, "starting"

    def _lost(self) -> RanksLost:
        """Whose fault it was: a rank killed by a signal, one that ended without a word, else the first that raised.

        The others raise too, for their connection to that rank broke, or were ended by torchrun with SIGTERM.
        """
        codes = {int(rank): int(code) for rank, code in FAILURE.findall(self.log.read_text(errors="replace"))}
        stopped = {rank for rank, code in codes.items() if code == -signal.SIGTERM}
        silent = {r: code for r, code in codes.items() if r not in self._errors and r not in stopped}
        for rank, code in sorted(silent.items(), key=lambda item: item[1]):
            return RanksLost(rank, "crashed", f"rank {rank} {_ending(code)}")
        for rank in self._gone():
            if rank not in self._errors and not (self._errors and rank in stopped):
                return RanksLost(rank, "crashed", f"rank {rank} ended without a word; see {self.log}")
        if self._errors:
            rank, error = min(self._errors.items(), key=lambda item: float(item[1]["when"]))
            return RanksLost(rank, "oom" if error["oom"] else "error", f"rank {rank} raised {error['message']}")
        return RanksLost(None, "crashed", f"torchrun ended with status {self._process.returncode}; see {self.log}")

    def close(self) -> None:
        """Stop the ranks and torchrun; does nothing after they ended."""
        status = self._process.poll()
        if status is not None and status >= 0:
            return
        for rank, pid in self._pids.items():
            if rank not in self._done:
                _kill(pid)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)  # torchrun cleans up after itself
        if self._process.poll() is None:
            _kill(self._process.pid)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=ENDING)


def _suspects(lives: Mapping[int, _Life]) -> dict[int, _Life]:
    """Ranks that others may be waiting for: those that wait for nobody, or if all wait, those furthest behind."""
    busy = {rank: life for rank, life in lives.items() if not life.waits}
    least = min((life.beats for life in lives.values()), default=0)
    return busy or {rank: life for rank, life in lives.items() if life.beats == least}


def _hangs(suspects: Mapping[int, _Life], count: int, patience: float) -> RanksLost:
    first, names = min(suspects), ", ".join(str(rank) for rank in sorted(suspects))
    who = f"rank {names}" if len(suspects) == 1 else f"ranks {names}"
    rest = "; the others waited for it" if len(suspects) == 1 < count else ""
    message = f"{who} showed no sign of life for {patience:.0f} s in {suspects[first].step}{rest}; the run was stopped"
    return RanksLost(first, "timeout", message)


def _ending(code: int) -> str:
    """How a process with this exit code ended."""
    if code >= 0:
        return f"ended with exit status {code} without saying why"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + ("; the kernel sends it when memory runs out" if name == "SIGKILL" else "")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _kill(pid: int) -> None:
    """Kill a process with the group it leads, if it leads one."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _environment(root: Path) -> dict[str, str]:
    """One thread a rank, connections over the loopback device only, and the checkout importable."""
    path = os.pathsep.join(filter(None, [str(root.resolve()), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
        "PYTHONPATH": path,
    }
