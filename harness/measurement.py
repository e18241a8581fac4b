"""What contests and trials have in common: the contenders of a case, measured in turn, and a record for each.

A contender's code runs between two notes of whose turn it is, so that a crash or a hang is known as its own, and what
it raises costs it alone. Ratios come from rounds in which all took part. Contenders that do not fit in memory together
are measured apart, and their ratio is marked unpaired.
"""

from __future__ import annotations

import gc
import math
import os
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import roofline, statistics, verify
from .ambient import Ambient
from .case import Workload
from .contract import Cost, Operation
from .failure import describe, out_of_memory
from .outcome import outcome
from .record import Figure, Record
from .registry import Implementation, Registry

HARNESS = -1
CONTEXT_LOST = 86
Turn = Callable[[int], None]


class Timed:
    """One contender and what has been measured of it: nanoseconds, the round of each, and one value a round."""

    def __init__(self, implementation: Implementation) -> None:
        self.implementation = implementation
        self.samples: list[float] = []
        self.sample_rounds: list[int] = []
        self.slots: list[float] = []
        self.figures: dict[str, float] = {}
        self.layout: str | None = None

    @property
    def name(self) -> str:
        """`technique/implementation`."""
        return self.implementation.contender

    def add(self, number: int, samples: Sequence[float]) -> None:
        """The samples of a round; their median is the round's value."""
        self.samples += samples
        self.sample_rounds += [number] * len(samples)
        self.slots.append(sorted(samples)[len(samples) // 2])


T = TypeVar("T", bound=Timed)


class Measurement(ABC, Generic[T]):
    """One case and the contenders that take part; `turn(index)` tells whose code runs, -1 the harness's own.

    after   what must be kept of the time for verifying afterwards, over what preparing took
    alone   the share of the time that a contender gets which is measured apart
    """

    after: ClassVar[float]
    alone: ClassVar[float]

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
        self._turn, self._ambient = turn, Ambient(device)
        self._seed = random.SystemRandom().randrange(2**31)
        self._rng = random.Random(self._seed)
        self._failures: dict[str, tuple[str, str]] = {}
        self._finished: dict[str, T] = {}
        self._paired: set[str] = set()
        self._given = self._prepared = 0.0
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self._sample_file = ""

    def run(self, seconds: float, sample_file: str) -> list[Record]:
        """Measure for about `seconds`; returns a record for every contender. Samples end up in `arrays`."""
        self._sample_file, self._given = sample_file, seconds
        begin = time.monotonic()
        together, apart = self._prepare(self.names, defer=True)
        self._prepared = time.monotonic() - begin
        self._measure(together, begin + seconds - self.after * self._prepared)
        self._paired = {entrant.name for entrant in together}
        together.clear()
        for name in apart:
            self._release()
            single, _ = self._prepare([name], defer=False)
            self._measure(single, time.monotonic() + max(self.alone * seconds, 0.5))
        records = [self._record(name) for name in self.names]
        self._finished.clear()
        self._release()
        return records

    @abstractmethod
    def _entrant(self, implementation: Implementation) -> T | None:
        """What will be measured, before any of the contender's code runs; None after noting why it cannot be."""

    @abstractmethod
    def _set_up(self, entrant: T) -> None:
        """Run its setup; raises what it raises."""

    @abstractmethod
    def _measure(self, entrants: list[T], deadline: float) -> None:
        """Measure and verify until about the deadline; those that pass go to `_finished`."""

    def _repair(self, technique: str) -> None:
        """Undo what a failed contender may have done."""
        self._ambient.changed()

    def _prepare(self, names: Sequence[str], defer: bool) -> tuple[list[T], list[str]]:
        """Those that were set up, and those to be measured apart because memory did not suffice for all."""
        ready: list[T] = []
        later: list[str] = []
        for name in names:
            implementation = self.registry.implementations[self.workload.operation][name]
            entrant = self._entrant(implementation)
            if entrant is None:
                continue
            try:
                self._turn(self.names.index(name))
                self._set_up(entrant)
                self._require_ambient()
                ready.append(entrant)
            except BaseException as error:  # exit() and Ctrl-C of a contender's own are its failures too
                if defer and ready and out_of_memory(error):
                    later.append(name)
                    del entrant
                    self._release()
                else:
                    self._fail(name, error)
                self._repair(implementation.technique)
            finally:
                self._turn(HARNESS)
        return ready, later

    def _require_ambient(self) -> None:
        """Raises Incorrect when a contender has changed a setting of the whole process."""
        changed = self._ambient.changed()
        if changed is not None:
            raise verify.Incorrect(f"changed torch's {changed} for everybody; set it back before returning")

    def _fail(self, name: str, error: BaseException) -> None:
        if self.device == "cuda" and not cuda_alive():
            os._exit(CONTEXT_LOST)  # an illegal access poisons the process: the next one starts without this contender
        if isinstance(error, verify.Incorrect):
            self._failures[name] = ("incorrect", str(error))
        elif out_of_memory(error):
            self._failures[name] = ("oom", describe(error))
            self._release()
        else:
            self._failures[name] = ("error", describe(error))

    def _release(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _guarded(self, entrant: T, action: Callable[[], None]) -> None:
        """Run a contender's code; what it raises is its failure."""
        self._turn(self.names.index(entrant.name))
        try:
            action()
            self._require_ambient()
        except BaseException as error:
            self._fail(entrant.name, error)
            self._repair(entrant.implementation.technique)
        finally:
            self._turn(HARNESS)

    def _running(self, entrants: Sequence[T]) -> list[T]:
        """Those that have not failed, in a new random order."""
        found = [entrant for entrant in entrants if entrant.name not in self._failures]
        self._rng.shuffle(found)
        return found

    def _baseline(self, entrants: Mapping[str, T]) -> T | None:
        return next((entrants[name] for name in self.operation.baseline if name in entrants), None)

    def _cost(self, technique: str) -> Cost | None:
        return self.operation.cost(self.workload.shape, technique)

    def _floor(self, entrant: T) -> float | None:
        cost = self._cost(entrant.implementation.technique)
        return None if cost is None else roofline.floor_ns(cost, self.ceilings)

    def _record(self, name: str) -> Record:
        implementation = self.registry.implementations[self.workload.operation][name]
        entrant = self._finished.get(name)
        if entrant is None:
            status, reason = self._failures.get(name, ("error", "it was never measured"))
            return outcome(self.workload, implementation, self.root, status=status, reason=reason)
        baseline = self._baseline(self._finished)
        paired = baseline is not None and name in self._paired and baseline.name in self._paired
        self.arrays |= self._arrays(entrant)
        return outcome(
            self.workload,
            implementation,
            self.root,
            status="passed",
            baseline=baseline.name if baseline else None,
            figures=self._figures(entrant, baseline, paired),
            series=self._series(entrant),
            layout=entrant.layout,
            verification=self._verification(entrant),
            timing={
                **self._timing(entrant),
                "pairing": "paired" if paired else "unpaired",
                "rounds": len(entrant.slots),
                "samples": len(entrant.samples),
                "outliers": statistics.outliers(np.asarray(entrant.samples)),
                "given_s": round(self._given, 2),
                "preparing_s": round(self._prepared, 2),
            },
            samples={"file": self._sample_file, "key": name, "count": len(entrant.samples)},
        )

    @abstractmethod
    def _verification(self, entrant: T) -> dict[str, Any]:
        """What was checked and what came out, for the record."""

    @abstractmethod
    def _timing(self, entrant: T) -> dict[str, Any]:
        """Clock, caches and what stopped it, for the record."""

    def _arrays(self, entrant: T) -> dict[str, NDArray[np.float64]]:
        """Raw numbers [samples] kept beside the record."""
        rounds = np.asarray(entrant.sample_rounds, dtype=np.float64)
        return {entrant.name: np.asarray(entrant.samples), f"{entrant.name}:round": rounds}

    def _series(self, entrant: T) -> dict[str, list[float]]:
        found = self.operation.series(self.workload.shape, entrant.implementation.technique)
        return {name: list(values) for name, values in found.items()}

    def _own(self, entrant: T) -> dict[str, float]:
        """Figures that only this kind of measurement has."""
        return entrant.figures

    def _figures(self, entrant: T, baseline: T | None, paired: bool) -> dict[str, Figure]:
        shape, technique = self.workload.shape, entrant.implementation.technique
        latency = statistics.median_estimate(np.asarray(entrant.slots))
        seconds = latency.value / 1e9
        found = {
            **{name: Figure(value) for name, value in self._own(entrant).items()},
            **{name: Figure(float(value)) for name, value in self.operation.facts(shape, technique).items()},
            "latency": interval(latency),
            "throughput": Figure(self.operation.tokens(shape) / seconds),
        }
        cost, floor = self._cost(technique), self._floor(entrant)
        if cost is not None:
            total = cost.read_bytes + cost.write_bytes
            found |= {"flops": Figure(cost.flops), "bytes": Figure(total)}
            found |= {"flop_rate": Figure(cost.flops / seconds), "byte_rate": Figure(total / seconds)}
        if floor is not None:
            found |= {"floor": Figure(floor), "floor_share": Figure(floor / latency.value)}
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
