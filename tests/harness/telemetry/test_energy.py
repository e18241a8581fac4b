"""Energy of a call against a GPU and a counter that are numbers: steps, batches, and what is not told."""

from __future__ import annotations

import sys

import pytest

from harness.contest import Contest
from harness.telemetry import energy
from harness.telemetry.energy import LEAST_SECONDS, LEAST_STEPS, measured

from ..conftest import ROOT
from ..machines import NOT_SUPPORTED, Nvml


class Gpu:
    """Takes `watts` and so many seconds a call; its counter advances each `step` seconds by what was used till then."""

    def __init__(self, watts=500.0, call_s=1e-4, step=0.02, begin=7.013):
        self.watts, self.call_s, self.step = watts, call_s, step
        self.now = self.free = begin
        self.calls = 0

    def call(self):
        self.calls += 1
        self.free = max(self.free, self.now) + self.call_s

    def marked(self):
        end = self.free

        def wait():
            self.now = max(self.now, end)

        return wait

    def read(self):
        self.now += 2e-5
        return int(self.now // self.step * self.step * self.watts * 1000)

    def clock(self):
        return self.now

    def measured(self, **changed):
        return measured(self.call, self.call_s, self.read, self.marked, self.clock, **changed)


@pytest.mark.parametrize(("step", "call_s"), [(0.02, 1e-4), (0.1, 1e-4), (0.1, 3e-6), (0.02, 4e-3)])
def test_a_call_s_energy_is_power_times_time(step, call_s):
    gpu = Gpu(step=step, call_s=call_s)
    found = gpu.measured()
    assert found.joules == pytest.approx(500.0 * call_s, rel=0.015)
    assert found.steps >= LEAST_STEPS and found.seconds >= LEAST_SECONDS
    assert found.seconds >= (LEAST_STEPS - 1) * step


def test_it_repeats_wherever_in_a_step_it_begins():
    found = [Gpu(step=0.1, begin=begin).measured().joules for begin in (7.0, 7.03, 7.05, 7.0999)]
    assert max(found) / min(found) < 1.01


def test_the_gpu_is_never_without_work():
    gpu = Gpu()
    begin = gpu.now + 2e-5  # the first reading
    gpu.measured()
    assert gpu.free - begin == pytest.approx(gpu.calls * gpu.call_s, rel=1e-6)


def test_everything_given_to_the_gpu_is_waited_for():
    gpu = Gpu()
    gpu.measured()
    assert gpu.now >= gpu.free


def test_a_counter_that_steps_too_seldom_tells_nothing():
    assert Gpu(step=0.4).measured() is None
    assert Gpu(step=0.02, call_s=0.3).measured() is None
    stuck = Gpu()
    stuck.read = lambda: 5
    assert measured(stuck.call, 1e-4, stuck.read, stuck.marked, stuck.clock) is None


def test_a_gpu_that_is_lost_meanwhile_has_no_energy():
    gpu = Gpu()
    readings = iter([1, 2, 3, None])
    assert measured(gpu.call, 1e-4, lambda: next(readings), gpu.marked, gpu.clock) is None


def test_without_nvml_or_support_there_is_no_counter(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.counter() is None
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlDeviceGetTotalEnergyConsumption=NOT_SUPPORTED))
    assert energy.counter() is None
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlDeviceGetTotalEnergyConsumption=12_345))
    assert energy.counter()() == 12_345 and energy.counter(1) is None


def test_energy_stands_in_the_record_by_call_and_by_token(toy, monkeypatch):
    """All but the GPU and its counter: the contest weighs each contender after it was timed."""
    monkeypatch.setattr(Contest, "_weighing", property(lambda self: True, lambda self, value: None), raising=False)
    weighed = []

    def of_call(call, latency_s):
        call()
        weighed.append(latency_s)
        return energy.Energy(2.5, 1.0, 40, 12) if len(weighed) == 1 else None

    monkeypatch.setattr(energy, "of_call", of_call)
    workload, case = toy.workloads[toy.cases[0].id], toy.cases[0]
    names = [contender.name for contender in case.contenders if contender.reason is None][:2]
    contest = Contest(toy.registry, workload, names, "cpu", {}, str(ROOT), lambda index: None)
    records = contest.run(8.0, "samples")
    (told,) = [record for record in records if "energy" in record.figures]
    tokens = toy.registry.operations[workload.operation].tokens(workload.shape)
    assert told.value("energy") == 2.5 and told.value("token_energy") == 2.5 / tokens
    assert told.timing["energy"] == {"seconds": 1.0, "calls": 40, "steps": 12}
    assert all(0 < latency_s < 1 for latency_s in weighed) and len(weighed) == 2
    (other,) = [record for record in records if record is not told]
    assert other.status == "passed" and other.value("token_energy") is None and "energy" not in other.timing
