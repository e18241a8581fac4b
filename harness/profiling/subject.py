"""What is profiled: one contender of a case, set up and verified as a contest or a trial would, then called by phases.

Inputs, weights, flushed caches and verification are the contest's own (`contest.py`, `entrant.py`), a trial's steps
those of `trial.py`: what is slow there is slow here. The phases of a trace are a second set-up of the same contender on
the same side, its first call, and then, call by call, what happens between calls and the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import torch

from ..case import Workload
from ..catalog import Catalog
from ..clock import CacheFlush, Clock, Replay, empty_pair_ns
from ..contest import Contest
from ..contract import Cost
from ..entrant import Entrant, Finished
from ..measurement import Turn
from ..registry import Implementation
from ..trial import Runner, Trials

SET_UP, FIRST, BETWEEN, CALL = (f"whalebench: {word}" for word in ("set up", "first call", "between calls", "call"))
Range = Callable[[str], AbstractContextManager[Any]]


class Unprofiled(Exception):
    """It cannot be profiled; `status` is a record's, such as incorrect or oom."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Subject(ABC):
    """A contender that is set up and ready to be called; `note` says what a call is where that is not plain."""

    note = ""

    def __init__(self, device: str, cost: Cost | None) -> None:
        self.device, self.cost = device, cost

    @abstractmethod
    def set_up(self) -> None:
        """From weights to a callable, anew."""

    @abstractmethod
    def first(self) -> None:
        """The first call after `set_up`, and what it takes to repeat it."""

    @abstractmethod
    def between(self) -> None:
        """What happens before each further call."""

    @abstractmethod
    def call(self) -> object:
        """One call as it is measured, or one step of a trial; on a GPU it may return before it is done."""

    def synchronize(self) -> None:
        """Wait until a GPU has done all it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def walk(self, calls: int, mark: Range = lambda name: nullcontext()) -> None:
        """All phases, each marked; every one ends when the device is done."""
        phases: list[tuple[str, Callable[[], object]]] = [(SET_UP, self.set_up), (FIRST, self.first)]
        for name, action in phases + [(BETWEEN, self.between), (CALL, self.call)] * calls:
            with mark(name):
                action()
                self.synchronize()

    def affordable(self, most: int, seconds: float) -> int:
        """How many calls fit in so many seconds with what comes between them, up to `most`; one at least."""
        for _ in range(2):  # the first warms up
            begin = perf_counter()
            self.between()
            self.call()
            self.synchronize()
        whole = max(perf_counter() - begin, 1e-9)
        return max(1, min(most, int(seconds / whole)))


class CallSubject(Subject):
    """A call that is repeated."""

    def __init__(self, entrant: Entrant, flush: Callable[[], None], graph: bool, cost: Cost | None) -> None:
        side = entrant.side
        super().__init__(side.device, cost)
        self._implementation, self._side, self._flush = entrant.implementation, side, flush
        self._graph = graph and side.device == "cuda"
        self.note = "each call replays a CUDA graph, as it is measured: no operator runs" if self._graph else ""
        self._entrant: Entrant | None = entrant
        self._made: Any = None

    def set_up(self) -> None:
        """The implementation's own setup."""
        if self._entrant is not None:
            self._entrant.release()  # or both copies of its state would have to fit
        self._made = self._implementation.setup(self._side.weights, self._side.shape)

    def first(self) -> None:
        """Packing and one call; for a graph its capture too."""
        self._entrant = Entrant(self._implementation, self._side, self._flush, self._graph)
        self._entrant.take(self._made)
        if self._graph:
            self._entrant.call = Replay(self._entrant.call)

    def between(self) -> None:
        """Other inputs, cold caches."""
        self._side.roll()
        self._flush()

    def call(self) -> object:
        """What a contest times."""
        assert self._entrant is not None
        return self._entrant.call()


class TrialSubject(Subject):
    """A trial: a call is a step."""

    note = "each call is one step of the trial, the first ones after it began"

    def __init__(self, runner: Runner, begun: Callable[[], Runner], device: str, cost: Cost | None) -> None:
        super().__init__(device, cost)
        self._runner, self._begun, self._number = runner, begun, 0

    def set_up(self) -> None:
        """Begin the course with its own copy of the weights."""
        self._runner, self._number = self._begun(), 0
        self._runner.set_up()

    def first(self) -> None:
        """The first step."""
        self.call()

    def between(self) -> None:
        """Nothing: a step's caches are as the one before left them."""

    def call(self) -> object:
        """The next step, and what is noted after it."""
        self._runner.step(self._number)
        self._number += 1
        return None


class ProfiledContest(Contest):
    """A contest that ends before it is timed."""

    def subject(self) -> Subject:
        """The first contender. Raises Unprofiled with the status a record would have."""
        self._sides = {}
        self._flush = CacheFlush(self.device)
        self._empty = empty_pair_ns(self._flush) if self.device == "cuda" else None
        ready, _ = self._prepare(self.names, defer=False)
        if not ready:
            raise Unprofiled(*self._failures[self.names[0]])
        return self._subject(ready[0], self.workload.graph)

    def _subject(self, entrant: Entrant, graph: bool) -> CallSubject:
        return CallSubject(entrant, self._flush, graph, self._cost(entrant.implementation.technique))


class Untimed(Entrant):
    """Verified and never timed: counting launches for a clock takes the driver's one subscription to events, which a
    process under Nsight Compute has to leave to it."""

    def make_clock(self, empty_ns: float | None) -> Clock:
        """None that runs; no graph is captured either."""
        return Finished("none", None)


class UntimedContest(ProfiledContest):
    """Contenders of one case on one side, to be called under a tool that counts."""

    def _entrant(self, implementation: Implementation) -> Entrant | None:
        side = self._side(implementation.technique, implementation.contender)
        return None if side is None else Untimed(implementation, side, self._flush, graph=False)

    def subjects(self) -> Iterator[tuple[str, Subject | Unprofiled]]:
        """Each contender, set up when it is asked for and gone with the next, or why there is none."""
        self._sides, self._empty = {}, None
        self._flush = CacheFlush(self.device)
        for name in self.names:
            ready, _ = self._prepare([name], defer=False)
            if ready:
                yield name, self._subject(ready[0], graph=False)
                ready[0].release()
            else:
                yield name, Unprofiled(*self._failures[name])
            self._release()


class ProfiledTrial(Trials):
    """A trial of one contender that ends before its first step."""

    def subject(self) -> Subject:
        """Raises Unprofiled with the status a record would have."""
        self._weights = {}
        ready, _ = self._prepare(self.names, defer=False)
        if not ready:
            raise Unprofiled(*self._failures[self.names[0]])
        implementation = ready[0].implementation

        def begun() -> Runner:
            runner = self._entrant(implementation)
            assert runner is not None
            return runner

        return TrialSubject(ready[0], begun, self.device, self._cost(implementation.technique))


def prepared(
    catalog: Catalog, workload: Workload, names: Sequence[str], ceilings: Mapping[str, Any], root: str, turn: Turn
) -> Subject:
    """The contender `names[0]` of a case, prepared and, but for a trial, verified. Raises Unprofiled."""
    trial = catalog.registry.operations[workload.operation].trial is not None
    kind = ProfiledTrial if trial else ProfiledContest
    return kind(catalog.registry, workload, names, catalog.device, ceilings, root, turn).subject()
