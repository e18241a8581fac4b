"""Adds runs to the history: `python -m harness.history [RUN ...]` takes runs, folders of runs and other histories.

What is in already is left alone, so it can be repeated at will and by any machine; what is damaged is told and the
rest is added. `python -m reports.history` draws it.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .deviation import INCOMPATIBLE, NOTHING, PASS, USAGE, worst
from .record import read_run
from .store import HISTORY, History, Unusable
from .units import some


@dataclass
class Added:
    """What became of some runs that were to be added; `damage` are sentences."""

    new: int = 0
    grown: int = 0
    known: int = 0
    damage: list[str] = field(default_factory=list)


def gather(store: History, sources: Iterable[Path]) -> Added:
    """Add runs, folders of runs and other histories."""
    added = Added()
    with store.together():
        for source in sources:
            _add(store, source, added)
    return added


def _add(store: History, source: Path, added: Added) -> None:
    if source.is_dir() and not (source / "run.jsonl").is_file():
        for path in sorted(source.rglob("run.jsonl")):
            _add_file(store, path, added)
    elif source.is_dir() or source.suffix == ".jsonl":
        _add_file(store, source / "run.jsonl" if source.is_dir() else source, added)
    else:
        _add_history(store, source, added)


def _add_file(store: History, path: Path, added: Added) -> None:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if store.known_file(digest):
            added.known += 1
            return
        run = read_run(path)
    except (OSError, ValueError) as error:
        added.damage.append(str(error))
        return
    added.damage += [f"{path.parent.name}: {problem}" for problem in run.problems]
    if not run.records:
        added.damage.append(f"{path.parent} holds no records; it was left out")
        return
    _count(added, store.add(run))
    if not run.problems:
        store.note_file(digest)


def _add_history(store: History, path: Path, added: Added) -> None:
    if path.samefile(store.path):
        return
    try:
        with History(path, create=False) as other:
            for outcome in store.merge(other):
                _count(added, outcome)
    except (Unusable, sqlite3.Error, zlib.error, ValueError, KeyError, TypeError) as error:
        added.damage.append(str(error) if isinstance(error, Unusable) else f"{path} is damaged: {error}")


def _count(added: Added, outcome: str) -> None:
    setattr(added, outcome, getattr(added, outcome) + 1)


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 added or known, 2 a path that is not there, 4 nothing to add, 6 something is damaged."""
    parser = argparse.ArgumentParser(prog="python -m harness.history", description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, metavar="RUN", help="default: runs and reports/recorded")
    parser.add_argument("--history", type=Path, default=HISTORY, help=f"the store; default: {HISTORY}")
    asked = parser.parse_args(words)
    sources = asked.sources or [place for place in (Path("runs"), Path("reports", "recorded")) if place.is_dir()]
    missing = [path for path in sources if not path.exists()]
    if missing:
        print(f"error: {missing[0]} is not there; RUNS= names runs, folders of runs and histories", file=sys.stderr)
        return USAGE
    try:
        with History(asked.history) as store:
            added = gather(store, sources)
            total = len(store.headers())
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        return INCOMPATIBLE
    for sentence in added.damage:
        print(f"problem: {sentence}")
    print(f"{asked.history}: {some(total, 'run')}; {added.new} new, {added.grown} grown, {added.known} known already")
    codes = [INCOMPATIBLE] if added.damage else []
    return worst([*codes, PASS if total else NOTHING])


if __name__ == "__main__":
    sys.exit(main())
