"""Several ranks under one parent: what they report, and whose fault it is when one raises, dies, hangs or is late."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness.ranks import Ranks, RanksLost

ROOT = Path(__file__).parents[2]
PROGRAM = """
import ctypes, os, signal, sys, time
from pathlib import Path
from harness.rank import Phase, run

def program(rank):
    bad = rank.number == 1
    rank.report("hello", agreed=rank.from_first(40 + rank.number), everyone=rank.all_true(not bad))
{body}
    rank.report("late")

run(program, Path(sys.argv[1]), "cpu")
"""


@pytest.fixture
def ranks(tmp_path):
    """Starts ranks whose program has `body` in it; whatever is left of them is stopped after the test."""
    started: list[Ranks] = []

    def start(body: str, count: int = 2, patience: float = 20.0) -> Ranks:
        file = tmp_path / "program.py"
        file.write_text(PROGRAM.format(body="\n".join("    " + line for line in body.strip().splitlines())))
        started.append(Ranks([str(file), str(tmp_path / "out")], count, tmp_path / "out", ROOT, patience))
        return started[-1]

    yield start
    for one in started:
        one.close()


def lost(ranks: Ranks) -> tuple[list[dict], RanksLost, float]:
    """Events before the end, the end, and the seconds between the last event and it."""
    events, last = [], time.monotonic()
    with pytest.raises(RanksLost) as caught:
        for event in ranks.events():
            events.append(event)
            last = time.monotonic()
    assert [event["rank"] for event in events if event["event"] == "hello"].count(0) == 1
    assert not any(event["event"] == "late" for event in events)
    took = time.monotonic() - last
    for pid in ranks._pids.values():
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"process {pid} is still there")
    return events, caught.value, took


TIMED = """
calls = []
def step(name, seconds=0.0):
    def call(state):
        calls.append((name, state))
        time.sleep(seconds)
        return len(calls)
    return Phase(name, call, exchange=name == "swap")
rank.report("barrier", ns=rank.barrier_ns())
result, times = rank.timed([step("own", 0.5 * rank.number), step("swap", 0.05), step("rest")], 0)
rank.report("times", result=result, calls=calls, **times)
"""


def test_phases_are_timed_and_the_wait_for_a_late_rank_is_told_apart(ranks):
    found = {}
    for event in ranks(TIMED).events():
        found[event["rank"], event["event"]] = event
    assert set(found) == {(rank, name) for rank in (0, 1) for name in ("hello", "barrier", "times", "late")}
    for rank in (0, 1):
        assert found[rank, "hello"]["agreed"] == 40 and found[rank, "hello"]["everyone"] is False
        times = found[rank, "times"]
        assert times["result"] == 3 and times["calls"] == [["own", 0], ["swap", 1], ["rest", 2]]
        parts = sum(times[name] for name in ("own", "swap", "rest", "waiting"))
        assert parts == pytest.approx(times["total"])
        assert times["swap"] >= 0.05e9 and found[rank, "barrier"]["ns"] > 0
    late, early = found[1, "times"], found[0, "times"]
    assert late["own"] >= 0.5e9 and early["waiting"] > late["waiting"]


def test_a_rank_that_raises_is_named_with_what_it_raised(ranks):
    events, end, _ = lost(ranks("if bad: raise ValueError('planted\\nsecond line')\nrank.barrier()", count=3))
    assert (end.rank, end.status) == (1, "error")
    assert str(end) == "rank 1 raised ValueError: planted"
    assert len(events) == 3


def test_a_rank_that_torchrun_ends_because_another_raised_is_not_named(ranks):
    body = """
if bad:
    time.sleep(0.5)
    raise ValueError("not like this")
time.sleep(600)
"""
    _, end, _ = lost(ranks(body))
    assert (end.rank, end.status) == (1, "error") and "ValueError: not like this" in str(end)


def test_a_rank_that_is_killed_is_named_with_the_signal(ranks):
    _, end, took = lost(ranks("if bad: os.kill(os.getpid(), signal.SIGKILL)\nrank.barrier()"))
    assert (end.rank, end.status) == (1, "crashed")
    assert str(end).startswith("rank 1 was killed by SIGKILL")
    assert took < 30


def test_a_rank_that_leaves_is_named_with_its_exit_status(ranks):
    _, end, _ = lost(ranks("if bad: os._exit(3)\nrank.barrier()"))
    assert (end.rank, end.status) == (1, "crashed")
    assert str(end) == "rank 1 ended with exit status 3 without saying why"


def test_a_rank_that_hangs_ends_the_run_and_is_named_with_its_step(ranks):
    body = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if bad:
    rank.alive('a step of its own')  # further on than the others, and yet at fault
    rank.alive('thinking')
    time.sleep(600)
rank.timed([Phase('swap', lambda state: state, exchange=True)], None)
"""
    _, end, took = lost(ranks(body, count=3, patience=2.0))
    assert (end.rank, end.status) == (1, "timeout")
    assert "rank 1 showed no sign of life for 2 s in thinking; the others waited for it" in str(end)
    assert took < 30


def test_a_dead_rank_beside_one_that_does_not_end_is_still_named(ranks):
    body = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif bad: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)"
    )
    _, end, took = lost(ranks(body, patience=60.0))
    assert (end.rank, end.status) == (1, "crashed") and took < 30


def test_a_program_that_is_not_there_is_no_rank_s_fault(tmp_path):
    ranks = Ranks(["-m", "no_such_program"], 2, tmp_path, ROOT)
    with pytest.raises(RanksLost) as caught:
        list(ranks.events())
    assert "without saying why" in str(caught.value) or "torchrun ended" in str(caught.value)


def test_stopping_the_run_stops_every_rank(ranks):
    started = ranks("time.sleep(600)", patience=60.0)
    for event in started.events():
        if event["rank"] == 1:
            break
    pids = dict(started._pids)
    assert len(pids) == 2
    started.close()
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
