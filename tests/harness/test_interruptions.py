"""A full disk, Ctrl-C and parallel processes: nothing measured is lost, and the user reads a sentence."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.record import read_run


def start(checkout, *words: str, **how) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.run", "--device", "cpu", *words],
        cwd=checkout.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def only_run(checkout):
    (path,) = (checkout.folder / "runs").glob("*/run.jsonl")
    return read_run(path.parent)


def test_a_full_disk_keeps_what_was_written(checkout):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5800, 5800))  # a header and the first record

    process = start(checkout, "--budget", "6", preexec_fn=small_files)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "cannot be written" in said and "what was written before is kept" in said
    assert "Traceback" not in said
    run = only_run(checkout)
    assert run.records and all(r.status for r in run.records)


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeding_signals() -> None:
    for name in STOPPING:  # a job in the background, or under nohup, was started with some of them ignored
        signal.signal(name, signal.SIG_DFL)


@pytest.mark.parametrize("name", STOPPING)
def test_ctrl_c_says_how_to_go_on_and_resuming_finishes(checkout, name):
    process = start(checkout, "--budget", "60", preexec_fn=heeding_signals)
    runs = checkout.folder / "runs"
    deadline = time.monotonic() + 60
    # All three records of the first case, which are written one by one: a case that is not whole is measured again.
    while time.monotonic() < deadline and not any(
        p.read_text().count('"type":"record"') >= 3 for p in runs.glob("*/run.jsonl")
    ):
        time.sleep(0.1)
    process.send_signal(name)
    _, said = process.communicate(timeout=60)
    run = only_run(checkout)
    assert process.returncode == 130
    assert f"RESUME={run.header.run}" in said and "Traceback" not in said
    kept = {(r.case, r.contender): r.value("latency") for r in run.records}
    assert kept
    done = checkout.python("-m", "harness.run", "--resume", run.header.run, "--budget", "4")
    assert done.returncode == 0, done.stderr
    after = {(r.case, r.contender): r.value("latency") for r in only_run(checkout).records}
    assert kept.items() <= after.items() and len(after) == 6


def test_parallel_pytest_is_refused(checkout):
    pytest.importorskip("xdist")
    done = checkout.python("-m", "pytest", "benches", "-n", "2")
    assert done.returncode == 4
    assert "processes side by side would time each other" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_run_leaves_no_worker_behind(checkout):
    mine = checkout.implementation(
        '@implementation("toy.product", technique="plain", kind="optimized")\n'
        "def slow(w, shape):\n"
        "    open('worker', 'w').write(str(os.getpid()))\n"
        "    return lambda x: time.sleep(60)\n"
    )
    process = start(checkout, "--impl", mine)
    noted = checkout.folder / "worker"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (noted.is_file() and noted.read_text()):
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=10)
    worker = Path(f"/proc/{noted.read_text()}/stat")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and worker.exists() and worker.read_text().split()[2] != "Z":
        time.sleep(0.1)
    assert not worker.exists() or worker.read_text().split()[2] == "Z"
