"""A busy neighbour for the gate's experiment: bursts of arithmetic and of memory traffic on one core, until killed.

`python -m harness.gate.neighbour SEED`. Bursts last 20 to 200 ms, with pauses of up to 40 ms between them, as of other
jobs on a shared runner: a load that neither averages out within a slot nor stays the same between two.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import numpy as np

BURST, PAUSE = (0.02, 0.2), (0.0, 0.04)


def be_busy(seed: int) -> None:
    """Never returns."""
    rng = random.Random(seed)
    square, stream = np.ones((256, 256), np.float32), np.ones(16 * 1024**2, np.float32)
    while True:
        arithmetic = rng.random() < 0.5
        until = time.monotonic() + rng.uniform(*BURST)
        while time.monotonic() < until:
            square @ square if arithmetic else stream.sum()
        time.sleep(rng.uniform(*PAUSE))


class Neighbours(AbstractContextManager["Neighbours"]):
    """So many of them, from entering to leaving."""

    def __init__(self, root: Path, count: int) -> None:
        self._root, self._count = root, count
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Neighbours:
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        for seed in range(self._count):
            words = [sys.executable, "-m", "harness.gate.neighbour", str(seed)]
            self._running.append(subprocess.Popen(words, cwd=self._root, env={**os.environ, **one_thread}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    from ..process import end_with_parent

    end_with_parent()
    be_busy(int(sys.argv[1]))
