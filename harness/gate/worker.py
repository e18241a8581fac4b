"""The process in which two revisions alternate: `impls/` of the head and, under other names, copies of the base's.

Speaks the protocol of `harness/worker.py`; the turn says which revision's code runs, 0 the base's and 1 the head's, so
that a crash or a hang has an author. Libraries are loaded once; for each fresh process it is asked for it forks before
any revision is loaded, in an order of its own each time. One thread: what is compared is code, not how a scheduler
spreads it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import torch

from ..case import Workload
from ..catalog import Refused, choose_device, unmet
from ..clock import CacheFlush, Thunk, empty_pair_ns
from ..failure import describe
from ..machine import software
from ..process import end_with_parent
from ..registry import Implementation, Registry, load
from ..worker import Turn, limit_memory
from .bridge import Bridge, Changed
from .options import BASE, HEAD, REVISIONS, GateOptions
from .visit import HARNESS, Copy, Failed, Visit, carried_over

CASES_MODULE = "gate_cases"
LIBRARIES = ("triton", "torch.nn.attention.bias")  # these take seconds to load
RENEW = 75


class GateWorker:
    """Answers the parent's commands: visit, renew; and the steps of a visit one by one, where the other revision has a
    process of its own: open, fill, slot, roll, close."""

    def __init__(self, options: GateOptions, events: Any, turn: Turn) -> None:
        self._options, self._events, self._turn = options, events, turn

    def send(self, event: str, **values: Any) -> None:
        """One line to the parent."""
        self._events.write(json.dumps({"event": event, **values}) + "\n")
        self._events.flush()

    def start(self) -> None:
        """Load both revisions and list the cases, or say what does not load and whose it is."""
        try:
            self._device = choose_device(self._options.device)
        except Refused as refusal:
            self._give_up("request", str(refusal))
        limit_memory(self._device)
        self._registries = self._load()
        package = self._options.package_of
        self._bridges = {arm: Bridge(package("head"), package(arm)) for arm in self._options.copies}
        self._turn(HEAD)
        cases = self._loaded("head", self._cases)
        self._turn(HARNESS)
        self._workloads: dict[tuple[str, str], Workload] = {(w.id, name): w for w, names in cases for name in names}
        self._flush: Thunk = CacheFlush("cuda") if self._device == "cuda" else lambda: None
        self._empty = empty_pair_ns(self._flush) if self._device == "cuda" else None
        gc.collect()
        gc.freeze()
        self.send("cases", device=self._device, software=software(), cases=list(self._listed()))

    def _load(self) -> dict[str, Registry]:
        """Registries by arm. In random order, for where code lies in memory has a part in how fast it is."""
        found = {}
        for arm in random.SystemRandom().sample(list(REVISIONS), len(REVISIONS)):
            self._turn(REVISIONS[arm])
            side = "head" if arm == "head" else "base"
            found[arm] = self._loaded(side, partial(load, self._options.package_of(arm)))
        return found

    def _loaded(self, side: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except BaseException as error:
            traceback.print_exc()
            self._give_up(side, describe(error))

    def _give_up(self, side: str, message: str) -> NoReturn:
        self.send("cases", problem={"side": side, "message": message})
        raise SystemExit(2)

    def _cases(self) -> Any:
        study = self._options.study
        found = importlib.import_module(f"{self._options.benches}.{CASES_MODULE}").cases(self._device)
        return [(workload, names) for workload, names in found if study in (None, workload.study)]

    def _listed(self) -> Iterator[dict[str, Any]]:
        """Case and contender of each; what each revision lacks to run it, None where it lacks nothing."""
        for (case, name), workload in self._workloads.items():
            lacks = {
                "base": self._lack("base", self._bridges["base"], workload, name),
                "head": self._lack("head", lambda shape: shape, workload, name),
            }
            yield {"case": case, "contender": name, **lacks}

    def _lack(self, arm: str, own: Callable[[Any], Any], workload: Workload, name: str) -> str | None:
        found = self._registries[arm].implementations.get(workload.operation, {}).get(name)
        if found is None:
            return f"has no {name} for {workload.operation}"
        try:
            return _unable(found, own(workload.shape), self._device)
        except Changed:
            return None  # a visit says what changed
        except Exception as error:
            return f"asked whether {name} can run, raised {describe(error)}"

    def visit(self, command: dict[str, Any]) -> None:
        """Set up and time one case; answers with the rounds, or whose code failed, or how the contract changed."""
        self._answer(
            lambda: {"rounds": self._made(command).run(command["seconds"], self._flush, self._empty)},
        )

    def open(self, command: dict[str, Any]) -> None:
        """Set up those arms of a case that the command names; answers with the nanoseconds of a typical call."""

        def opened() -> dict[str, Any]:
            self._visit = self._made(command)
            return {"typical": self._visit.open(self._flush, self._empty)}

        self._answer(opened)

    def fill(self, command: dict[str, Any]) -> None:
        """Size the slots of what is open."""
        self._answer(lambda: self._visit.fill(command["typical"]))

    def slot(self, command: dict[str, Any]) -> None:
        """Nanoseconds a call of an arm of what is open: the second of two slots, for before the first another process
        ran, or another arm, and had the caches."""

        def slot() -> dict[str, Any]:
            self._visit.slot(command["arm"])
            return {"ns": self._visit.slot(command["arm"])}

        self._answer(slot)

    def roll(self, command: dict[str, Any]) -> None:
        """Next inputs of what is open."""
        self._answer(lambda: self._visit.roll())

    def close(self, command: dict[str, Any]) -> None:
        """Verify what is open once more."""
        self._answer(lambda: self._visit.close())

    def _made(self, command: dict[str, Any]) -> Visit:
        """The visit that a command describes."""
        workload = self._workloads[command["case"], command["contender"]]
        copies = self._copies(workload, command["contender"])
        seed, names = command.get("seed", random.SystemRandom().randrange(2**31)), command.get("arms", REVISIONS)
        return Visit(workload, copies, command["slowed_by"], self._device, self._turn, seed, names)

    def _answer(self, action: Callable[[], dict[str, Any] | None]) -> None:
        """Send what an action returns, or whose code failed, or how the contract changed."""
        try:
            self.send("visited", **(action() or {}))
        except Changed as changed:
            self.send("visited", changed=str(changed))
        except Failed as failed:
            side = "base" if failed.revision == BASE else "head"
            self.send("visited", failed={"side": side, "status": failed.status, "reason": str(failed)})

    def _copies(self, workload: Workload, contender: str) -> dict[str, Copy]:
        """The code by arm."""
        head = Copy(self._registries["head"], workload, contender, workload.shape)
        bases = {
            arm: carried_over(head, self._registries[arm], bridge, workload) for arm, bridge in self._bridges.items()
        }
        return {**bases, "head": head}

    def serve(self) -> None:
        """Commands until the parent closes the pipe, or asks for a fresh process."""
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "renew":
                os._exit(RENEW)
            try:
                getattr(self, command["do"])(command)
            except Exception as error:
                traceback.print_exc()
                self.send("failed", message=describe(error))
            self._turn(HARNESS)


def _unable(implementation: Implementation, shape: Any, device: str) -> str | None:
    """Why an implementation cannot run a shape here, in words that go on from "it"."""
    missing = [reason for need in implementation.needs if (reason := unmet(need, device))]
    reason = missing[0] if missing else implementation.supports(shape)
    return None if reason is None else f"cannot run it: {reason}"


def preload(options: GateOptions) -> None:
    """Load those of LIBRARIES that the head's sources name."""
    sources = "".join(path.read_text(errors="replace") for path in (options.path / options.package).rglob("*.py"))
    for library in LIBRARIES:
        if library in sources:
            with suppress(Exception):  # whoever needs it will say what is wrong
                importlib.import_module(library)


def run_forked(serve: Callable[[], None]) -> None:
    """Run `serve` in one forked process after another, as long as they ask for the next; then end as the last ended."""
    while True:
        child = os.fork()
        if child == 0:
            end_with_parent()
            try:
                serve()
            except SystemExit as leaving:
                os._exit(int(leaving.code or 0))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            with suppress(OSError):  # SIGKILL has no handler
                signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        if os.WEXITSTATUS(status) != RENEW:
            os._exit(os.WEXITSTATUS(status))


def run(kind: type[GateWorker]) -> None:
    """Entry point of a process that serves as `kind`."""
    end_with_parent()
    options = GateOptions.from_json(sys.argv[1])
    assert isinstance(options, GateOptions)
    events, turn = os.fdopen(int(sys.argv[2]), "w"), Turn(sys.argv[3])
    os.dup2(2, 1)
    sys.path[:0] = [options.root, options.base_path]
    torch.set_num_threads(1)
    preload(options)
    worker = kind(options, events, turn)

    def serve() -> None:
        worker.start()
        worker.serve()

    run_forked(serve)


if __name__ == "__main__":
    run(GateWorker)
