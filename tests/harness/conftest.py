"""A checkout of its own for a test: the real harness, reports and conftest, and the toy operation's files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import catalog, registry
from harness.options import Options
from harness.record import Run, read_run

ROOT = Path(__file__).parents[2]


class Checkout:
    """A folder in which `make bench`'s commands work, with `toy` as its only study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("harness", "reports", "conftest.py", "pyproject.toml"):
            (folder / name).symlink_to(ROOT / name)
        self.add("tests/toy")

    def add(self, material: str) -> None:
        """Copy benches and implementations from a folder of this repository."""
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / material, self.folder, dirs_exist_ok=True, ignore=ignore)

    def python(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `python words...` in the checkout."""
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )

    def measure(self, *words: str, device: str = "cpu") -> tuple[subprocess.CompletedProcess[str], Run]:
        """Run the harness; returns what it printed and the run it left."""
        done = self.python("-m", "harness.run", "--device", device, "--budget", "4", *words, timeout=300)
        runs = sorted((self.folder / "runs").glob("*/run.jsonl"))
        assert runs, done.stdout + done.stderr
        return done, read_run(runs[-1].parent)

    def implementation(self, body: str) -> str:
        """A user's file with `body` after the imports; returns its path."""
        path = self.folder / "mine.py"
        path.write_text(
            "import os, sys, threading, time\nimport torch\nfrom harness import implementation, Prepared\n\n" + body
        )
        return str(path)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def toy(checkout, monkeypatch):
    """The catalog of a checkout whose only study is the toy."""
    monkeypatch.chdir(checkout.folder)
    monkeypatch.syspath_prepend(str(checkout.folder))
    for name in [n for n in sys.modules if n.split(".")[0] in ("impls", "benches")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_uncollected", {})
    yield catalog.build(Options(str(checkout.folder), "cpu", "smoke"))
    for name in [n for n in sys.modules if n.split(".")[0] in ("impls", "benches")]:
        del sys.modules[name]
