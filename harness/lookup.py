"""Finds the run that a person means: a folder, a record file, the name of a run, or a git revision.

A revision stands for the newest run whose header names its commit, below `runs/`, `reports/recorded/` or in the
history; among those of the other run's machine first, where there are any. Nothing is measured here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .deviation import INCOMPATIBLE, USAGE
from .provenance import commit, fingerprint, moment
from .record import Header, Run, read_header, read_run
from .store import HISTORY, History, Unusable

PLACES = (Path("runs"), Path("reports", "recorded"))
COMMIT = re.compile(r"[0-9a-f]{7,40}")


class NotFound(Exception):
    """No run is meant by these words, or it cannot be read; `code` is the exit status."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def folders(place: Path) -> list[Path]:
    """Folders below `place` that hold a run, at any depth, by name."""
    return sorted(path.parent for path in place.rglob("run.jsonl")) if place.is_dir() else []


class Finder:
    """Looks for runs in a checkout and in a history."""

    def __init__(self, root: Path, history: Path = HISTORY) -> None:
        self.root = root
        self.history = history if history.is_absolute() else root / history

    def two(self, before: str, after: str) -> tuple[Run, Run]:
        """Both runs of a comparison. Raises NotFound."""
        one, other = self._direct(before), self._direct(after)
        if one is None:
            one = self._of_revision(before, other)
        if other is None:
            other = self._of_revision(after, one)
        return one, other

    def _direct(self, word: str) -> Run | None:
        """The run at a path or of a name; None where the word is neither."""
        for path in (Path(word), self.root / word, *(self.root / place / word for place in PLACES)):
            if path.is_file() or (path.is_dir() and (path / "run.jsonl").is_file()):
                return self._read(path)
        if Path(word).is_dir():
            raise NotFound(f"{word} holds no run: no run.jsonl in it")
        return None

    @staticmethod
    def _read(path: Path) -> Run:
        try:
            run = read_run(path)
        except (OSError, ValueError) as error:
            hint = "; a JSON file of pytest-benchmark becomes a run by make import FILE=" if _whole_json(path) else ""
            raise NotFound(f"{error}{hint}", INCOMPATIBLE) from error
        if not run.records:
            said = "; ".join(run.problems[:2]) or "it was stopped before the first was finished"
            raise NotFound(f"{path} holds no records: {said}", INCOMPATIBLE)
        return run

    def _of_revision(self, word: str, other: Run | None) -> Run:
        sha = self._commit(word)
        if sha is None:
            raise NotFound(f"{word} is no run, no record file and no git revision of {self.root}")
        found = [(header, path) for header, path in self._headers() if _names(header, sha)]
        if not found:
            raise NotFound(self._none(word, sha))
        machine = fingerprint(other.header) if other else None
        header, path = max(found, key=lambda item: (fingerprint(item[0]) == machine, moment(item[0]), item[0].run))
        return self._read(path) if path is not None else self._kept(header)

    def _none(self, word: str, sha: str) -> str:
        places = ", ".join(map(str, PLACES))
        name = sha[:10]
        return (
            f"no run of {word} (commit {name}) is in {places} or the history; measure one: git worktree add "
            f"../{name} {name} && make -C ../{name} bench, then give its folder ../{name}/runs/..."
        )

    def _commit(self, word: str) -> str | None:
        """The full commit of a revision; a commit of another clone as it stands."""
        words = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}"]
        try:
            done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired, ValueError):
            done = None
        if done is not None and done.returncode == 0:
            return done.stdout.strip()
        return word if COMMIT.fullmatch(word) else None

    def _headers(self) -> Iterator[tuple[Header, Path | None]]:
        """Every readable header with its folder; None for a run of the history."""
        for place in PLACES:
            for folder in folders(self.root / place):
                try:
                    yield read_header(folder), folder
                except (OSError, ValueError):
                    continue
        if self.history.is_file():
            with self._opened() as store:
                for header in store.headers():
                    yield header, None

    def _kept(self, header: Header) -> Run:
        with self._opened() as store:
            return store.run(header)

    def _opened(self) -> History:
        try:
            return History(self.history, create=False)
        except Unusable as error:
            raise NotFound(str(error), INCOMPATIBLE) from error


def _names(header: Header, sha: str) -> bool:
    found = commit(header).rstrip("*")
    return len(found) >= 7 and (sha.startswith(found) or found.startswith(sha))


def _whole_json(path: Path) -> bool:
    """Whether a file is one JSON object with benchmarks, as pytest-benchmark writes it."""
    if not path.is_file():
        return False
    head: Sequence[str] = path.read_text(errors="replace")[:100_000].split("\n", 1)
    return head[0].strip() == "{" and any('"benchmarks"' in part or '"machine_info"' in part for part in head)
