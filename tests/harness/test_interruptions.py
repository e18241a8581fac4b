"""A full disk, Ctrl-C and parallel processes: nothing measured is lost, and the user reads a sentence."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time

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
        resource.setrlimit(resource.RLIMIT_FSIZE, (7500, 7500))

    process = start(checkout, "--budget", "6", preexec_fn=small_files)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "cannot be written" in said and "what was written before is kept" in said
    assert "Traceback" not in said
    run = only_run(checkout)
    assert run.records and all(r.status for r in run.records)


def test_ctrl_c_says_how_to_go_on_and_resuming_finishes(checkout):
    process = start(checkout, "--budget", "60")
    runs = checkout.folder / "runs"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any('"record"' in p.read_text() for p in runs.glob("*/run.jsonl")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
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
