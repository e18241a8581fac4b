"""The contest: all contenders of a case, verified, then timed in turn in short slots in random order, round by round.

Whatever disturbs the machine disturbs all of them, so ratios come from rounds, not from separate runs. A contest ends
when every median and every ratio to the baseline is known narrowly enough, or its time is up. Contenders that do not
fit in memory together are timed apart, and their ratio is marked unpaired.
"""

from __future__ import annotations

import gc
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import memory, roofline, statistics, verify
from .case import Workload
from .clock import CacheFlush, empty_pair_ns
from .contract import Operation
from .entrant import Entrant, Side
from .outcome import outcome
from .record import Figure, Record
from .registry import Registry

NARROW = {"cuda": 0.01, "cpu": 0.05}
FIRST_LOOK = 8
LOOK_FACTOR = 1.5
MIN_ROUNDS = 5
SECOND_SHARE = 0.3  # the second verification, after timing, over what preparing took
MAX_ROUNDS = 2000
HARNESS = -1
CONTEXT_LOST = 86
Turn = Callable[[int], None]


class Contest:
    """One case and the contenders that take part; `turn(index)` tells whose code runs, -1 the harness's own."""

    def __init__(
        self,
        registry: Registry,
        workload: Workload,
        names: Sequence[str],
        device: str,
        ceilings: Mapping[str, Any],
        root: str,
        turn: Turn,
    ) -> None:
        self.registry, self.workload, self.device, self.ceilings, self.root = registry, workload, device, ceilings, root
        self.operation: Operation = registry.operations[workload.operation]
        self.names = list(names)
        self._turn = turn
        self._seed = random.SystemRandom().randrange(2**31)
        self._rng = random.Random(self._seed)
        self._sides: dict[str, Side] = {}
        self._failures: dict[str, tuple[str, str]] = {}
        self._finished: dict[str, Entrant] = {}
        self._paired: set[str] = set()
        self._stopped = "budget"
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self._sample_file = ""

    def run(self, seconds: float, sample_file: str) -> list[Record]:
        """Measure for about `seconds`; returns a record for every contender. Samples end up in `arrays`."""
        self._sample_file = sample_file
        begin = time.monotonic()
        flush = CacheFlush(self.device)
        empty = empty_pair_ns(flush) if self.device == "cuda" else None
        together, apart = self._prepare(self.names, flush, empty, defer=True)
        again = SECOND_SHARE * (time.monotonic() - begin)
        self._time(together, begin + seconds - again)
        self._paired = {entrant.name for entrant in together}
        together.clear()
        for name in apart:
            self._release()
            alone, _ = self._prepare([name], flush, empty, defer=False)
            self._time(alone, time.monotonic() + max(0.1 * seconds, 0.5))
        records = [self._record(name) for name in self.names]
        self._finished.clear()
        self._sides.clear()
        self._release()
        return records

    def _prepare(
        self, names: Sequence[str], flush: CacheFlush, empty: float | None, defer: bool
    ) -> tuple[list[Entrant], list[str]]:
        ready: list[Entrant] = []
        later: list[str] = []
        for name in names:
            implementation = self.registry.implementations[self.workload.operation][name]
            side = self._side(implementation.technique, name)
            if side is None:
                continue
            entrant = Entrant(implementation, side, flush, self.workload.graph)
            try:
                self._turn(self.names.index(name))
                entrant.prepare(empty)
                ready.append(entrant)
            except Exception as error:
                if defer and ready and memory.out_of_memory(error):
                    later.append(name)
                    del entrant
                    self._release()
                else:
                    self._fail(name, error)
                self._repair(side)
            except SystemExit as error:
                self._failures[name] = ("error", f"called exit({error.code})")
            finally:
                self._turn(HARNESS)
        return ready, later

    def _side(self, technique: str, name: str) -> Side | None:
        """The shared side of a technique, or None after noting why it cannot be had."""
        if technique not in self._sides:
            try:
                setup = self.registry.reference(self.workload.operation, technique).setup
                self._sides[technique] = Side(
                    self.operation, technique, setup, self.workload.shape, self.device, self._seed
                )
            except KeyError:
                self._failures[name] = ("error", f"technique {technique} has no reference to be verified against")
                return None
            except Exception as error:
                status = "oom" if memory.out_of_memory(error) else "error"
                self._failures[name] = (status, f"the reference of {technique} failed: {describe(error)}")
                self._release()
                return None
        return self._sides[technique]

    def _repair(self, side: Side) -> None:
        """Undo what a failed contender may have done to shared tensors."""
        with suppress(torch.cuda.OutOfMemoryError):
            intact = verify.digest(side.weights) == side.weights_digest
            side.use_first()
            if not intact or side.digest() != side.first_digest:
                side.restore()

    def _fail(self, name: str, error: BaseException) -> None:
        if self.device == "cuda" and not cuda_alive():
            os._exit(CONTEXT_LOST)  # an illegal access poisons the process: the next one starts without this contender
        if isinstance(error, verify.Incorrect):
            self._failures[name] = ("incorrect", str(error))
        elif memory.out_of_memory(error):
            self._failures[name] = ("oom", describe(error))
            self._release()
        else:
            self._failures[name] = ("error", describe(error))

    def _release(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _time(self, entrants: list[Entrant], deadline: float) -> None:
        gc.collect()
        gc.disable()
        try:
            rounds = self._rounds(entrants, 0, deadline)
            if self._any_suspect(entrants):
                self._rounds(entrants, rounds, time.monotonic() + 1.0)
        finally:
            gc.enable()
        for entrant in entrants:
            self._guarded(entrant, entrant.verify_second)
            if entrant.name not in self._failures:
                self._finished[entrant.name] = entrant
            self._repair(entrant.side)
        for entrant in entrants:
            entrant.release()

    def _rounds(self, entrants: list[Entrant], first: int, deadline: float) -> int:
        look = first + FIRST_LOOK
        number = first
        while number < first + MAX_ROUNDS:
            running = [e for e in entrants if e.name not in self._failures]
            if not running:
                break
            for side in {id(e.side): e.side for e in running}.values():
                side.roll()
            self._rng.shuffle(running)
            for entrant in running:
                self._guarded(entrant, partial(entrant.slot, number))
            number += 1
            if number >= look:
                look = math.ceil(number * LOOK_FACTOR)
                if self._narrow(running):
                    self._stopped = "narrow"
                    break
            if time.monotonic() > deadline and number - first >= MIN_ROUNDS:
                break
        return number

    def _guarded(self, entrant: Entrant, action: Callable[[], None]) -> None:
        self._turn(self.names.index(entrant.name))
        try:
            action()
        except Exception as error:
            self._fail(entrant.name, error)
        finally:
            self._turn(HARNESS)

    def _narrow(self, entrants: list[Entrant]) -> bool:
        limit = NARROW[self.device]
        passing = [e for e in entrants if e.name not in self._failures]
        baseline = self._baseline({e.name: e for e in passing})
        for entrant in passing:
            if statistics.median_estimate(np.asarray(entrant.slots)).half_width > limit:
                return False
            if baseline is not None and baseline is not entrant:
                ratio = statistics.ratio_estimate(np.asarray(entrant.slots), np.asarray(baseline.slots))
                if ratio.half_width > limit:
                    return False
        return True

    def _baseline(self, entrants: Mapping[str, Entrant]) -> Entrant | None:
        return next((entrants[name] for name in self.operation.baseline if name in entrants), None)

    def _any_suspect(self, entrants: list[Entrant]) -> bool:
        return any(self._suspect(e) for e in entrants if e.name not in self._failures and e.slots)

    def _suspect(self, entrant: Entrant) -> bool:
        floor = self._floor(entrant)
        return floor is not None and floor > roofline.SUSPECT_SHARE * float(np.median(entrant.slots))

    def _floor(self, entrant: Entrant) -> float | None:
        cost = self.operation.cost(self.workload.shape, entrant.implementation.technique)
        return roofline.floor_ns(cost, self.ceilings)

    def _record(self, name: str) -> Record:
        implementation = self.registry.implementations[self.workload.operation][name]
        entrant = self._finished.get(name)
        baseline = self._baseline(self._finished)
        if entrant is None:
            status, reason = self._failures.get(name, ("error", "it was never measured"))
            return outcome(self.workload, implementation, self.root, status=status, reason=reason)
        paired = baseline is not None and name in self._paired and baseline.name in self._paired
        figures = self._figures(entrant, baseline, paired)
        self.arrays[name] = np.asarray(entrant.samples)
        self.arrays[f"{name}:round"] = np.asarray(entrant.sample_rounds, dtype=np.float64)
        truth = entrant.side.truth
        return outcome(
            self.workload,
            implementation,
            self.root,
            status="passed",
            baseline=baseline.name if baseline else None,
            figures=figures,
            layout=entrant.layout,
            verification={
                "error": entrant.distance.error,
                "limit": truth.limit,
                "worst": entrant.distance.worst,
                "precision": truth.precision,
                "checked": sorted([*truth.values, *truth.written]),
                "seed": self._seed,
            },
            timing={
                "clock": entrant.clock.name,
                "caches": "cold",
                "pairing": "paired" if paired else "unpaired",
                "rounds": len(entrant.slots),
                "samples": len(entrant.samples),
                "outliers": statistics.outliers(np.asarray(entrant.samples)),
                "suspect": self._suspect(entrant),
                "stopped": self._stopped,
            },
            samples={"file": self._sample_file, "key": name, "count": len(entrant.samples)},
        )

    def _figures(self, entrant: Entrant, baseline: Entrant | None, paired: bool) -> dict[str, Figure]:
        shape, technique = self.workload.shape, entrant.implementation.technique
        latency = statistics.median_estimate(np.asarray(entrant.slots))
        cost = self.operation.cost(shape, technique)
        seconds = latency.value / 1e9
        total = cost.read_bytes + cost.write_bytes
        found = {
            **{name: Figure(value) for name, value in entrant.figures.items()},
            **{name: Figure(value) for name, value in entrant.side.quality.items()},
            **{name: Figure(float(value)) for name, value in self.operation.facts(shape, technique).items()},
            "latency": interval(latency),
            "throughput": Figure(self.operation.tokens(shape) / seconds),
            "flops": Figure(cost.flops),
            "bytes": Figure(total),
            "flop_rate": Figure(cost.flops / seconds),
            "byte_rate": Figure(total / seconds),
            "error": Figure(entrant.distance.error),
        }
        floor = self._floor(entrant)
        if floor is not None:
            found["floor"] = Figure(floor)
            found["floor_share"] = Figure(floor / latency.value)
        if entrant.clock.submit_ns is not None:
            found["submit"] = Figure(entrant.clock.submit_ns)
        if baseline is not None:
            estimate = statistics.ratio_estimate if paired else statistics.unpaired_ratio_estimate
            found["ratio"] = interval(estimate(np.asarray(entrant.slots), np.asarray(baseline.slots)))
        return found


def interval(estimate: statistics.Estimate) -> Figure:
    """An estimate as a figure; an unknown interval is left out, not infinite."""
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    return Figure(estimate.value, estimate.low if known else None, estimate.high if known else None)


def cuda_alive() -> bool:
    """Whether this process can still use the GPU; an illegal memory access makes every later call fail."""
    try:
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True


def describe(error: BaseException) -> str:
    """Type and first line of an exception, without a traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
