"""Whether Triton kernels compute what they should, without a GPU: the parent's side of `interpreter.py`.

What the exact gate compiles it does not run, so a kernel that only became wrong would pass it. Loses what only goes
wrong on a device: layouts, synchronisation, 16-bit rounding; where there is a GPU the timing gate verifies that too.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

from .case import GateCase
from .lane import Lane
from .options import GateOptions

NEED, GLUON = "triton", "triton.experimental.gluon"


def judge(options: GateOptions, log: Path) -> list[GateCase] | None:
    """A case for each contender, "same" or "incorrect"; None where there is no Triton.

    Raises Stopped when the working tree does not load.
    """
    if importlib.util.find_spec(NEED) is None:
        return None
    lane, cases = Lane(options, log, threading.Event(), "harness.gate.interpreter"), []
    try:
        for one in lane.open()["cases"]:
            case = GateCase(one["case"], one["contender"], slowed_by=0.0)
            answer = lane.ask(case, seconds=0.0)
            if "failed" in answer:
                case.take(answer)
            else:
                case.settle("same", "right in Triton's interpreter")
            cases.append(case)
    finally:
        lane.close()
    return cases
