"""The budget: what is left is shared among the cases that have not been measured, however often one is asked for."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import Case, Catalog, Contender
from harness.options import Options
from harness.record import Record, load_lanes
from harness.session import Session

NAMES = ("plain/reference", "plain/other", "plain/third")
CASES = tuple(f"toy.product/square/n{n}" for n in range(5))


def record(case: str, name: str) -> dict[str, Any]:
    technique, implementation = name.split("/")
    return dataclasses.asdict(
        Record(
            case,
            "toy",
            "toy.product",
            "square",
            "n",
            {},
            technique,
            implementation,
            "optimized",
            "error",
            "none",
            timing={"rounds": 1} if implementation != "third" else {},
        )
    )


class Instant:
    """A worker that measures nothing in no time, and remembers how long it was given for each case."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def ask(self, do: str, case: str = "", contenders: Any = (), seconds: float = 0.0, **rest: Any) -> dict[str, Any]:
        if do == "machine":
            return {"machine": {}, "ceilings": {}, "metrics": {}}
        self.seconds[case] = seconds
        return {"records": [record(case, name) for name in contenders]}

    def kill(self) -> None:
        pass


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    def start(self: Session) -> Catalog:
        self._worker = Instant()  # type: ignore[assignment]
        able = tuple(Contender(name, "plain", "optimized", None, False) for name in NAMES)
        return Catalog("cpu", "cpu", [Case(c, "toy", "toy.product", NAMES[:1], able) for c in CASES], [])

    monkeypatch.setattr(Session, "_start", start)
    return Session(Options(root=str(tmp_path), budget=100.0), tmp_path / "runs")


def test_each_case_gets_its_share_though_every_node_asks_for_it(session):
    session.expect(CASES)
    for case in CASES:
        for _ in NAMES:  # pytest has a node a contender
            assert set(session.measure(case, NAMES)) == set(NAMES)
    given = session.worker.seconds
    for number, case in enumerate(CASES):
        assert given[case] == pytest.approx(100 / (len(CASES) - number), rel=0.02)


def test_cases_of_a_resumed_run_leave_their_share_to_the_others(session):
    for case in CASES[:3]:
        session.measure(case, NAMES)
    session.expect(CASES)
    for case in CASES:
        session.measure(case, NAMES)
    assert session.worker.seconds[CASES[3]] == pytest.approx(50, rel=0.02)
    assert session.worker.seconds[CASES[4]] == pytest.approx(100, rel=0.02)


class Clocked:
    """A sampler that saw these clocks, one a contest."""

    def __init__(self, *clocks: float) -> None:
        self.clocks = list(clocks)

    def start(self) -> None:
        pass

    stop = look = start

    def summary(self, begin: float, end: float) -> dict[str, Any]:
        return {"sm_clock_mhz": {"median": self.clocks.pop(0)}, "throttle": []}

    def lanes(self, begin: float, end: float) -> dict[str, Any]:
        return {"gpus": [{"seconds": [0.0], "sm_clock_mhz": [self.clocks[0]]}], "host": {}}


def test_a_case_at_a_low_clock_is_measured_again(session):
    session._sampler = Clocked(1600, 1610, 1590, 1400, 1605, 1200, 1210)
    found = {case: session.measure(case, NAMES) for case in CASES}
    again = found[CASES[3]]["plain/other"]
    assert again.timing["repeated"].startswith("the SM clock was 1,400 MHz, 12% below")
    assert again.telemetry == {"sm_clock_mhz": {"median": 1605}, "throttle": []}
    assert found[CASES[3]]["plain/third"].timing == {}  # what was not measured was not measured again
    low = found[CASES[4]]["plain/other"]
    assert "1,200 MHz" in low.timing["repeated"] and "1,210 MHz" in low.telemetry["low_clock"]
    assert "repeated" not in found[CASES[2]]["plain/other"].timing
    assert load_lanes(session.folder, CASES[4])["gpus"][0]["sm_clock_mhz"] == [1210]


def test_without_time_left_a_low_clock_is_told_and_kept(session):
    session._sampler = Clocked(1600, 1600, 1600, 1400)
    for case in CASES[:3]:
        session.measure(case, NAMES)
    ask = session.worker.ask

    def slow(**words: Any) -> dict[str, Any]:
        session.budget = 0.0
        return ask(**words)

    session.worker.ask = slow
    kept = session.measure(CASES[3], NAMES)["plain/other"]
    assert "1,400 MHz" in kept.telemetry["low_clock"] and "repeated" not in kept.timing
