"""The doctor on machines made of files, on GPUs made of a fake NVML, and on contests whose outcome is known."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import pytest

from harness.doctor import __main__ as doctor
from harness.doctor import cpu, gpu, noise
from harness.doctor.finding import Finding, closing, exit_code, lines
from harness.doctor.noise import Ratio
from harness.host import Host
from harness.record import Figure
from harness.telemetry import gpu as telemetry
from harness.telemetry.sampler import Sampler

from ..machines import GIB, LOST, NO_PERMISSION, NOT_SUPPORTED, Machine, Nvml, NvmlError


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def by_subject(findings):
    found = {finding.subject: finding for finding in findings}
    return found


def settings(machine, threads=2):
    return by_subject(cpu.settings(machine.host, threads))


def test_a_machine_in_order_is_fit(machine):
    assert {finding.state for finding in settings(machine).values()} == {"fit"}
    before = machine.host.moment()
    after = machine.host.moment()
    found = [*cpu.quiet(machine.host, before, after), *cpu.strained(machine.host, before, after)]
    assert exit_code(found) == 0 and {finding.state for finding in found} == {"fit"}
    assert closing(found).startswith("fit to benchmark")


CPU = "sys/devices/system/cpu/"


@pytest.mark.parametrize(
    ("subject", "path", "text", "state", "said"),
    [
        ("governor", f"{CPU}cpu1/cpufreq/scaling_governor", "powersave", "mend", "performance, powersave"),
        ("frequency", f"{CPU}cpu0/cpufreq/scaling_max_freq", "2000000", "mend", "800 to 2,000 MHz allowed"),
        ("frequency", f"{CPU}cpufreq/boost", "1", "note", "turbo is on"),
        ("frequency", f"{CPU}intel_pstate/no_turbo", "0", "note", "turbo is on"),
        ("CPU quota", "sys/fs/cgroup/cpu.max", "150000 100000", "mend", "1.50 cores' worth"),
        ("SMT siblings", f"{CPU}cpu1/topology/thread_siblings_list", "0", "note", "2 threads are on 1 cores"),
        ("memory", "proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 50 kB", "mend", "51.2 kB of 1.02 MB free"),
        ("memory", "proc/meminfo", "", "unseen", "/proc/meminfo"),
        ("clock source", "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "mend", "hpet"),
        ("machine", "proc/cpuinfo", "flags : fpu hypervisor", "note", "virtual machine"),
    ],
)
def test_what_is_to_mend_is_found_and_said(machine, subject, path, text, state, said):
    machine.write(path, text)
    finding = settings(machine)[subject]
    assert finding.state == state and said in finding.found and finding.why
    assert finding.advice or state == "note"
    others = [f for name, f in settings(machine).items() if name != subject]
    assert {finding.state for finding in others} == {"fit"}


def test_limits_of_a_cgroup_of_version_1_count(machine):
    machine.write("proc/self/cgroup", "5:memory:/a\n3:cpu,cpuacct:/a\n0::/\n")
    machine.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "100000")
    machine.write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000")
    machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1")
    machine.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000")
    machine.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "990000")
    found = settings(machine)
    assert found["CPU quota"].state == "mend" and "1.00 cores" in found["CPU quota"].found
    assert found["memory"].state == "mend" and "10.0 kB of 1.00 MB" in found["memory"].found


def test_more_threads_than_cores(machine):
    assert settings(machine, threads=3)["threads"].advice == "set OMP_NUM_THREADS=2"


def test_a_machine_that_shows_nothing_is_noted_and_not_guessed(tmp_path):
    host = Host(tmp_path, [0])
    found = [*cpu.settings(host, 1)]
    before = host.moment()
    found += [*cpu.quiet(host, before, host.moment()), *cpu.strained(host, before, host.moment())]
    unseen = {finding.subject for finding in found if finding.state == "unseen"}
    assert unseen == {"memory", "load by others", "steal time"}
    assert exit_code(found) == 2 and "not seen: memory" in closing(found)


def moments(machine, change, seconds=2.0):
    """Before and after `change`, so many seconds apart."""
    before = machine.host.moment()
    change()
    after = machine.host.moment()
    return before, SimpleNamespace(**{**vars(after), "when": before.when + seconds})


def test_what_others_compute_is_told_with_the_process(machine):
    def change():
        machine.time(1.0, 0)
        machine.process(41, "miner (x) 2", 5.9)
        machine.process(42, "born meanwhile", 3.0)

    machine.process(41, "miner (x) 2", 5.0)
    found = by_subject(cpu.quiet(machine.host, *moments(machine, change)))
    assert found["load by others"].state == "mend" and found["load by others"].found.startswith("25% of 2 cores")
    assert "do not show" not in found["load by others"].found
    assert found["busy processes"].found == "miner (x) 2 (process 41) 45% of a core"


def test_load_that_no_process_here_explains_is_said_to_be_outside(machine):
    found = by_subject(cpu.quiet(machine.host, *moments(machine, lambda: machine.time(2.0, 0))))
    assert "do not show here" in found["load by others"].found and found["busy processes"].state == "fit"


@pytest.mark.parametrize(
    ("subject", "change", "said"),
    [
        ("load beside us", lambda m: m.time(0.4, 0), "10% of 2 cores"),
        ("steal time", lambda m: m.time(0, 0.4), "10.0% of 2 cores"),
        (
            "CPU throttling",
            lambda m: m.write("sys/fs/cgroup/box/cpu.stat", "nr_throttled 9"),
            "6 times while we worked",
        ),
        ("swapping", lambda m: m.write("proc/vmstat", "pswpin 7\npswpout 12"), "12 pages while we worked, 19 in all"),
        (
            "thermal throttling",
            lambda m: m.write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "2"),
            "2 times while we worked",
        ),
    ],
)
def test_what_the_machine_takes_away_while_we_work(machine, subject, change, said):
    found = by_subject(cpu.strained(machine.host, *moments(machine, lambda: change(machine))))
    assert found[subject].state == "mend" and said in found[subject].found
    assert {f.state for name, f in found.items() if name != subject} == {"fit"}


def of_gpu(cuda="12.8", **changed):
    return by_subject(gpu.examine(Nvml(**changed), cuda))


def test_a_gpu_in_order_is_fit():
    found = of_gpu()
    assert {finding.state for finding in found.values()} == {"fit"}
    assert found["GPU 0"].found == "NVIDIA H200" and "570.86" in found["driver"].found
    assert set(found) >= {f"GPU 0 {name}" for name in ("persistence", "power limit", "processes", "ECC", "MIG")}


@pytest.mark.parametrize(
    ("subject", "query", "answer", "state", "said"),
    [
        ("persistence", "nvmlDeviceGetPersistenceMode", 0, "mend", "off"),
        ("power limit", "nvmlDeviceGetEnforcedPowerLimit", 500_000, "mend", "500 W, 700 W by default"),
        ("temperature", "nvmlDeviceGetTemperature", 88, "mend", "88 °C"),
        ("throttling", "nvmlDeviceGetCurrentClocksThrottleReasons", 0x44, "mend", "power cap, thermal (hardware)"),
        (
            "processes",
            "nvmlDeviceGetComputeRunningProcesses",
            [SimpleNamespace(pid=7, usedGpuMemory=2_000_000_000), SimpleNamespace(pid=8, usedGpuMemory=None)],
            "mend",
            "process 7 holds 2.00 GB, process 8",
        ),
        ("processes", "nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=60), "mend", "none that shows"),
        ("memory", "nvmlDeviceGetMemoryInfo", SimpleNamespace(total=GIB, free=GIB // 2), "mend", "537 MB of 1.07 GB"),
        ("ECC", "nvmlDeviceGetTotalEccErrors", 4, "mend", "4 uncorrected errors"),
        ("ECC", "nvmlDeviceGetEccMode", [0, 0], "note", "off"),
        ("MIG", "nvmlDeviceGetMigMode", [1, 1], "note", "slice"),
    ],
)
def test_what_is_to_mend_on_a_gpu(subject, query, answer, state, said):
    found = of_gpu(**{query: answer})
    finding = found.pop(f"GPU 0 {subject}")
    assert finding.state == state and said in finding.found
    assert {other.state for other in found.values()} == {"fit"}


def test_a_driver_older_than_torchs_cuda():
    assert of_gpu(nvmlSystemGetCudaDriverVersion_v2=11080)["driver"].state == "mend"
    assert of_gpu(nvmlSystemGetCudaDriverVersion_v2=NOT_SUPPORTED)["driver"].state == "note"
    assert of_gpu(cuda=None)["driver"].state == "note"


def test_readings_that_fail_are_told_with_the_reason_and_nothing_is_made_of_them():
    found = of_gpu(
        nvmlDeviceGetEccMode=NOT_SUPPORTED,
        nvmlDeviceGetMigMode=NOT_SUPPORTED,
        nvmlDeviceGetComputeRunningProcesses=NO_PERMISSION,
        nvmlDeviceGetTemperatureThreshold=AttributeError,
    )
    unread = found["GPU 0 not readable"]
    assert unread.state == "note" and "ECC, MIG (Not Supported)" in unread.found
    assert "processes (Insufficient Permissions)" in unread.found and "a user who may" in unread.advice
    assert "lacks it" in unread.found and found["GPU 0 temperature"].state == "note"
    assert not {"GPU 0 ECC", "GPU 0 MIG", "GPU 0 processes"} & set(found)
    assert exit_code(found.values()) == 0


@pytest.mark.parametrize("query", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo"])
def test_a_lost_gpu_is_to_mend_and_the_next_one_is_looked_at(query):
    found = list(gpu.examine(Nvml(**{query: LOST, "nvmlDeviceGetCount": 2}), "12.8"))
    assert [f.subject for f in found if f.state == "mend"] == ["GPU 0", "GPU 1"]
    assert all("GPU is lost" in f.found and "Xid" in f.advice for f in found if f.state == "mend")


def test_gpus_that_cannot_be_counted_are_unseen():
    found = of_gpu(nvmlDeviceGetCount=NvmlError(999, "Unknown Error"))
    assert found["GPUs"].state == "unseen" and exit_code(found.values()) == 2


def test_the_sampler_outlives_a_lost_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlDeviceGetHandleByIndex=LOST))
    assert "lost it" in telemetry.describe_gpu(0)["telemetry"]
    monkeypatch.setitem(
        sys.modules, "pynvml", Nvml(nvmlDeviceGetPowerUsage=LOST, nvmlDeviceGetTemperature=NO_PERMISSION)
    )
    sampler = Sampler()
    begin = time.monotonic()
    sampler.start()
    time.sleep(0.2)
    sampler.stop()
    seen = sampler.summary(begin, time.monotonic())
    assert seen["sm_clock_mhz"]["median"] == 1980 and seen["throttle"] == [] and seen["energy_j"] == 0
    assert not {"power_w", "temperature_c"} & set(seen)


def test_clock_and_throttling_at_work():
    clock = {"median": 1980, "min": 1900, "max": 1980}
    fine = next(gpu.under_load(Nvml(), {"sm_clock_mhz": clock, "throttle": []}))
    assert fine.state == "fit" and "1,980 MHz (1,900 to 1,980) of 1,980" in fine.found
    capped = next(gpu.under_load(Nvml(), {"sm_clock_mhz": clock, "throttle": ["power cap"]}))
    assert capped.state == "mend" and "power cap" in capped.found
    slow = next(gpu.under_load(Nvml(), {"sm_clock_mhz": {**clock, "median": 1200}, "throttle": []}))
    assert slow.state == "mend"
    assert next(gpu.under_load(Nvml(), None)).state == "note"
    assert next(gpu.under_load(Nvml(nvmlDeviceGetMaxClockInfo=LOST), None)).state == "mend"


def test_counters_need_ncu_and_the_drivers_permission(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "not installed" in gpu.counters(tmp_path, False).found
    ncu = tmp_path / "usr/local/cuda-12.8/bin/ncu"
    ncu.parent.mkdir(parents=True)
    ncu.touch()
    assert "cannot be read" in gpu.counters(tmp_path, False).found
    parameters = tmp_path / "proc/driver/nvidia/params"
    parameters.parent.mkdir(parents=True)
    parameters.write_text("Mobile: 4294967295\nRmProfilingAdminOnly: 1\n")
    finding = gpu.counters(tmp_path, False)
    assert finding.state == "note" and "NVreg_RestrictProfilingToAdminUsers=0" in finding.advice
    assert gpu.counters(tmp_path, True).state == "fit"
    status = tmp_path / "proc/self/status"
    status.parent.mkdir()
    status.write_text("CapPrm:\tffff\nCapEff:\t00000000a80425fb\n")  # root in a container
    assert gpu.counters(tmp_path).state == "note"
    status.write_text("CapEff:\t000001ffffffffff\n")
    assert gpu.counters(tmp_path).state == "fit"
    parameters.write_text("RmProfilingAdminOnly: 0\n")
    assert gpu.counters(tmp_path, False).state == "fit"


def ratios(*values, latency=1e6):
    return [Ratio(Figure(v, v - 0.01, v + 0.01), latency) for v in values]


def test_the_noise_floor_is_the_widest_ratio_of_equal_code():
    fit = noise.judged("A/A", ratios(1.0, 0.98, 1.015), "cpu")
    assert fit.state == "fit" and "up to 2.0% apart in 3 contests" in fit.found and "2 intervals miss 1" in fit.found
    assert noise.judged("A/A", ratios(1.0, 1.07), "cpu").state == "mend"
    assert noise.judged("A/A", ratios(1.0, 0.98), "cuda").state == "mend"
    wandering = [*ratios(1.0), *ratios(1.0, latency=1.3e6)]
    assert "wandered by 30%" in noise.judged("A/A", wandering, "cpu").found
    assert noise.judged("A/A", wandering, "cpu").state == "mend"


def test_a_noise_floor_that_cannot_be_measured_is_unseen():
    def hold(bound, device):
        if bound == "memory":
            raise RuntimeError("oom: no memory")
        return ratios(1.0)[0]

    found = by_subject(noise.measured("cpu", hold))
    assert found["A/A, arithmetic"].state == "fit" and found["A/A, memory"].state == "unseen"
    assert "oom: no memory" in found["A/A, memory"].found


def test_contests_of_equal_code_are_held_by_the_suite(monkeypatch):
    monkeypatch.setitem(noise.SIZES, "cpu", {"dtype": "float32", "side": 64, "bytes": 64**2 * 4})
    for bound in noise.SETUPS:
        found = noise.contest(bound, "cpu", seconds=0.3)
        assert found.latency > 0 and found.ratio.value > 0  # how far apart is the machine's affair


def test_the_process_that_measures_noise_may_die(tmp_path):
    (tmp_path / "harness/doctor").mkdir(parents=True)
    (tmp_path / "harness/doctor/__init__.py").touch()
    line = json.dumps({"subject": "A/A, arithmetic", "state": "fit", "found": "0 %", "why": "so"})
    (tmp_path / "harness/doctor/noise.py").write_text(f"print('''{line}''')\nraise MemoryError('at last')")
    found = list(noise.findings("cpu", tmp_path))
    assert [f.state for f in found] == ["fit", "unseen"] and "MemoryError: at last" in found[1].found
    (tmp_path / "harness/doctor/noise.py").write_text("import time\ntime.sleep(60)")
    assert "no answer for 1 s" in next(noise.findings("cpu", tmp_path, timeout=1)).found


def quick(device, root):
    yield Finding("A/A", "fit", "0 % apart", "so")


def test_why_nvml_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert telemetry.opened() == (None, "the package nvidia-ml-py is not installed")
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlInit=NvmlError(18, "Driver/library version mismatch")))
    assert telemetry.opened() == (None, "NVML says: Driver/library version mismatch")
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert telemetry.opened() == (module, "")


def examined(machine, device):
    return list(doctor.examine(device, machine.host, quick, seconds=0))


def test_a_gpu_that_nvml_does_not_show_cannot_be_called_fit(machine, monkeypatch):
    monkeypatch.setattr(doctor, "torch_state", lambda: (2, "12.8"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    on_gpu, on_cpu = (by_subject(examined(machine, device)) for device in ("cuda", "cpu"))
    assert on_gpu["GPU"].state == "unseen" and exit_code(on_gpu.values()) == 2
    assert on_cpu["GPU"].state == "note" and exit_code(on_cpu.values()) == 0


def test_a_gpu_is_sampled_while_noise_is_measured(machine, monkeypatch):
    def noise(device, root):
        time.sleep(0.2)
        yield from quick(device, root)

    monkeypatch.setattr(doctor, "torch_state", lambda: (2, "12.8"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    found = by_subject(doctor.examine("cuda", machine.host, noise, seconds=0))
    assert found["GPU 0 clock at work"].state == "fit" and exit_code(found.values()) == 0


def test_the_command_prints_and_has_exit_codes(machine, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "torch_state", lambda: (2, None))
    monkeypatch.setattr(doctor, "examine", lambda device, host: iter([*cpu.settings(host, 2)]))
    monkeypatch.setattr(doctor, "Host", lambda root: machine.host)
    assert doctor.main(["--device", "cpu"], machine.root) == 0
    assert "no setting was changed" in capsys.readouterr().out
    machine.write(f"{CPU}cpu1/cpufreq/scaling_governor", "powersave")
    assert doctor.main(["--device", "cpu", "--json"], machine.root) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["code"] == 1 and told["findings"][0]["advice"].startswith("sudo cpupower")
    assert doctor.main(["--device", "tpu"], machine.root) == 2
    assert capsys.readouterr().err.startswith("error: DEVICE=tpu is unknown")


def test_a_finding_to_mend_needs_advice_and_shows_it():
    with pytest.raises(ValueError, match="without advice"):
        Finding("x", "mend", "found", "why")
    shown = lines([Finding("x", "mend", "found", "why so", "do this")], width=5)
    assert shown == ["MEND    x      found", "        why: why so", "        do: do this"]
    assert exit_code([]) == 2
