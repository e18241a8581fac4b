"""The contest: all contenders of a case, verified, then timed in turn in short slots in random order, round by round.

Whatever disturbs the machine disturbs all of them, so ratios come from rounds, not from separate runs. A contest ends
when every median and every ratio to the baseline is known narrowly enough, or its time is up.
"""

from __future__ import annotations

import gc
import math
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch

from . import memory, roofline, statistics, verify
from .clock import CacheFlush, empty_pair_ns
from .entrant import Entrant, Side
from .failure import describe, out_of_memory
from .measurement import Measurement
from .record import Record
from .registry import Implementation
from .telemetry import energy

NARROW = {"cuda": 0.01, "cpu": 0.05}
FIRST_LOOK = 8
LOOK_FACTOR = 1.5
MIN_ROUNDS = 5
MAX_ROUNDS = 2000
ENERGY_SHARE, ENERGY_SECONDS = 0.3, 1.3  # of the time, and of each contender, what its energy may take


class Contest(Measurement[Entrant]):
    """The contest of one case."""

    after = 0.3
    alone = 0.1

    def run(self, seconds: float, sample_file: str) -> list[Record]:
        """Measure for about `seconds`; returns a record for every contender. Samples end up in `arrays`."""
        self._sides: dict[str, Side] = {}
        self._stopped = "budget"
        self._flush = CacheFlush(self.device)
        self._empty = empty_pair_ns(self._flush) if self.device == "cuda" else None
        self._weighing = self.device == "cuda" and energy.counter() is not None
        records = super().run(seconds, sample_file)
        self._sides.clear()
        self._release()
        return records

    def _entrant(self, implementation: Implementation) -> Entrant | None:
        side = self._side(implementation.technique, implementation.contender)
        return None if side is None else Entrant(implementation, side, self._flush, self.workload.graph)

    def _set_up(self, entrant: Entrant) -> None:
        entrant.prepare(self._empty)

    def _side(self, technique: str, name: str) -> Side | None:
        """The shared side of a technique, or None after noting why it cannot be had."""
        if technique not in self._sides:
            try:
                setup = self.registry.reference(self.workload.operation, technique).setup
                self._require_room(technique)
                self._sides[technique] = Side(
                    self.operation, technique, setup, self.workload.shape, self.device, self._seed
                )
            except KeyError:
                self._failures[name] = ("error", f"technique {technique} has no reference to be verified against")
                return None
            except Exception as error:
                status = "oom" if out_of_memory(error) else "error"
                self._failures[name] = (status, f"the reference of {technique} failed: {describe(error)}")
                self._release()
                return None
        return self._sides[technique]

    def _require_room(self, technique: str) -> None:
        """Raises MemoryError for sizes that cannot fit, before hours go into drawing them."""
        cost, there = self._cost(technique), memory.free_bytes(self.device)
        if cost is not None and there is not None and cost.read_bytes > there:
            needed = cost.read_bytes / 1e9
            raise MemoryError(f"weights and inputs take {needed:,.0f} GB, {there / 1e9:,.0f} GB are free")

    def _repair(self, technique: str) -> None:
        """Undo what a failed contender may have done to settings and shared tensors."""
        super()._repair(technique)
        side = self._sides[technique]
        with suppress(torch.cuda.OutOfMemoryError):
            replaced = side.frame.changed() is not None
            side.frame.mend()
            intact = not replaced and verify.digest(side.weights) == side.weights_digest
            side.use_first()
            if not intact or side.digest() != side.first_digest:
                side.restore()

    def _measure(self, entrants: list[Entrant], deadline: float) -> None:
        gc.collect()
        gc.disable()
        try:
            begin = time.monotonic()
            kept = min(ENERGY_SHARE * (deadline - begin), ENERGY_SECONDS * len(entrants)) if self._weighing else 0.0
            rounds = self._rounds(entrants, 0, deadline - kept)
            if self._any_suspect(entrants):
                self._rounds(entrants, rounds, time.monotonic() + 1.0)
        finally:
            gc.enable()
        for entrant in self._running(entrants) if self._weighing else []:
            if time.monotonic() < deadline:
                self._guarded(entrant, entrant.weigh)
        for entrant in entrants:
            self._guarded(entrant, entrant.verify_second)
            if entrant.name not in self._failures:
                self._finished[entrant.name] = entrant
            self._repair(entrant.implementation.technique)
        for entrant in entrants:
            entrant.release()

    def _rounds(self, entrants: list[Entrant], first: int, deadline: float) -> int:
        look = first + FIRST_LOOK
        number = first
        while number < first + MAX_ROUNDS:
            running = self._running(entrants)
            if not running:
                break
            for side in {id(e.side): e.side for e in running}.values():
                side.roll()
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

    def _any_suspect(self, entrants: list[Entrant]) -> bool:
        return any(self._suspect(e) for e in entrants if e.name not in self._failures and e.slots)

    def _suspect(self, entrant: Entrant) -> bool:
        floor = self._floor(entrant)
        return floor is not None and floor > roofline.SUSPECT_SHARE * float(np.median(entrant.slots))

    def _verification(self, entrant: Entrant) -> dict[str, Any]:
        truth = entrant.side.truth
        return {
            "error": entrant.distance.error,
            "limit": truth.limit,
            "worst": entrant.distance.worst,
            "precision": truth.precision,
            "checked": sorted([*truth.values, *truth.written]),
            "seed": self._seed,
        }

    def _timing(self, entrant: Entrant) -> dict[str, Any]:
        found = {"clock": entrant.clock.name, "caches": "cold", "suspect": self._suspect(entrant)}
        if entrant.weighed is not None:
            weighed = entrant.weighed
            found["energy"] = {"seconds": weighed.seconds, "calls": weighed.calls, "steps": weighed.steps}
        return {**found, "stopped": self._stopped}

    def _own(self, entrant: Entrant) -> dict[str, float]:
        submit = entrant.clock.submit_ns
        found = {**entrant.figures, **entrant.side.quality, "error": entrant.distance.error}
        if "energy" in found:
            found["token_energy"] = found["energy"] / self.operation.tokens(self.workload.shape)
        return found if submit is None else {**found, "submit": submit}
