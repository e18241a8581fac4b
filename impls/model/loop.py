"""The training loop, for one model or for several side by side on the same machine, data and order.

Several take one step each in turn, another first in each round, so that whatever else the machine does falls on all
alike. At set points each is validated, and checkpointed as far as that takes a tenth of the time; after a kill `resume`
and the same loop give the same curves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from . import checkpoint


class Trainable(Protocol):
    """What the loop asks of a model in training: `Training`, or another with the same methods.

    `done` steps are taken; `curves` has lists by name, among them "step". `advance` and `evaluate` raise ValueError
    where it cannot go on, saying why; `note` puts what `evaluate` found on the curves.
    """

    done: int
    curves: dict[str, list[float]]

    def advance(self) -> Any:
        """One step."""

    def evaluate(self, asked: Any) -> Any:
        """How well it does on what validation takes, such as windows int64 [B, T + 1]."""

    def note(self, found: Any) -> None:
        """A point on the curves."""

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, of tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""


Models = Mapping[str, Trainable]
SAVING_SHARE = 0.1  # of the time, at most, for checkpoints between the first and the last


def points(steps: int, count: int) -> list[int]:
    """Where to validate: after the first step, the last, and evenly between, at most `count` in all."""
    evenly = {round(steps * at / max(1, count - 1)) for at in range(1, count)}
    return sorted({1, steps, *evenly} - {0})


def fit(
    models: Models,
    asked: Any,
    stops: Sequence[int],
    folder: Path | None = None,
    noted: Callable[[str, Any], None] = lambda name, training: None,
    reached: Callable[[int, float], bool | None] = lambda stop, seconds_left: None,
) -> dict[str, str]:
    """Train all to the last of `stops`, validating by what is `asked` at each, and saving to `folder` at the first, at
    the last and, where checkpoints take long, at some between.

    noted    called for a model after each of its validations, before the next model's
    reached  called with the stop and the seconds still needed at the present pace; the loop ends when it returns True
    Returns why a model was given up, by name: one whose scores or loss are not finite; the others go on.
    """
    failed: dict[str, str] = {}
    pace, saver = _Pace(min((t.done for t in models.values()), default=0)), _Saver(folder)
    for stop in stops:
        working = {name: training for name, training in models.items() if name not in failed}
        if all(_noted(training) >= stop for training in working.values()):
            continue
        begun = time.monotonic()
        failed |= advance(working, stop)
        trained = time.monotonic()
        due = saver.due(stop == stops[-1])
        for name, training in working.items():
            if name not in failed and _noted(training) < stop:
                failed |= _settle(name, training, asked, saver if due else None, noted)
        pace.passed(stop, trained - begun, time.monotonic() - trained)
        if reached(stop, pace.left(stop, stops)):
            for name, training in working.items():
                if not due and name not in failed:
                    saver.save(name, training)
            break
    return failed


@dataclass
class _Saver:
    """Writes checkpoints to `folder`, and tells when they are due."""

    folder: Path | None
    since: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    def due(self, last: bool) -> bool:
        """Whether to save at this stop; what was written the last time and since then is counted."""
        now = time.monotonic()
        if not last and self.seconds > SAVING_SHARE * (now - self.since):
            return False
        self.since, self.seconds = now, 0.0
        return True

    def save(self, name: str, training: Trainable) -> None:
        """Write one model's checkpoint."""
        if self.folder is not None:
            begun = time.monotonic()
            checkpoint.save(self.folder / f"{name}{checkpoint.SUFFIX}", training.state())
            self.seconds += time.monotonic() - begun


@dataclass
class _Pace:
    """Seconds a step and a validation have taken, all models together, since step `first`."""

    first: int
    stepping: float = 0.0
    settling: float = 0.0
    count: int = 0

    def passed(self, stop: int, stepping: float, settling: float) -> None:
        self.stepping, self.settling, self.count = self.stepping + stepping, self.settling + settling, self.count + 1

    def left(self, stop: int, stops: Sequence[int]) -> float:
        steps = self.stepping / max(1, stop - self.first) * (stops[-1] - stop)
        return steps + self.settling / self.count * sum(later > stop for later in stops)


def _noted(training: Trainable) -> float:
    """The step of the last validation."""
    return training.curves.get("step", [0.0])[-1]


def _settle(
    name: str, training: Trainable, asked: Any, saver: _Saver | None, noted: Callable[[str, Any], None]
) -> dict[str, str]:
    """Validate and, with a `saver`, save one model."""
    try:
        training.note(training.evaluate(asked))
    except ValueError as error:
        return {name: str(error)}
    if saver is not None:
        saver.save(name, training)
    noted(name, training)
    return {}


def advance(models: Models, stop: int) -> dict[str, str]:
    """Bring all to step `stop`, those behind first, then one step each in turn. Returns why a model was given up."""
    failed: dict[str, str] = {}
    while waiting := [name for name, t in models.items() if t.done < stop and name not in failed]:
        at = min(models[name].done for name in waiting)
        turn = [name for name in waiting if models[name].done == at]
        shift = at % len(turn)
        for name in turn[shift:] + turn[:shift]:
            try:
                models[name].advance()
            except ValueError as error:
                failed[name] = str(error)
    return failed


def resume(models: Models, folder: Path) -> list[str]:
    """Restore the models that have a checkpoint in `folder`; returns their names. Raises ValueError for a wrong one."""
    found = [name for name in models if (folder / f"{name}{checkpoint.SUFFIX}").is_file()]
    for name in found:
        models[name].restore(checkpoint.load(folder / f"{name}{checkpoint.SUFFIX}"))
    return found
