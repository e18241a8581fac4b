"""The parent's end of the worker process: start it, ask it, notice when it dies or hangs, and say whose turn it was."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .options import Options

POLL_SECONDS = 0.2
HARNESS_PATIENCE = 5
TURN_FORMAT = "<qq"
PR_SET_PDEATHSIG = 1


class WorkerLost(Exception):
    """The worker died or was stopped. `index`: whose code ran, -1 for the harness's; `status`: timeout or crashed."""

    def __init__(self, index: int, status: str, message: str) -> None:
        super().__init__(message)
        self.index, self.status = index, status


class WorkerRefused(Exception):
    """The worker could not do what the user asked for; the message says why."""


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends in any way, so that none goes on unwatched (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_like_ctrl_c() -> None:
    """Let a terminated run end as an interrupted one does: worker stopped, and told how to go on."""
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) is not signal.SIG_IGN:  # nohup asked to go on
                signal.signal(name, signal.default_int_handler)


class WorkerProcess:
    """One worker; `log` collects what implementations print, `python` is the interpreter, by default this one."""

    def __init__(self, options: Options, log: Path, module: str = "harness.worker", python: str = "") -> None:
        self._timeout = options.timeout
        read, write = os.pipe()
        self._turn_file = tempfile.NamedTemporaryFile(prefix="whalebench-turn-")  # noqa: SIM115 - lives as long as this
        self._turn_file.write(struct.pack(TURN_FORMAT, 0, -1))
        self._turn_file.flush()
        self._turn = mmap.mmap(self._turn_file.fileno(), struct.calcsize(TURN_FORMAT))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", module, options.to_json(), str(write), self._turn_file.name],
                cwd=options.root,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[write],
                start_new_session=True,
                text=True,
            )
        os.close(write)
        self._events = os.fdopen(read, "rb", buffering=0)
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises WorkerLost, or RuntimeError for a failure in the harness."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._lost() from None
        answer = self.wait()
        if answer["event"] == "failed":
            raise RuntimeError(str(answer["message"]))
        return answer

    def wait(self) -> dict[str, Any]:
        """The next event. Raises WorkerLost when the process ends or shows no sign of life for the timeout."""
        seen, since = self._state(), time.monotonic()
        while b"\n" not in self._buffer:
            if self._selector.select(POLL_SECONDS):
                chunk = os.read(self._events.fileno(), 1 << 16)
                if not chunk:
                    raise self._lost()
                self._buffer += chunk
                continue
            now = self._state()
            if now != seen:
                seen, since = now, time.monotonic()
            patience = self._timeout * (HARNESS_PATIENCE if now[1] < 0 else 1)
            if time.monotonic() - since > patience:
                self.kill()
                raise WorkerLost(now[1], "timeout", f"no answer for {patience:.0f} s; it was stopped")
        line, self._buffer = self._buffer.split(b"\n", 1)
        self._turn_file.close()  # the worker has opened it; the memory stays
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "refused":
            self.kill()
            raise WorkerRefused(event["message"])
        return event

    def _state(self) -> tuple[int, int]:
        count, index = struct.unpack(TURN_FORMAT, self._turn[:])
        return count, index

    def _lost(self) -> WorkerLost:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = "; the kernel sends it when memory runs out" if name == "SIGKILL" else ""
            message = f"its process was killed by {name}{hint}"
        elif code == 86:
            message = "it left the GPU unusable for its process (an illegal memory access)"
        else:
            message = f"its process ended with exit status {code}"
        return WorkerLost(self._state()[1], "crashed", message)

    def kill(self) -> None:
        """Stop the worker and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        with suppress(OSError):
            self._events.close()
