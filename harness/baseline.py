"""Baseline files: exact facts as text, sorted, one fact a line, so that a change of them reads well in a diff.

    # whalebench exact baseline, format 1: written by make baseline, not by hand
    # reason: first baseline
    # torch: 2.13.0

    attention.decode/v3/b128-s4096
      mla/triton: status = compiled
      mla/triton settle: registers = 30
      mla/triton turn: like attention.decode/v3-tp2/b128-s4096
      check 3f2a91bc
    # end: 1 cases, header 0c9d2e11

`like` names an earlier case with the same facts of that subject, `mla/triton *` of a contender and all it launches.
A digest a case finds what was edited by hand and says where, and yet two branches that change different cases merge.
Wins over JSON by its diffs; loses to it as soon as facts are more than numbers and words.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Value = int | float | str
Facts = dict[str, dict[str, dict[str, Value]]]
"""By case, subject and name. Subjects: `mla` (the contract's), `mla/triton`, `mla/triton settle` (one of its kernels;
`settle#2` for another form of it)."""

OPERATOR_LIST = "operator_list"  # how often each operator: explains the fact `operators`, is not compared itself
TITLE = "# whalebench exact baseline, format 1: written by make baseline, not by hand"
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
END = re.compile(r"# end: (\d+) cases, header (\w+)")


class Damaged(Exception):
    """A baseline file that is missing, cut off or was edited; the message says which, where, and what to do."""

    def __init__(self, path: Path, line: int | None, what: str) -> None:
        where = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{where}: {what}; restore it from git, or write it anew with make baseline REASON='...'")


@dataclass(frozen=True)
class Baseline:
    """Facts and what they were taken under; `header` holds reason, date and the toolchain by name."""

    header: Mapping[str, str]
    facts: Facts = field(default_factory=dict)


def owner(subject: str) -> str:
    """The contender (or technique) a subject belongs to."""
    return subject.split(" ")[0]


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


def _groups(subjects: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, Mapping[str, Value]]]:
    """Subjects by their owner."""
    groups: dict[str, dict[str, Mapping[str, Value]]] = {}
    for subject in sorted(subjects):
        groups.setdefault(owner(subject), {})[subject] = subjects[subject]
    return groups


class Writer:
    """The lines of each case; remembers where the same facts stand already."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def section(self, case: str, subjects: Mapping[str, Mapping[str, Value]]) -> list[str]:
        """A case's lines, its digest last."""
        lines = [case]
        for name, members in _groups(subjects).items():
            known = self._known(case, f"{name} *", members)
            if known and len(members) > 1:
                lines.append(f"  {name} *: like {known}")
                continue
            for subject, facts in members.items():
                known = self._known(case, subject, facts)
                if known and len(facts) > 1:
                    lines.append(f"  {subject}: like {known}")
                else:
                    lines += [f"  {subject}: {fact} = {facts[fact]}" for fact in sorted(facts)]
        return [*lines, f"  check {_digest(lines)}"]

    def _known(self, case: str, subject: str, facts: object) -> str | None:
        """The case where the same facts are written out, or None after noting that this is where."""
        key = f"{subject} {facts}"
        found = self._seen.get(key)
        if found is None:
            self._seen[key] = case
        return found


def text(baseline: Baseline) -> str:
    """The file's text."""
    header = [TITLE, *(f"# {name}: {value}" for name, value in baseline.header.items())]
    writer = Writer()
    sections = [line for case in sorted(baseline.facts) for line in writer.section(case, baseline.facts[case])]
    end = f"# end: {len(baseline.facts)} cases, header {_digest(header)}"
    return "\n".join([*header, "", *sections, end]) + "\n"


def write(path: Path, baseline: Baseline) -> None:
    """Replace the file at once: whoever is interrupted keeps the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text(baseline))
    os.replace(new, path)


def read(path: Path) -> Baseline:
    """Raises Damaged for a file that is missing or is not what `write` left."""
    try:
        lines = path.read_text().split("\n")
    except FileNotFoundError:
        raise Damaged(path, None, "there is no such baseline") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(path, None, f"it cannot be read: {error}") from error
    return Reader(path, lines).baseline()


class Reader:
    """One file being read; raises Damaged."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path, self._lines = path, lines
        self._end = 0

    def baseline(self) -> Baseline:
        """The whole file."""
        if self._lines[0] != TITLE:
            raise Damaged(self._path, 1, f"the first line is not {TITLE!r}")
        if "" not in self._lines:
            raise Damaged(self._path, len(self._lines), "it ends within its header")
        first = self._lines.index("")
        header = self._header(self._lines[:first])
        facts: Facts = {}
        for number, lines in self._sections(first + 1):
            case = lines[0]
            if facts and case <= max(facts):
                raise Damaged(self._path, number, f"{case} is not in order")
            facts[case] = {}
            for offset, line in enumerate(lines[1:], 1):
                self._fact(number + offset, line, case, facts)
        self._require_end(len(facts), self._lines[:first])
        return Baseline(header, facts)

    def _header(self, lines: list[str]) -> dict[str, str]:
        found = {}
        for number, line in enumerate(lines[1:], 2):
            name, colon, value = line.removeprefix("# ").partition(": ")
            if not colon or not line.startswith("# "):
                raise Damaged(self._path, number, f"{line!r} is no line of a header")
            found[name] = value
        return found

    def _sections(self, first: int) -> Iterator[tuple[int, list[str]]]:
        """Number of the first line, and the lines, of each case, digest checked and left out."""
        lines: list[str] = []
        for number, line in enumerate(self._lines[first:], first + 1):
            if line.startswith("  check "):
                if not lines or line != f"  check {_digest(lines)}":
                    begin = number - len(lines)
                    what = f"{lines[0] if lines else 'a case'} does not match its check in line {number}"
                    raise Damaged(self._path, begin, f"{what}: it was edited by hand or badly merged")
                yield number - len(lines), lines
                lines = []
            elif line.startswith("# end: "):
                if lines:
                    raise Damaged(self._path, number, f"{lines[0]} has no check")
                self._end = number
                return
            elif not line or line.startswith("  ") != bool(lines):
                raise Damaged(self._path, number, f"{line!r} does not belong here" if line else "it is cut off here")
            else:
                lines.append(line)
        raise Damaged(self._path, len(self._lines), "it is cut off here")

    def _fact(self, number: int, line: str, case: str, facts: Facts) -> None:
        subject, colon, rest = line[2:].partition(": ")
        name, equals, value = rest.partition(" = ")
        if rest.startswith("like "):
            there = facts.get(rest.removeprefix("like "), {})
            name = owner(subject)
            members = [s for s in there if s == subject or (subject == f"{name} *" and owner(s) == name)]
            if not members:
                raise Damaged(self._path, number, f"{line.strip()!r} names a case that has no such facts above")
            facts[case].update({member: there[member] for member in members})
        elif colon and equals:
            facts[case].setdefault(subject, {})[name] = parsed(value)
        else:
            raise Damaged(self._path, number, f"{line.strip()!r} is no fact")

    def _require_end(self, cases: int, header: list[str]) -> None:
        number, end = self._end, END.fullmatch(self._lines[self._end - 1])
        if end is None or self._lines[number:] != [""]:
            raise Damaged(self._path, number, "it does not end with this line")
        if int(end[1]) != cases:
            raise Damaged(self._path, number, f"it has {cases} cases, {end[1]} were written")
        if end[2] != _digest(header):
            raise Damaged(self._path, 1, "the header was edited by hand")


def parsed(value: str) -> Value:
    """A number where it is written as one, else the word."""
    if not NUMBER.fullmatch(value):
        return value
    return int(value) if value.lstrip("-").isdigit() else float(value)
