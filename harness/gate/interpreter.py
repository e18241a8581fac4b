"""The process in which Triton's interpreter carries out the working tree's kernels, judged as on a GPU.

Every contender that needs Triton is verified on the tiny FP16 shapes of the benches' gate cases, `kernels()`: the
interpreter takes a second a call and has no BF16. Gluon it does not carry out, so contenders that need it are left out.
Casts to and from FP8 are mended first (`arithmetic.py`). It reads its variable when a kernel is decorated, so this
process is for nothing else. Speaks the protocol of `worker.py`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..binaries import pretended
from ..case import Workload
from ..entrant import Entrant, Side
from ..failure import describe
from ..machine import software
from ..registry import Registry, load
from ..verify import Incorrect
from ..worker import limit_memory
from .arithmetic import mend
from .kernels import GLUON, NEED
from .options import HEAD
from .visit import HARNESS
from .worker import CASES_MODULE, GateWorker, run

SEED = 20


class Interpreter(GateWorker):
    """Answers the parent's command: visit."""

    def start(self) -> None:
        """Load the head and list the contenders that need Triton and can run a case."""
        limit_memory("cpu")
        mend()
        self._turn(HEAD)
        self._head: Registry = self._loaded("head", partial(load, self._options.package))
        found = self._loaded("head", lambda: list(self._interpreted()))
        self._turn(HARNESS)
        self._workloads = {(workload.id, name): workload for workload, name in found}
        cases = [{"case": case, "contender": name} for case, name in self._workloads]
        self.send("cases", device="cpu", software=software(), cases=cases)

    def _interpreted(self) -> Iterator[tuple[Workload, str]]:
        module = importlib.import_module(f"{self._options.benches}.{CASES_MODULE}")
        for workload in getattr(module, "kernels", tuple)():
            if self._options.study in (None, workload.study):
                for name, one in self._head.implementations[workload.operation].items():
                    if NEED in one.needs and GLUON not in one.needs and one.supports(workload.shape) is None:
                        yield workload, name

    def visit(self, command: dict[str, Any]) -> None:
        """Verify one contender on two draws of inputs."""
        workload = self._workloads[command["case"], command["contender"]]
        one = self._head.implementations[workload.operation][command["contender"]]
        operation = self._head.operations[workload.operation]
        reference = self._head.reference(workload.operation, one.technique).setup
        self._turn(HEAD)
        try:
            side = Side(operation, one.technique, reference, workload.shape, "cpu", SEED)
            entrant = Entrant(one, side, lambda: None, graph=False)
            with pretended():
                entrant.take(one.setup(side.weights, side.shape))
                entrant.verify_first()
                entrant.verify_second()
            answer: dict[str, Any] = {"right": True}
        except BaseException as error:
            wrong = isinstance(error, Incorrect)
            reason = str(error) if wrong else describe(error)
            answer = {"failed": {"side": "head", "status": "incorrect" if wrong else "error", "reason": reason}}
        self._turn(HARNESS)
        self.send("visited", **answer)


if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"
    run(Interpreter)
