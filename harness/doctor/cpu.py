"""The doctor's findings about processors, memory and the system around them, from what `harness/host.py` reads.

Three groups: `settings` look at what stays (governor, clock source, quota, threads), `quiet` at two moments between
which this process slept (what others do), `strained` at two between which it worked (what the machine took away).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from ..host import Host, Moment
from ..units import digits, plain, show
from .finding import Finding

BUSY_SHARE = 0.05
STEAL_SHARE = 0.01
LEAST_FREE = 0.1
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "pit")
CPUFREQ = "cpufreq/"


def settings(host: Host, threads: int) -> Iterator[Finding]:
    """What stays while one looks; `threads` is how many torch computes with."""
    yield _governor(host)
    yield _frequency(host)
    yield _threads(host, threads)
    yield _quota(host, threads)
    yield _siblings(host)
    yield _memory(host)
    yield _clock_source(host)
    yield _virtual(host)


def _governor(host: Host) -> Finding:
    why = (
        "a governor that follows the load raises the frequency late, so short calls run at another speed than long ones"
    )
    found = sorted(set(host.of_cores(f"{CPUFREQ}scaling_governor")))
    if not found:
        return Finding("governor", "note", "this machine shows none, as virtual machines do", why)
    if found == ["performance"]:
        return Finding("governor", "fit", "performance", why)
    return Finding("governor", "mend", ", ".join(found), why, "sudo cpupower frequency-set -g performance")


def _frequency(host: Host) -> Finding:
    why = "a time is of one frequency; a cap below the processor's own, or turbo that comes and goes, changes it"
    now = [int(text) / 1e3 for text in host.of_cores(f"{CPUFREQ}scaling_cur_freq") if text.isdigit()]
    if not now:
        lines = (line for line in host.text("proc/cpuinfo").splitlines() if line.startswith("cpu MHz"))
        now = [float(line.split(":")[1]) for line in lines]
    low, cap, most = (
        [int(text) / 1e3 for text in host.of_cores(CPUFREQ + name) if text.isdigit()]
        for name in ("scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    )
    said = f"{statistics.median(now):,.0f} MHz now" if now else "the current frequency cannot be read"
    if not (low and cap and most):
        return Finding("frequency", "note", f"{said}; its range cannot be read", why)
    said += f", {min(low):,.0f} to {min(cap):,.0f} MHz allowed, {max(most):,.0f} MHz possible"
    if min(cap) < 0.99 * max(most):
        return Finding(
            "frequency", "mend", said, why, "sudo cpupower frequency-set -u with the processor's own maximum"
        )
    boost = host.number("sys/devices/system/cpu/cpufreq/boost") == 1
    if boost or host.number("sys/devices/system/cpu/intel_pstate/no_turbo") == 0:
        advice = "compare within one run, or switch turbo off for the time of measuring"
        return Finding("frequency", "note", f"{said}; turbo is on", why, advice)
    return Finding("frequency", "fit", said, why)


def _threads(host: Host, threads: int) -> Finding:
    why = "more threads than cores wait for each other, and a call takes as long as its last thread"
    cores = len(host.cpus)
    said = f"torch computes with {threads} on {cores} cores"
    if threads > cores:
        return Finding("threads", "mend", said, why, f"set OMP_NUM_THREADS={cores}")
    return Finding("threads", "fit", said, why)


def _quota(host: Host, threads: int) -> Finding:
    why = "a cgroup that has used up its quota stands still until its next period, up to 100 ms, within a call"
    quota = host.quota()
    if quota is None:
        return Finding("CPU quota", "fit", "none", why)
    said = f"{digits(quota)} cores' worth of time for {threads} threads"
    if quota < threads:
        advice = f"raise the container's CPU limit, or set OMP_NUM_THREADS={max(1, int(quota))}"
        return Finding("CPU quota", "mend", said, why, advice)
    return Finding("CPU quota", "fit", said, why)


def _siblings(host: Host) -> Finding:
    why = "two hardware threads share one core's units and caches: what one does shows in the other's time"
    groups = host.of_cores("topology/thread_siblings_list")
    if not groups:
        return Finding("SMT siblings", "note", "the topology cannot be read", why)
    cores = len(set(groups))
    if cores < len(groups):
        advice = f"measure with one thread a core: taskset, and OMP_NUM_THREADS={cores}"
        return Finding("SMT siblings", "note", f"{len(groups)} threads are on {cores} cores", why, advice)
    return Finding("SMT siblings", "fit", f"{cores} cores, one thread each, as far as this machine shows", why)


def _memory(host: Host) -> Finding:
    why = "without free memory the kernel takes pages from file caches and from us, and a case that fits ends in oom"
    known = host.fields("proc/meminfo")
    if not {"MemTotal", "MemAvailable"} <= set(known):
        return Finding("memory", "unseen", "/proc/meminfo cannot be read", why, "run it on Linux, with /proc mounted")
    total, free = known["MemTotal"], known["MemAvailable"]
    limit = host.memory_limit()
    if limit is not None and limit[0] < total:
        total, free = limit[0], min(free, limit[0] - limit[1])
    swap = known.get("SwapTotal", 0) - known.get("SwapFree", 0)
    said = f"{_size(free)} of {_size(total)} free, {_size(swap)} in swap"
    if free < LEAST_FREE * total:
        return Finding(
            "memory", "mend", said, why, "end what holds it (ps --sort=-rss), or raise the container's limit"
        )
    return Finding("memory", "note" if swap > 0 else "fit", said, why)


def _size(count: float) -> str:
    return plain(show(float(count), "bytes"))


def _clock_source(host: Host) -> Finding:
    why = "a slow clock takes a system call of a microsecond and more a reading"
    source = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if not source:
        return Finding("clock source", "note", "cannot be read", why)
    if source in SLOW_CLOCKS:
        return Finding(
            "clock source", "mend", source, why, "boot with clocksource=tsc, or find out why the kernel left it"
        )
    return Finding("clock source", "fit", source, why)


def _virtual(host: Host) -> Finding:
    why = "a hypervisor takes cores away and hides frequency and topology; ratios of one run hold, times of two may not"
    names = [host.text(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name")]
    name = " ".join(filter(None, names))
    flags = next((line for line in host.text("proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    if "hypervisor" in flags.split():
        said = f"virtual machine{f' ({name})' if name else ''}"
        advice = "compare within a run (vs base) or by make gate, and look at steal time below"
        return Finding("machine", "note", said, why, advice)
    return Finding("machine", "fit", f"no hypervisor shows itself{f' ({name})' if name else ''}", why)


def quiet(host: Host, before: Moment, after: Moment) -> Iterator[Finding]:
    """What others did while this process slept."""
    seconds = max(after.when - before.when, 1e-9)
    worked = {
        name: spent - before.processes.get(name, spent)
        for name, spent in after.processes.items()
        if name[0] != os.getpid()
    }
    busiest = sorted(((spent / seconds, *name) for name, spent in worked.items()), reverse=True)[:3]
    told = ", ".join(f"{name} (process {pid}) {share:.0%}" for share, pid, name in busiest if share >= BUSY_SHARE)
    why = "what others compute takes cores, caches, bandwidth and turbo from what is measured"
    if before.busy is None or after.busy is None:
        yield Finding(
            "load by others", "unseen", "/proc/stat cannot be read", why, "run it on Linux, with /proc mounted"
        )
    else:
        share = (after.busy - before.busy) / seconds / len(host.cpus)
        said = f"{share:.0%} of {len(host.cpus)} cores over {seconds:.1f} s in which we did nothing"
        unseen = share * len(host.cpus) - sum(worked.values()) / seconds
        if share > BUSY_SHARE:
            beside = "; most of it by processes that do not show here" if unseen > share * len(host.cpus) / 2 else ""
            yield Finding(
                "load by others", "mend", said + beside, why, "end or wait for what computes, or pin it elsewhere"
            )
        else:
            yield Finding("load by others", "fit", said, why)
    if told:
        yield Finding(
            "busy processes", "mend", f"{told} of a core", why, "end them, wait for them, or pin them elsewhere"
        )
    else:
        yield Finding("busy processes", "fit", f"none above {BUSY_SHARE:.0%} of a core", why)


def strained(host: Host, before: Moment, after: Moment) -> Iterator[Finding]:
    """What the machine took away while this process worked."""
    seconds = max(after.when - before.when, 1e-9)
    if before.busy is not None and after.busy is not None:
        share = max(0.0, after.busy - before.busy - (after.own - before.own)) / seconds / len(host.cpus)
        said = f"{share:.0%} of {len(host.cpus)} cores over {seconds:.1f} s of work"
        why = "what others compute takes cores, caches, bandwidth and turbo from what is measured"
        advice = "end or wait for what computes, or pin it elsewhere"
        yield Finding("load beside us", "mend" if share > BUSY_SHARE else "fit", said, why, advice)
    why = "time that the hypervisor gave to others passes for the measured code's"
    if before.steal is None or after.steal is None:
        yield Finding("steal time", "unseen", "/proc/stat cannot be read", why, "run it on Linux, with /proc mounted")
    else:
        share = (after.steal - before.steal) / seconds / len(host.cpus)
        said = f"{share:.1%} of {len(host.cpus)} cores over {seconds:.1f} s of work"
        advice = "another hour, another host, or an instance with cores of its own"
        yield Finding("steal time", "mend" if share > STEAL_SHARE else "fit", said, why, advice)
    for subject, one, other, why, advice in (
        (
            "CPU throttling",
            before.throttled,
            after.throttled,
            "the cgroup's quota stopped the process in the midst of calls",
            "raise the container's CPU limit, or set OMP_NUM_THREADS below it",
        ),
        (
            "thermal throttling",
            before.hot,
            after.hot,
            "a core that is too hot lowers its frequency, and later calls take longer than earlier ones",
            "look after cooling, or wait until it is cool",
        ),
        (
            "swapping",
            before.swapped,
            after.swapped,
            "a page that comes back from disk takes a millisecond",
            "end what holds the memory, or swapoff for the time of measuring",
        ),
    ):
        if one is None or other is None:
            yield Finding(subject, "note", "not counted here", why)
        else:
            unit = "pages" if subject == "swapping" else "times"
            said = f"{other - one:,} {unit} while we worked, {other:,} in all"
            yield Finding(subject, "mend" if other > one else "fit", said, why, advice)
