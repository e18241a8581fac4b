"""What pages ask of records: cases with their contenders, the best of each technique, cautions, paired ratios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import statistics
from harness.metrics import COMMON, Metric
from harness.record import Figure, Record, Run

STATUS_WORDS = {"oom": "out of memory", "crashed": "crashed", "timeout": "timed out"}
FEW_ROUNDS = 5
OF_MACHINE = ("throttled", "low clock", "measured again")  # cautions that tell of the machine, not of the record


@dataclass(frozen=True)
class Case:
    """One case of a run with all its contenders, in the order they were recorded."""

    id: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """Any record: operation, model, sizes and shape are the same in all."""
        return self.records[0]

    @property
    def passed(self) -> list[Record]:
        """Records with a latency, fastest first."""
        timed = [(r.figures["latency"].value, r.contender, r) for r in self.records if "latency" in r.figures]
        return [record for _, _, record in sorted(timed, key=lambda item: item[:2])]

    @property
    def untimed(self) -> list[Record]:
        """Records that passed but whose latency is missing, then everything that did not pass."""
        return [r for r in self.records if "latency" not in r.figures]

    def best(self, technique: str) -> Record | None:
        """The fastest contender of a technique that passed."""
        return next((r for r in self.passed if r.technique == technique), None)

    @property
    def baseline(self) -> Record | None:
        """What the case's ratios divide by."""
        names = {r.baseline for r in self.records if r.baseline}
        return next((r for r in self.passed if r.contender in names), None)


def cases(run: Run) -> list[Case]:
    """The cases of a run in the order in which they were measured."""
    grouped: dict[str, list[Record]] = {}
    for record in run.records:
        grouped.setdefault(record.case, []).append(record)
    return [Case(name, tuple(found)) for name, found in grouped.items()]


def techniques(found: Iterable[Record]) -> list[str]:
    """Techniques in order of first appearance."""
    return list(dict.fromkeys(record.technique for record in found))


def studies(run: Run) -> list[str]:
    """Studies in order of first appearance."""
    return list(dict.fromkeys(record.study for record in run.records))


def metrics(run: Run) -> Mapping[str, Metric]:
    """Every metric the run declares, over the common ones."""
    return {**COMMON, **run.header.metrics}


def counts(records: Iterable[Record]) -> list[tuple[str, int]]:
    """Statuses and how often, passed first and unavailable last."""
    found = Counter(record.status for record in records)
    order = ["passed", *sorted(set(found) - {"passed", "unavailable"}), "unavailable"]
    return [(status, found[status]) for status in order if found[status]]


def status_words(status: str) -> str:
    """A status as it reads in a sentence."""
    return STATUS_WORDS.get(status, status)


def steps(record: Record) -> tuple[int, int] | None:
    """Steps taken and planned, of a trial; None of anything else."""
    taken, planned = record.timing.get("steps"), record.timing.get("planned")
    return (taken, planned) if isinstance(taken, int) and isinstance(planned, int) else None


def verified(record: Record) -> bool:
    """Whether it passed by comparison with a reference: not a trial, a training or what was counted from loads."""
    return record.status == "passed" and "error" in record.verification


def cautions(record: Record) -> list[tuple[str, str]]:
    """What must be known before a record's numbers are believed: a word and the sentence behind it."""
    timing, found = record.timing, []
    if timing.get("pairing") == "simulated":
        found.append(
            ("simulated", "No ranks ran side by side: computed from loads, or measured one rank after another.")
        )
    if timing.get("suspect"):
        found.append(
            (
                "suspect",
                "It beats 105 % of what the measured ceilings allow: the clock, the cost model or the "
                "ceiling is wrong.",
            )
        )
    if timing.get("clock") == "host-bound":
        found.append(
            ("host-bound", "The host could not keep the GPU's queue full: this is wall time, not device time.")
        )
    if timing.get("pairing") == "unpaired" and "ratio" in record.figures:
        found.append(("unpaired", "It was timed apart from the baseline, so drift of the machine is in its ratio."))
    taken = steps(record)
    if taken and taken[0] < taken[1]:
        found.append(("stopped early", f"The time was up after {taken[0]} of {taken[1]} steps: it ended where it was."))
    found += of_machine(record)
    figure = record.figures.get("latency")
    if figure is not None and figure.low is None:
        found.append(("few rounds", "Too few rounds for an interval."))
    return found


def of_machine(record: Record) -> list[tuple[str, str]]:
    """Cautions that the machine gave while the record was measured; one for each of `OF_MACHINE` at most."""
    window, found = record.telemetry or {}, []
    if throttle := window.get("throttle"):
        words = ", ".join(map(str, throttle))
        found.append(("throttled", f"The GPU lowered its clocks while this was measured: {words}."))
    if low := window.get("low_clock"):
        found.append(("low clock", f"Measured at a lower clock than the rest of the run: {low}."))
    if again := record.timing.get("repeated"):
        found.append(("measured again", f"This is the second measurement; during the first {again}."))
    return found


def round_medians(run: Run, record: Record) -> dict[int, float]:
    """Median nanoseconds of each round of the contest; empty without samples."""
    samples, rounds = run.samples(record), run.rounds(record)
    if samples.size == 0 or samples.shape != rounds.shape:
        return {}
    order = np.argsort(rounds, kind="stable")
    names, starts = np.unique(rounds[order], return_index=True)
    parts = np.split(samples[order], starts[1:])
    if len({part.size for part in parts}) == 1:
        return dict(zip(names.astype(int).tolist(), np.median(np.stack(parts), axis=1).tolist(), strict=True))
    return {int(name): float(np.median(part)) for name, part in zip(names, parts, strict=True)}


def ratio(medians: Callable[[Record], Mapping[int, float]], record: Record, over: Record) -> Figure | None:
    """Latency of one contender over another's in the same case, from the rounds both took part in.

    `medians` gives the median of each round of a record. Without common rounds the two medians are divided and their
    intervals add up.
    """
    top, bottom = record.figures.get("latency"), over.figures.get("latency")
    if top is None or bottom is None or bottom.value <= 0:
        return None
    if record is over:
        return Figure(1.0, 1.0, 1.0)
    if "unpaired" not in (record.timing.get("pairing"), over.timing.get("pairing")):
        mine, other = medians(record), medians(over)
        common = sorted(r for r in set(mine) & set(other) if mine[r] > 0 and other[r] > 0)
        if len(common) >= FEW_ROUNDS:
            estimate = statistics.ratio_estimate(_column(mine, common), _column(other, common))
            return Figure(estimate.value, estimate.low, estimate.high)
    known = None not in (top.low, top.high, bottom.low, bottom.high)
    if not known or not bottom.low:
        return Figure(top.value / bottom.value)
    assert top.low is not None and top.high is not None and bottom.high is not None
    return Figure(top.value / bottom.value, top.low / bottom.high, top.high / bottom.low)


def _column(values: Mapping[int, float], keys: Sequence[int]) -> NDArray[np.float64]:
    return np.asarray([values[key] for key in keys])
