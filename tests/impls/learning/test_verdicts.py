"""Rewards that raise, return no number or never return cost a response, not the run."""

from __future__ import annotations

import contextlib
import math
import signal
import threading

import pytest

from impls.learning.tasks import Task
from impls.learning.verdicts import Judge

PROBLEMS = Task("addition", 1).draw(3, "a")


def nothing(problem, response):
    return math.nan if response == "bad" else 1.0


def raising(problem, response):
    if response == "bad":
        raise KeyError("no such rule")
    return 1.0


def hanging(problem, response):
    while response == "bad":
        with contextlib.suppress(Exception):
            pass
    return 1.0


def wordy(problem, response):
    return "much" if response == "bad" else 1


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        (nothing, "its reward is nan"),
        (raising, "its reward raised KeyError: 'no such rule'"),
        (hanging, "its reward took more than 0.05 s"),
        (wordy, "its reward raised ValueError"),
    ],
)
def test_a_reward_that_fails_is_named_and_the_others_count(reward, why):
    judge = Judge(reward, seconds=0.05)
    found = judge.rewards(PROBLEMS, ["good", "bad", "good"])
    assert found[0] == found[2] == 1.0 and math.isnan(found[1])
    assert judge.faults.count == 1 and why in judge.faults.first
    assert repr(PROBLEMS[1].prompt) in judge.faults.first and "'bad'" in judge.faults.first


def test_the_first_of_several_is_kept():
    judge = Judge(raising)
    judge.rewards(PROBLEMS, ["bad", "bad", "good"])
    assert judge.faults.count == 2 and repr(PROBLEMS[0].prompt) in judge.faults.first


def test_timers_of_others_are_left_as_they_were():
    before = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 100)
    Judge(nothing).rewards(PROBLEMS, ["good"] * 3)
    assert signal.getsignal(signal.SIGALRM) is before and signal.setitimer(signal.ITIMER_REAL, 0)[0] > 90


def test_outside_the_main_thread_there_is_no_limit_but_all_else():
    found = []
    thread = threading.Thread(target=lambda: found.extend(Judge(raising).rewards(PROBLEMS, ["good", "bad", "good"])))
    thread.start()
    thread.join()
    assert found[0] == 1.0 and math.isnan(found[1])
