"""Python in a process of its own: whether Triton is there, and whether it interprets, is settled on import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: str, **environment: str) -> str:
    """What `python *words` prints at the top of the checkout; fails the test if it ends badly."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def require_passed_in_the_interpreter(file: str) -> None:
    """Every test of a file runs there and passes."""
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", file, TRITON_INTERPRET="1")
    assert re.search(r"\d+ passed", told) and "skipped" not in told, told
