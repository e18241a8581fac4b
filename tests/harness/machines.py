"""Machines that are not there: files of a host, and NVML's Python module, as a test wants them."""

from __future__ import annotations

from types import SimpleNamespace

from harness.host import TICKS, Host

GIB = 1024**3


class Machine:
    """Files of a machine with two cores, fit in every respect until a test changes one."""

    def __init__(self, root):
        self.root = root
        for core in (0, 1):
            for name, text in (
                ("cpufreq/scaling_governor", "performance"),
                ("cpufreq/scaling_cur_freq", "2999000"),
                ("cpufreq/scaling_min_freq", "800000"),
                ("cpufreq/scaling_max_freq", "3000000"),
                ("cpufreq/cpuinfo_max_freq", "3000000"),
                ("topology/thread_siblings_list", str(core)),
                ("thermal_throttle/core_throttle_count", "0"),
            ):
                self.write(f"sys/devices/system/cpu/cpu{core}/{name}", text)
        self.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
        self.write("proc/cpuinfo", "flags\t\t: fpu sse2\n")
        self.write("proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
        self.write("proc/vmstat", "pgpgin 5\npswpin 7\npswpout 0\n")
        self.write("proc/self/cgroup", "0::/box\n")
        self.write("sys/fs/cgroup/box/cpu.max", "max 100000")
        self.write("sys/fs/cgroup/box/cpu.stat", "usage_usec 10\nnr_throttled 3\n")
        self.write("sys/fs/cgroup/box/memory.max", "max")
        self.time(0, 0)
        self.process(41, "sleeper", 5.0)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def time(self, busy, steal):
        """Seconds that core 0 worked and that the hypervisor took from it."""
        core = f"{round(busy * TICKS)} 0 0 100 5 0 0 {round(steal * TICKS)} 0 0"
        self.write("proc/stat", f"cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 {core}\ncpu1 0 0 0 100 5 0 0 0 0 0\ncpu7 {core}\n")

    def process(self, pid, name, seconds):
        columns = ["S", *["0"] * 10, str(round(seconds * TICKS)), "0"]
        self.write(f"proc/{pid}/stat", f"{pid} ({name}) {' '.join(columns)} 0 0")

    @property
    def host(self):
        return Host(self.root, [0, 1])


class NvmlError(Exception):
    """As pynvml's: the error code in `value`."""

    def __init__(self, value, said):
        super().__init__(said)
        self.value = value


NOT_SUPPORTED, NO_PERMISSION, LOST = (
    NvmlError(3, "Not Supported"),
    NvmlError(4, "Insufficient Permissions"),
    NvmlError(15, "GPU is lost"),
)


class Nvml:
    """The module pynvml with one H200 in order; `answers` are what a test changes: a value, an exception to raise, or
    a function of what is asked."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, **changed):
        self.asked = []
        self.answers = {
            "nvmlInit": None,
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlSystemGetDriverVersion": "570.86",
            "nvmlSystemGetNVMLVersion": "12.570",
            "nvmlSystemGetCudaDriverVersion_v2": 12080,
            "nvmlDeviceGetName": b"NVIDIA H200",
            "nvmlDeviceGetPersistenceMode": 1,
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
            "nvmlDeviceGetTemperature": 40,
            "nvmlDeviceGetTemperatureThreshold": 90,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 1,
            "nvmlDeviceGetComputeRunningProcesses": [],
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=140 * GIB, free=139 * GIB, used=GIB),
            "nvmlDeviceGetEccMode": [1, 1],
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetMaxClockInfo": 1980,
            "nvmlDeviceGetClockInfo": 1980,
            "nvmlDeviceGetPowerUsage": 300_000,
            "nvmlDeviceGetTotalEnergyConsumption": 5,
            **changed,
        }

    def __getattr__(self, name):
        if name not in self.__dict__.get("answers", {}) or self.answers[name] is AttributeError:
            raise AttributeError(f"module pynvml has no attribute {name}")

        def query(*arguments):
            self.asked.append(name)
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return query
