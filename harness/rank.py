"""Inside one of several ranks: its process group, signs of life, phases timed between ranks, and reports to the parent.

A rank is a process that `ranks.py` started through torchrun. It says what it does before it does it, in a small mapped
file that costs a microsecond to write, so that the parent can tell which rank the others wait for. It reports events as
JSON lines in a file of its own, on disk when the call returns.

A phase that needs every rank begins with a barrier, and the time there is booked as waiting: it would otherwise hide in
the exchange. On a GPU the barrier is a collective in the stream and times lie between CUDA events, on a CPU between
readings of the monotonic clock. The barrier itself takes time, too; `barrier_ns` says how much.
"""

from __future__ import annotations

import datetime
import itertools
import json
import mmap
import os
import statistics
import struct
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .failure import out_of_memory

LIFE_FORMAT = "<qq48s"  # signs so far, whether it waits for other ranks, what it does
WAITING = "waiting"
BARRIERS = 30


@dataclass(frozen=True)
class Phase:
    """One step of an iteration: what the phase before it returned goes in; `exchange` says that it needs every rank."""

    name: str
    call: Callable[[Any], Any]
    exchange: bool = False


class Rank:
    """This process among `count` others, `number` from 0; `device` is where its tensors live.

    Every rank must call `barrier`, `timed`, `all_true` and `from_first` equally often and in the same order.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.number, self.count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._events = (folder / f"rank-{self.number}.jsonl").open("a", encoding="utf-8")
        self._beats = 0
        with (folder / f"rank-{self.number}.life").open("w+b") as file:
            file.write(struct.pack(LIFE_FORMAT, 0, 0, b""))
            file.flush()
            self._life = mmap.mmap(file.fileno(), struct.calcsize(LIFE_FORMAT))
        self.alive("joining the others", waits=True)
        self.report("start", pid=os.getpid())
        self.device = torch.device(device)
        if device == "cuda":
            self.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(self.device)
        patience = datetime.timedelta(minutes=10)  # the parent loses patience long before
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=patience)
        self._one = torch.zeros(1, device=self.device)
        self.barrier()
        self.synchronize()

    def alive(self, step: str, waits: bool = False) -> None:
        """Tell the parent what comes next, and whether it may take until other ranks have done something."""
        self._beats += 1
        self._life[:] = struct.pack(LIFE_FORMAT, self._beats, int(waits), step.encode()[:48])

    def report(self, event: str, **data: Any) -> None:
        """One event for the parent, on disk when this returns."""
        self._events.write(json.dumps({"event": event, "rank": self.number, **data}) + "\n")
        self._events.flush()

    def barrier(self) -> None:
        """Wait for every rank; on a GPU the stream waits, not the host."""
        dist.all_reduce(self._one)

    def synchronize(self) -> None:
        """Let the host wait for the GPU."""
        if self.device.type == "cuda":
            self.alive("waiting for the GPU", waits=True)
            torch.cuda.synchronize()

    def all_true(self, own: bool) -> bool:
        """Whether `own` is true on every rank."""
        self.alive("hearing what all found", waits=True)
        found = torch.tensor([int(own)], device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        agreed = bool(found.item())
        self.alive("what all found is known")
        return agreed

    def from_first(self, value: int) -> int:
        """The value that rank 0 gave, so that all decide alike."""
        self.alive("hearing from rank 0", waits=True)
        found = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(found, 0)
        first = int(found.item())
        self.alive("what rank 0 said is known")
        return first

    def barrier_ns(self) -> float:
        """Median nanoseconds of a barrier at which all arrive together: the part of a waiting time that is no skew."""
        return statistics.median(
            self.timed([Phase("nothing", lambda state: state, exchange=True)], None)[1][WAITING]
            for _ in range(BARRIERS)
        )

    def timed(self, phases: Sequence[Phase], state: Any) -> tuple[Any, dict[str, float]]:
        """Run the phases once, all ranks starting together: the last one's result, and nanoseconds by phase, with
        `waiting` before exchanges and `total` from this rank's start to its end."""
        self.synchronize()
        self.alive("the start of an iteration", waits=True)
        self.barrier()
        marks = [("", self._mark())]
        for phase in phases:
            if phase.exchange:
                self.alive(f"waiting before {phase.name}", waits=True)
                self.barrier()
                marks.append((WAITING, self._mark()))
            self.alive(phase.name, waits=phase.exchange)
            state = phase.call(state)
            marks.append((phase.name, self._mark()))
        self.alive("the end of an iteration")
        self.synchronize()
        times = dict.fromkeys([WAITING, *(phase.name for phase in phases)], 0.0)
        for (_, begin), (name, end) in itertools.pairwise(marks):
            times[name] += _between(begin, end)
        return state, {**times, "total": _between(marks[0][1], marks[-1][1])}

    def _mark(self) -> Any:
        """A moment: an event in the stream on a GPU."""
        if self.device.type != "cuda":
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def close(self) -> None:
        """Leave together; a rank that left earlier would look like one that died."""
        self.alive("leaving", waits=True)
        self.barrier()
        self.synchronize()
        self.report("done")
        dist.destroy_process_group()


def _between(begin: Any, end: Any) -> float:
    """Nanoseconds from one moment to another."""
    return float(end - begin) if isinstance(begin, int) else float(begin.elapsed_time(end) * 1e6)


def run(program: Callable[[Rank], None], folder: Path, device: str) -> None:
    """What a rank's program calls: `program(rank)`, with whatever it raises reported before the process ends."""
    rank = Rank(folder, device)
    try:
        program(rank)
        rank.close()
    except BaseException as error:
        when, lines = time.monotonic(), str(error).strip().splitlines()
        message = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        rank.report("error", message=message, when=when, oom=isinstance(error, Exception) and out_of_memory(error))
        traceback.print_exc()
        os._exit(1)  # leaving in order would wait for ranks that wait for this one
