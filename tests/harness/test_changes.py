"""Change points: levels are found where they begin, noise, bursts and gaps are not called changes, lines never join."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.changes import FEW, LEAST, change_points, levels
from harness.record import Run
from harness.store import History, Points
from harness.timeline import Machine, machines
from tests.harness.past import header, record

SD = 0.02


def noise(kind: str, rows: int, runs: int, seed: int = 0) -> np.ndarray:
    """Logarithms [rows, runs] without any change of level."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0, SD, (rows, runs))
    if kind == "heavy tails":
        found = SD * rng.standard_t(3, (rows, runs))
    elif kind == "skewed":
        found = rng.gamma(2, SD / 1.4, (rows, runs))
    elif kind == "spikes":
        found[rng.random((rows, runs)) < 0.01] += 0.5
    elif kind == "correlated":
        for place in range(1, runs):
            found[:, place] += 0.5 * found[:, place - 1]
    elif kind == "gaps":
        found[rng.random((rows, runs)) < 0.3] = np.nan
    return found


KINDS = ("normal", "heavy tails", "skewed", "spikes", "correlated", "gaps")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_no_change(kind: str) -> None:
    """At most one false level, which is two changes, in a hundred series of three hundred runs."""
    found = change_points(noise(kind, 100, 300))
    assert sum(map(len, found)) <= 2


@pytest.mark.parametrize("kind", KINDS)
def test_five_standard_deviations_are_found_within_two_runs_of_where_they_begin(kind: str) -> None:
    logs = noise(kind, 60, 200, seed=1)
    places = np.random.default_rng(2).integers(20, 180, 60)
    signs = np.where(np.arange(60) % 2, 1, -1)
    for row, place in enumerate(places):
        logs[row, place:] += 5 * SD * signs[row]
    found = change_points(logs)
    near = [any(abs(at - place) <= 4 for at in row) for row, place in zip(found, places, strict=True)]
    exact = sum(any(abs(at - place) <= 2 for at in row) for row, place in zip(found, places, strict=True))
    assert sum(near) >= (55 if kind != "correlated" else 45) and exact >= 40


def test_a_level_that_comes_and_goes_is_two_changes() -> None:
    logs = noise("normal", 1, 120)
    logs[0, 40:70] += 0.2
    assert change_points(logs) == [[40, 70]]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("at", [0, 30, 59])
def test_a_burst_shorter_than_a_level_is_none(length: int, at: int) -> None:
    logs = noise("normal", 1, 60)
    start = min(at, 60 - length)
    logs[0, start : start + length] += 0.5
    assert change_points(logs) == [[]]


def test_a_new_level_is_called_after_three_runs_at_the_end() -> None:
    logs = noise("normal", 1, 60)
    logs[0, 57:] += 0.3
    assert change_points(logs) == [[57]] and change_points(logs[:, :59]) == [[]]


def test_steps_below_the_least_are_none_however_clear() -> None:
    logs = noise("normal", 1, 400) / 20
    logs[0, 200:] += 0.015
    assert change_points(logs) == [[]] and change_points(logs, smallest=0.01) == [[200]]


@pytest.mark.parametrize("runs", [0, 1, 2, FEW - 1])
def test_few_runs_are_not_searched(runs: int) -> None:
    logs = np.full((2, runs), 1.0)
    logs[:, runs // 2 :] = 5.0
    assert change_points(logs) == [[], []]


def test_positions_are_columns_whatever_is_missing() -> None:
    logs = noise("normal", 2, 90)
    logs[:, 50:] += 0.3
    logs[0, 5:49:2] = np.nan
    logs[1, :] = np.nan
    assert change_points(logs) == [[50], []]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(LEAST * 2, 30), st.sampled_from([-0.3, 0.2, 0.5])), min_size=1, max_size=5),
       st.floats(-5, 5))  # fmt: skip
def test_without_noise_every_level_is_found_where_it_is(parts: list[tuple[int, float]], offset: float) -> None:
    """And the same for all units: adding a constant to logarithms changes nothing."""
    values = list(itertools.chain.from_iterable([level] * length for length, level in parts))
    truth = [p for p in range(1, len(values)) if values[p] != values[p - 1]]
    logs = np.asarray([values]) + offset
    found = change_points(logs)[0]
    assert found == (truth if len(values) >= FEW else [])
    assert len(levels(logs[0], found)) == len(found) + 1


def stored(tmp_path, runs: list[Run]) -> Points:
    with History(tmp_path / "h.sqlite") as store:
        for run in runs:
            store.add(run)
        return store.points()


def past(tmp_path) -> list[Machine]:
    """Forty runs, every second on another machine that takes three times as long; slower and upgraded after half."""
    runs = []
    for number in range(40):
        machine, late = number % 2, number >= 20
        head = header(number, machine, "2.13.0" if late and not machine else "2.11.0")
        latency = 1e6 * (1 + 2 * machine) * (1.3 if late else 1.0) * (1 + 0.001 * (number % 3))
        runs.append(Run(None, head, (record(0, latency, "b" * 12 if late else "a" * 12),)))  # type: ignore[arg-type]
    return machines(stored(tmp_path, runs))


def test_a_line_stays_on_its_machine(tmp_path) -> None:
    found = past(tmp_path)
    assert len(found) == 2 and [one.latency.shape for one in found] == [(1, 20), (1, 20)]
    assert all(np.nanmax(one.latency) / np.nanmin(one.latency) < 1.4 for one in found)
    assert sorted(np.concatenate([one.places for one in found])) == list(range(40))


def test_a_change_has_commits_toolchain_and_whether_its_file_changed(tmp_path) -> None:
    other, first = past(tmp_path)
    (change,) = first.changes
    assert first.runs[change.place].run == "run-00020-m0" and first.span(change) == ("abc0000012", "abc0000014")
    assert change.tools == "torch 2.11.0 -> 2.13.0" and change.own and change.held
    assert change.ratio == pytest.approx(1.3, abs=0.01)
    assert [words for _, words in first.tools] == ["torch 2.11.0 -> 2.13.0"]
    assert other.changes[0].tools == "" and other.tools == []


def test_a_method_of_its_own_begins_a_line_of_its_own(tmp_path) -> None:
    runs = []
    for number in range(20):
        head = dataclasses.replace(header(number), method="2" if number >= 10 else "1")
        runs.append(Run(None, head, (record(0, 1e6 * (1 + (number >= 10))),)))  # type: ignore[arg-type]
    found = machines(stored(tmp_path, runs))
    assert [one.method for one in found] == ["2", "1"] and not found[0].changes and not found[1].changes


def test_a_change_that_went_back_does_not_hold(tmp_path) -> None:
    runs = [
        Run(None, header(n), (record(0, 1e6 * (1.5 if 10 <= n < 20 else 1) * (1 + 0.001 * (n % 3))),))  # type: ignore[arg-type]
        for n in range(30)
    ]
    (machine,) = machines(stored(tmp_path, runs))
    assert [(c.place, c.held) for c in machine.changes] == [(20, True), (10, False)]
