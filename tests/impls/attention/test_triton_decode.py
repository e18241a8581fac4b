"""The Triton decode kernels: right in the interpreter on odd shapes, and compiled for Hopper within its limits.

Each runs in a process of its own, for Triton decides when it is imported whether it interprets. On a GPU the same
launches are compared there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from impls.attention.triton_latent_decode import PAGE, launch_for

ROOT = Path(__file__).parents[3]
SHARED_MEMORY = 232_448

pytest.importorskip("triton")


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_launch_equals_plain_attention():
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    assert ", 0 wrong" in run("-m", "tests.impls.attention.triton_oracle", **interpret)


def test_kernels_compile_for_hopper():
    """Shared memory fits, and each loop is pipelined: unpipelined ones computed wrongly on the GPU."""
    lines = run("-m", "tests.impls.attention.triton_binaries").splitlines()
    assert len(lines) >= 5
    for line in lines:
        name, shared, pipelined = line.split()
        assert int(shared) <= SHARED_MEMORY, line
        assert pipelined == "pipelined", name


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("heads", [1, 16, 17, 32, 64, 128, 256])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 131072), (4, 1024), (128, 4096), (500, 100)])
def test_launches_split_long_sequences_over_the_processors(fp8, heads, batch, length):
    launch = launch_for(batch, heads, length, fp8, 132)
    programs, pages = batch * -(-heads // launch.rows), -(-length // PAGE)
    assert launch.rows in (16, 32, 64) and launch.stages >= 2
    assert 1 <= launch.splits <= pages
    if pages >= 132:
        assert programs * launch.splits >= 66
