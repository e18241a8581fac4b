"""What `make kernels` found, as files: `kernels.json` with facts by case and kernel, and texts beside it.

`<code>.sass.txt` and `<code>.ptx.txt` are named by the digest of the machine code; `<base>-<code>.diff.txt` is the
difference of two. Pages and people read this module; it needs the standard library and nothing else. Facts hold for
the sources whose digests are here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
NAME = "kernels.json"
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Kernel:
    """One machine code of a contender: facts as `collector.py` has them, and the cases that launch it."""

    name: str
    contender: str
    facts: Facts
    cases: tuple[str, ...]

    @property
    def code(self) -> str:
        """The digest of its machine code."""
        return str(self.facts["code"])


@dataclass(frozen=True)
class Change:
    """A kernel that is not the same code in both revisions; `before` or `after` is None where one has none."""

    contender: str
    name: str
    before: Facts | None
    after: Facts | None
    cases: tuple[str, ...]

    @property
    def differing(self) -> list[tuple[str, Any, Any]]:
        """Facts that differ, the code's own name left out."""
        before, after = self.before or {}, self.after or {}
        names = [name for name in dict.fromkeys([*after, *before]) if name != "code"]
        return [(n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)]

    @property
    def diff(self) -> str | None:
        """The file with the difference of the machine codes, where there are two."""
        return f"{self.before['code']}-{self.after['code']}.diff.txt" if self.before and self.after else None


@dataclass(frozen=True)
class Listing:
    """Of one revision, and of the `base` it is held against, if one was named.

    facts      by case and subject, a contender or one of its kernels, as the exact gate names them
    toolchain  versions that machine code depends on
    sources    digests of the implementations' files, by path
    reasons    why a contender has no kernels, by case and contender, joined by a space
    """

    revision: str
    facts: Mapping[str, Mapping[str, Facts]]
    toolchain: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    base_facts: Mapping[str, Mapping[str, Facts]] = field(default_factory=dict)

    def of(self, case: str) -> list[Kernel]:
        """The kernels of a case."""
        subjects = self.facts.get(case, {})
        return [Kernel(*_named(name), facts, (case,)) for name, facts in subjects.items() if "code" in facts]

    def kernels(self) -> list[Kernel]:
        """Every code of every contender once, by contender and kernel."""
        found: dict[tuple[str, str, str], Kernel] = {}
        for case in self.facts:
            for one in self.of(case):
                key = (one.contender, one.name, one.code)
                known = found.get(key)
                found[key] = one if known is None else dataclasses.replace(known, cases=(*known.cases, case))
        return [found[key] for key in sorted(found)]

    def changes(self) -> list[Change]:
        """Kernels whose code differs from the base's, those with the same difference together."""
        found: dict[tuple[str, str, str, str], Change] = {}
        for case, subject in sorted({*_subjects(self.facts), *_subjects(self.base_facts)}):
            before, after = (known.get(case, {}).get(subject) for known in (self.base_facts, self.facts))
            then, now = (str(facts["code"]) if facts else "" for facts in (before, after))
            if then != now:
                name, contender = _named(subject)
                key = (contender, name, then, now)
                known = found.get(key)
                cases = (case,) if known is None else (*known.cases, case)
                found[key] = Change(contender, name, before, after, cases)
        return [found[key] for key in sorted(found)]


def _named(subject: str) -> tuple[str, str]:
    """Kernel and contender of a subject: `mla/triton settle#2`; the number tells forms apart."""
    contender, _, kernel = subject.partition(" ")
    return kernel, contender


def _subjects(facts: Mapping[str, Mapping[str, Facts]]) -> Iterator[tuple[str, str]]:
    for case, subjects in facts.items():
        for subject, known in subjects.items():
            if "code" in known:
                yield case, subject


def sources(root: Path, package: str) -> dict[str, str]:
    """Digests of a package's files, by path from `root`."""
    files = sorted((root / package).rglob("*.py"))
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def write(listing: Listing, folder: Path) -> Path:
    """Write the facts into `folder`, which holds the texts; returns the file."""
    path = folder / NAME
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps({"schema": SCHEMA, "type": "kernels", **dataclasses.asdict(listing)}, indent=1) + "\n"
    )
    partial.replace(path)
    return path


def read(folder: Path) -> Listing:
    """The inverse of `write`. Raises OSError, or ValueError for what is no listing of this schema."""
    path = folder / NAME
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA or data.pop("type", None) != "kernels":
            raise ValueError(f"not a listing of schema {SCHEMA}")
        found = Listing(**data)
        found.kernels(), found.changes()
        return found
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: {error}; make kernels writes it anew") from error
