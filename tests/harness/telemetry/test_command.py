"""The command that measures what telemetry costs: whole on the toy, and what its figures are called."""

from __future__ import annotations

import json
import random

import pytest

from harness.telemetry import __main__ as command
from harness.telemetry.sampler import Sampler


def test_the_cost_is_measured_on_a_cpu(checkout):
    words = ("-m", "harness.telemetry", "--device", "cpu", "--tier", "smoke", "--seconds", "1", "--out", "found.json")
    done = checkout.python(*words)
    (row,) = json.loads((checkout.folder / "found.json").read_text())
    assert done.returncode in (0, 1, 3), done.stderr  # which, is the machine's affair
    assert row["cost"]["pairs"] >= command.LEAST_PAIRS and row["cost"]["low"] <= row["cost"]["ratio"]
    assert row["energies"] == [] and "no GPU" in done.stdout
    assert row["contender"].split("/")[1] != "reference"  # ours before the specification


def test_a_case_that_is_not_there_is_refused(checkout):
    done = checkout.python("-m", "harness.telemetry", "--device", "cpu", "--tier", "smoke", "--case", "toy.scal")
    assert done.returncode == 2 and "did you mean" in done.stderr and "Traceback" not in done.stderr
    assert "above 0" in checkout.python("-m", "harness.telemetry", "--seconds", "nan").stderr


class Worker:
    """Answers with times that a sampler makes longer by a share."""

    def __init__(self, share):
        self.share, self.rng, self.sampled = share, random.Random(3), []

    def ask(self, **words):
        noise = 1 + self.rng.uniform(-0.001, 0.001)
        return {"latency_ns": 1000 * noise * (1 + self.share if self.sampled[-1] else 1)}


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (0.003, True), (0.02, False)])
def test_what_sampling_costs_is_found(share, told):
    worker = Worker(share)
    worker.sampled = [False]

    class Sampling(Sampler):
        def start(self):
            worker.sampled.append(True)

        def stop(self):
            worker.sampled.append(False)

    found = command.cost(worker, Sampling(gpus=False), 0.3, random.Random(1))
    assert found["ratio"] == pytest.approx(1 + share, abs=0.0005) and command.cheap(found) is told


def test_an_interval_over_the_limit_tells_nothing():
    assert command.cheap({"low": 0.999, "high": 1.006}) is None and command.cheap({"low": 0.99, "high": 1.0}) is None
    assert command.cheap({"low": 0.98, "high": 0.99}) is False  # faster by that much is no more to be believed


def row(ratio=1.0, joules=(1.0, 1.02), device="cuda"):
    cost = {"pairs": 9, "ratio": ratio, "low": ratio - 0.001, "high": ratio + 0.001}
    energies = [{"joules": one, "seconds": 1.0, "calls": 5, "steps": 10} for one in joules]
    return {"case": "a.b", "contender": "t/c", "device": device, "latency_ns": 5.0, "cost": cost, "energies": energies}


def test_the_exit_status_says_whether_both_hold():
    assert command.verdict([row(), row(joules=(), device="cpu")]) == 0
    assert command.verdict([row(ratio=1.02)]) == 1 and command.verdict([row(joules=(1.0, 1.0, 1.04))]) == 1
    assert command.verdict([row(ratio=1.005)]) == 3 and command.verdict([row(joules=())]) == 3
    assert command.verdict([]) == 3 and command.verdict([row(), {"reason": "oom: no memory"}]) == 3
    assert command.verdict([row(ratio=1.02), {"reason": "oom: no memory"}]) == 1


def test_a_line_says_it_in_words():
    assert command.line(row())[3:] == ["+0.00 % [-0.10 %, +0.10 %]", "within 0.5 %", "1.01 J", "within 3 %: 0.99 %"]
    assert "NOT within 3 %: 4.0 %" in command.line(row(joules=(1.0, 1.0, 1.04)))
    assert "no energy counter" in command.line(row(joules=()))
    assert "no GPU" in command.line(row(joules=(), device="cpu"))
