"""What the sampler sees of GPUs that are a fake NVML and of processors that are files."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import pytest

from harness.host import Host
from harness.telemetry import gpu, processor
from harness.telemetry.clocks import Clocks
from harness.telemetry.processor import Processors
from harness.telemetry.sampler import Sampler

from ..machines import NOT_SUPPORTED, Machine, Nvml


def four(**changed):
    """Four GPUs whose handles are their numbers."""
    identities = ("GPU-0a1", "GPU-0b2", b"GPU-1c3", "GPU-2d4")
    answers = {
        "nvmlDeviceGetCount": 4,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda handle: identities[handle],
        "nvmlDeviceGetClockInfo": lambda handle, kind: 1000 + handle,
    }
    return Nvml(**{**answers, **changed})


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        (None, [0, 1, 2, 3]),
        ("2,1", [2, 1]),
        ("2,9,1", [2]),
        ("GPU-1c3", [2]),
        ("GPU-2d, GPU-0b2", [3, 1]),
        ("GPU-ff", [0, 1, 2, 3]),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(monkeypatch, named, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpu.visible(four(), 4) == seen and gpu.handles(four()) == seen


def sampled(sampler, seconds=0.15):
    begin = time.monotonic()
    sampler.start()
    time.sleep(seconds)
    sampler.stop()
    return begin, time.monotonic()


def test_the_gpu_that_is_measured_on_is_the_one_told_of(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    monkeypatch.setitem(sys.modules, "pynvml", four())
    sampler = Sampler()
    begin, end = sampled(sampler)
    assert sampler.summary(begin, end)["sm_clock_mhz"]["median"] == 1003
    assert sampler.summary(begin, end, 1)["sm_clock_mhz"]["median"] == 1001
    lanes = sampler.lanes(begin, end)["gpus"]
    assert [set(lane["sm_clock_mhz"]) for lane in lanes] == [{1003}, {1001}]
    assert len(lanes[0]["seconds"]) == len(lanes[0]["power_w"]) and 0 <= lanes[0]["seconds"][0] < 0.15
    assert gpu.describe_gpu(1)["driver"] == "570.86" and "does not find GPU 2" in gpu.describe_gpu(2)["telemetry"]


def test_a_reading_that_is_not_supported_has_no_lane(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlDeviceGetPowerUsage=NOT_SUPPORTED))
    sampler = Sampler()
    begin, end = sampled(sampler)
    (lane,) = sampler.lanes(begin, end)["gpus"]
    assert "power_w" not in lane and set(lane["temperature_c"]) == {40}


def test_sampling_can_be_stopped_and_goes_on(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    sampler = Sampler()
    first = sampled(sampler)
    still = (first[1] + 0.001, time.monotonic() + 0.05)
    time.sleep(0.06)
    assert "samples" not in (sampler.summary(*still) or {})
    assert sampler.summary(*sampled(sampler))["samples"] > 0 and sampler.summary(*first)["samples"] > 0


def test_other_processes_on_the_gpu_are_counted(monkeypatch):
    def running(*pids):
        return Nvml(nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=pid) for pid in pids])

    assert gpu.others(running(7, 8, 9), "handle", [8, 1]) == 2
    assert gpu.others(running(700, 900), "handle", [8]) == 1  # a container's ids are not the host's
    assert gpu.others(running(8), "handle", [8]) == 0 and gpu.others(running(), "handle", []) == 0
    assert gpu.others(running(), "handle", [8]) is None  # not even ours is shown
    assert gpu.others(Nvml(nvmlDeviceGetComputeRunningProcesses=NOT_SUPPORTED), "handle", [8]) is None


def own(machine, pid, seconds, switches, waits):
    machine.process(pid, "worker", seconds)
    for thread, share in ((pid, 0.75), (pid + 1, 0.25)):
        text = f"voluntary_ctxt_switches:\t{round(waits * share)}\n"
        machine.write(
            f"proc/{pid}/task/{thread}/status", f"{text}nonvoluntary_ctxt_switches:\t{round(switches * share)}\n"
        )


def test_load_by_others_is_what_is_not_ours(tmp_path):
    machine = Machine(tmp_path)
    processors = Processors(lambda: [50, 99], machine.host)
    rows = []
    for when, busy, steal, ours in ((10.0, 0.0, 0.0, 1.0), (12.0, 3.0, 0.5, 3.0), (14.0, 4.0, 0.5, 4.0)):
        machine.time(busy, steal)
        own(machine, 50, ours, switches=40 * when, waits=8 * when)
        rows.append((when, processors.sample()))
    first, second = processor.differences(rows)
    assert first["others"] == pytest.approx(0.5) and first["steal"] == pytest.approx(0.25)
    assert second["others"] == pytest.approx(0.0) and second["steal"] == 0
    found = processor.summary(rows)
    assert found["others"] == pytest.approx(0.25) and found["switches"] == 40 and found["waits"] == 8
    assert found["frequency_mhz"] == {"median": 2999, "min": 2999, "max": 2999}
    assert processor.summary(rows[:1]) is None


def test_a_machine_that_tells_nothing_has_no_load(tmp_path):
    processors = Processors(lambda: [50], Host(tmp_path, [0]))
    rows = [(1.0, processors.sample()), (2.0, processors.sample())]
    assert processor.summary(rows) == {"others": None, "steal": None, "switches": 0, "waits": 0}


def test_frequency_of_a_virtual_machine_is_what_it_was_told(tmp_path):
    machine = Machine(tmp_path)
    for core in (0, 1):
        (tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").unlink()
    machine.write("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2450.5\nprocessor\t: 1\ncpu MHz\t\t: 2550.5\n")
    assert Processors(list, machine.host).sample()["frequency_mhz"] == 2500.5


def test_without_a_gpu_the_processors_are_told_of():
    sampler = Sampler(gpus=False, ours=lambda: [os.getpid()])
    begin = time.monotonic()
    sampler.look()
    sum(range(2_000_000))
    sampler.look()
    found = sampler.summary(begin, time.monotonic())
    assert not sampler.available and set(found) == {"window_s", "host"} and found["host"]["switches"] >= 0
    assert sampler.lanes(begin, time.monotonic())["gpus"] == []


def test_a_clock_below_the_run_s_own_is_noticed():
    clocks = Clocks()
    window = {"sm_clock_mhz": {"median": 1600.0}, "throttle": []}
    slow = {"sm_clock_mhz": {"median": 1500.0}, "throttle": []}
    for _ in range(2):
        clocks.add(window)
    assert clocks.low(slow) is None  # two are no median
    clocks.add(window)
    assert "1,500 MHz, 6% below the run's median of 1,600" in clocks.low(slow)
    assert clocks.low({**slow, "throttle": ["power cap"]}) is None
    assert clocks.low({**slow, "throttle": ["thermal (hardware)"]}) is not None
    assert clocks.low({"sm_clock_mhz": {"median": 1530.0}, "throttle": []}) is None
    assert clocks.low(None) is None and clocks.low({"host": {}}) is None
