"""The history's store: every run in one SQLite file, whole but for raw samples, indexed by case, contender and date.

SQLite because it comes with Python, is one file to copy, appends while others read, takes concurrent writers on one
machine, and says by itself when it is damaged. Columns of Parquet would be smaller and need a package that measuring
does not. Machines that share no disk keep a file each; adding one file to another merges them, in any order, as often
as one likes: a run is known by its name, start, machine and options, and of two records of one contender in one run
stays the one that passed, then that of more samples, then of the greater text. Loses to a server where people on
several machines write at the same time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .provenance import fingerprint, moment
from .record import Header, Record, Run, header_from_data, record_from_data

HISTORY = Path("runs", "history.sqlite")
APPLICATION = 0x77686273
VERSION = 1
CHUNK = 50_000
BATCH = 64
TABLES = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    identity TEXT NOT NULL UNIQUE,  -- digest of name, start, machine and options
    content TEXT NOT NULL,          -- digest of all records
    name TEXT NOT NULL,
    started REAL NOT NULL,          -- seconds since 1970
    fingerprint TEXT NOT NULL,
    method TEXT NOT NULL,
    header TEXT NOT NULL,           -- JSON
    records BLOB NOT NULL           -- JSON lines, deflated
);
CREATE TABLE series (id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, contender TEXT NOT NULL,
    UNIQUE (case_id, contender));
CREATE TABLE source (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
CREATE TABLE point (
    run INTEGER NOT NULL, series INTEGER NOT NULL, status TEXT NOT NULL,
    latency REAL, low REAL, high REAL,  -- nanoseconds
    source INTEGER NOT NULL,
    PRIMARY KEY (run, series)
) WITHOUT ROWID;
CREATE TABLE file (digest TEXT PRIMARY KEY) WITHOUT ROWID;  -- run files that are in already
"""
Array = NDArray[np.float64]


class Unusable(Exception):
    """A history that is damaged, foreign, newer than this program or cannot be opened; the message is a sentence."""


@dataclass(frozen=True)
class Points:
    """The index as columns [points]: position of run and series, nanoseconds (NaN where unknown), position of source.

    `runs` are headers in order of their start, `series` cases with contenders, `sources` digests.
    """

    runs: Sequence[Header]
    series: Sequence[tuple[str, str]]
    sources: Sequence[str]
    run: NDArray[np.int64]
    line: NDArray[np.int64]
    latency: Array
    low: Array
    high: Array
    source: NDArray[np.int64]


class History:
    """An open store; use it as a context. Raises Unusable where the file is none that this version can read."""

    def __init__(self, path: Path, create: bool = True) -> None:
        self.path = path
        self._together, self._pending = False, 0
        if not create and not path.is_file():
            raise Unusable(f"there is no history at {path}; make history begins one")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store = sqlite3.connect(path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise Unusable(f"{path} cannot be opened: {error}") from error
        try:
            self._prepare()
            self._recall()
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> History:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._store.close()

    def _query(self, words: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._store.execute(words, values)
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Unusable:
        if "locked" in str(error):
            return Unusable(f"{self.path} is being written by another process; try again")
        if isinstance(error, sqlite3.OperationalError) and "readonly" in str(error):
            return Unusable(f"{self.path} cannot be written: {error}")
        hint = "restore it, or move it away and add its runs again with make history RUNS='...'"
        return Unusable(f"{self.path} is damaged or no history ({error}); {hint}")

    def _prepare(self) -> None:
        """Check whose file this is and that it is whole; a new one gets its tables."""
        (application,), (version,) = (self._query(f"PRAGMA {n}").fetchone() for n in ("application_id", "user_version"))
        (pages,), (size,) = (self._query(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        if not application and not self._query("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._begin()
            if not self._query("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for words in TABLES.split(";"):
                    self._query(words)
                self._query(f"PRAGMA application_id = {APPLICATION}")
                self._query(f"PRAGMA user_version = {VERSION}")
            self._query("COMMIT")
            return
        if application != APPLICATION:
            raise Unusable(f"{self.path} is a database of another program; give HISTORY= another path")
        if version != VERSION:
            newer = "newer" if version > VERSION else "older"
            raise Unusable(
                f"{self.path} has schema {version}, {newer} than {VERSION}, which this checkout reads; "
                "use the checkout that wrote it, or add the runs to a new file with HISTORY="
            )
        if self.path.stat().st_size < pages * size:
            held = self.path.stat().st_size
            raise self._unusable(ValueError(f"it is cut off: {held} bytes of {pages * size}"))

    def _recall(self) -> None:
        """Numbers of series and sources that are in the file."""
        self._series = {(case, name): int(i) for i, case, name in self._query("SELECT * FROM series")}
        self._sources = {digest: int(i) for i, digest in self._query("SELECT id, digest FROM source")}

    def _begin(self) -> None:
        self._query("BEGIN IMMEDIATE")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Bring what is added inside to disk every `BATCH` runs and at the end, not run by run."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._settle()

    def _settle(self) -> None:
        """Commit, unless more is to come."""
        self._pending += 1
        if self._store.in_transaction and (not self._together or self._pending >= BATCH):
            self._query("COMMIT")
            self._pending = 0

    def add(self, run: Run) -> str:
        """Put a run in, at once or not at all: `new`, `grown` (it brought records) or `known`."""
        return self._put(run.header, {(r.case, r.contender): _text(r) for r in run.records})

    def _put(self, header: Header, lines: dict[tuple[str, str], str]) -> str:
        if not self._store.in_transaction:
            self._begin()
        self._query("SAVEPOINT put")
        try:
            outcome = self._merged(header, lines)
        except BaseException:
            self._store.execute("ROLLBACK TO put")
            self._store.execute("RELEASE put")
            self._settle()
            self._recall()
            raise
        self._query("RELEASE put")
        self._settle()
        return outcome

    def _merged(self, header: Header, lines: dict[tuple[str, str], str]) -> str:
        """Write the union of a run's records and those that are here already."""
        who = identity(header)
        found = self._query("SELECT id, content, records FROM run WHERE identity = ?", who).fetchone()
        if found is not None:
            kept = {_key(line): line for line in _unpacked(found[2])}
            for key, line in lines.items():
                kept[key] = max(kept.get(key, line), line, key=_rank)
            lines = kept
        lines = dict(sorted(lines.items()))
        content = _digest("\n".join(lines.values()))
        if found is not None and found[1] == content:
            return "known"
        self._write(None if found is None else found[0], who, content, header, lines)
        return "new" if found is None else "grown"

    def _write(
        self, number: int | None, who: str, content: str, header: Header, lines: dict[tuple[str, str], str]
    ) -> None:
        if number is not None:
            self._query("DELETE FROM point WHERE run = ?", number)
            self._query("DELETE FROM run WHERE id = ?", number)
        head = json.dumps(dataclasses.asdict(header), default=str)
        body = zlib.compress("\n".join(lines.values()).encode())
        facts = (who, content, header.run, moment(header), fingerprint(header), header.method, head, body)
        words = "INSERT INTO run (identity, content, name, started, fingerprint, method, header, records) VALUES"
        number = self._query(f"{words} (?, ?, ?, ?, ?, ?, ?, ?)", *facts).lastrowid
        rows = []
        for (case, contender), line in lines.items():
            record = json.loads(line)
            if record["status"] != "unavailable":
                latency = record["figures"].get("latency") or {}
                times = (latency.get("value"), latency.get("low"), latency.get("high"))
                source = self._source(str(record["source"].get("digest", "")))
                rows.append((number, self._line(case, contender), record["status"], *times, source))
        try:
            self._store.executemany("INSERT INTO point VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _line(self, case: str, contender: str) -> int:
        key = (case, contender)
        if key not in self._series:
            self._query("INSERT OR IGNORE INTO series (case_id, contender) VALUES (?, ?)", *key)
            words = "SELECT id FROM series WHERE case_id = ? AND contender = ?"
            self._series[key] = int(self._query(words, *key).fetchone()[0])
        return self._series[key]

    def _source(self, digest: str) -> int:
        if digest not in self._sources:
            self._query("INSERT OR IGNORE INTO source (digest) VALUES (?)", digest)
            self._sources[digest] = int(self._query("SELECT id FROM source WHERE digest = ?", digest).fetchone()[0])
        return self._sources[digest]

    def merge(self, other: History) -> Iterator[str]:
        """Put every run of another history in; yields what became of each."""
        for head, body in other._query("SELECT header, records FROM run"):
            yield self._put(header_from_data(json.loads(head)), {_key(line): line for line in _unpacked(body)})

    def headers(self) -> list[Header]:
        """Of every run, in order of their start."""
        found = self._query("SELECT header FROM run ORDER BY started, identity")
        return [header_from_data(json.loads(head)) for (head,) in found]

    def run(self, header: Header) -> Run:
        """A run as it was added, without its raw samples. Raises KeyError for one that is not here."""
        found = self._query("SELECT records FROM run WHERE identity = ?", identity(header)).fetchone()
        if found is None:
            raise KeyError(header.run)
        records = tuple(record_from_data(json.loads(line)) for line in _unpacked(found[0]))
        return Run(self.path, header, records)

    def points(self) -> Points:
        """The whole index. Raises Unusable for a damaged file."""
        order = [number for (number,) in self._query("SELECT id FROM run ORDER BY started, identity")]
        lines = self._query("SELECT id, case_id, contender FROM series ORDER BY case_id, contender").fetchall()
        sources = self._query("SELECT id, digest FROM source ORDER BY id").fetchall()
        cursor = self._query("SELECT run, series, latency, low, high, source FROM point")
        chunks = []
        try:
            while rows := cursor.fetchmany(CHUNK):
                chunks.append(np.array(rows, dtype=np.float64))
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        found = np.concatenate(chunks) if chunks else np.empty((0, 6))
        run = _places(order, found[:, 0])
        line = _places([number for number, *_ in lines], found[:, 1])
        source = _places([number for number, _ in sources], found[:, 5])
        series = [(case, contender) for _, case, contender in lines]
        digests = [digest for _, digest in sources]
        return Points(self.headers(), series, digests, run, line, found[:, 2], found[:, 3], found[:, 4], source)

    def known_file(self, digest: str) -> bool:
        """Whether a run file with this digest went in before."""
        return self._query("SELECT 1 FROM file WHERE digest = ?", digest).fetchone() is not None

    def note_file(self, digest: str) -> None:
        """Remember that a run file went in."""
        if not self._store.in_transaction:
            self._begin()
        self._query("INSERT OR IGNORE INTO file VALUES (?)", digest)
        self._settle()


def _places(keys: Sequence[int], column: Array) -> NDArray[np.int64]:
    """Position of each number of `column` [points] in `keys`."""
    table = np.zeros(max(keys, default=0) + 1, dtype=np.int64)
    table[list(keys)] = np.arange(len(keys))
    found: NDArray[np.int64] = table[column.astype(np.int64)]
    return found


def identity(header: Header) -> str:
    """What makes a run itself, however often it was resumed, thinned or copied."""
    who = [header.run, header.started, fingerprint(header), header.options]
    return _digest(json.dumps(who, sort_keys=True, default=str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _text(record: Record) -> str:
    known = {**vars(record), "figures": {name: vars(figure) for name, figure in record.figures.items()}}
    return json.dumps(known, sort_keys=True, default=str, separators=(",", ":"))


def _key(line: str) -> tuple[str, str]:
    found = json.loads(line)
    return found["case"], f"{found['technique']}/{found['implementation']}"


def _rank(line: str) -> tuple[bool, float, str]:
    found = json.loads(line)
    count = (found.get("timing") or {}).get("samples")
    return found["status"] == "passed", count if isinstance(count, (int, float)) else 0, line


def _unpacked(body: bytes) -> list[str]:
    return zlib.decompress(body).decode().split("\n") if body else []
