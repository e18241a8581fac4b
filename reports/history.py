"""The history pages: when latencies changed, with which commits and toolchains, a line for each machine.

`python -m reports.history` draws the store that `make history` fills: a page of changes with the lines that moved most,
and pages of all lines by operation. A line is never drawn across machines or methods.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.provenance import commit
from harness.record import Header, slug
from harness.store import HISTORY, History, Unusable
from harness.timeline import Change, Machine, machines
from harness.units import DASH, listed, show, some

from .controls import facet, tools
from .folder import publish
from .history_plot import plot
from .markup import Child, Html, join, tag
from .spark import spark
from .table import Cell, number, row, table

DATA = "changes.json"
SHOWN = 60
PLOTS = 8
ROWS = 500  # of a page of lines; more of one operation go on further pages
METHOD = (
    "A change is a new level that held for three runs and more and lies over 2 % from the one before: least squares on "
    "logarithms with a penalty that grows with everything looked at (PELT; see harness/changes.py), noise taken from "
    "differences of neighbouring runs. Fewer than eight runs of a line are not searched."
)
LIMITS = (
    "What the newest one or two runs began: a level must hold for three. Whether a commit is the cause: other things "
    "changed with it, and what of the toolchain is marked is what was recorded. Machines of one fingerprint can differ "
    "in cooling, neighbours and firmware. Levels between which nothing was measured are not known."
)


@dataclass(frozen=True)
class Past:
    """Everything the pages draw: how many runs there are, and the machines with their lines."""

    runs: Sequence[Header]
    machines: Sequence[Machine]

    @cached_property
    def changes(self) -> list[tuple[Machine, Change]]:
        """Of all machines, the newest first."""
        found = [(machine, change) for machine in self.machines for change in machine.changes]
        return sorted(found, key=lambda item: -int(item[0].places[item[1].place]))


def read(store: History) -> Past:
    """The store's lines. Raises Unusable for a damaged one."""
    points = store.points()
    return Past(points.runs, machines(points))


def day(header: Header) -> str:
    """The date a run started."""
    return header.started[:10] or "no date"


def operation(case: str) -> str:
    """The operation in a case's id."""
    return case.split("/")[0]


def pages(past: Past) -> dict[str, tuple[str, Html]]:
    """Title and content by file name: changes first, then lines by operation."""
    folders = lines_by_operation(past)
    found = {"index.html": ("History", index(past, folders))}
    for (name, part), members in folders.items():
        found[file_of(name, part)] = (name, lines_page(name, members))
    return found


def file_of(name: str, part: int) -> str:
    """The page of an operation's lines."""
    return f"lines-{slug(name)}{f'-{part}' if part > 1 else ''}.html"


def lines_by_operation(past: Past) -> dict[tuple[str, int], list[tuple[Machine, int]]]:
    """Lines of every operation, in parts of at most `ROWS`."""
    groups: dict[str, list[tuple[Machine, int]]] = {}
    for machine in past.machines:
        for line, (case, _) in enumerate(machine.lines):
            groups.setdefault(operation(case), []).append((machine, line))
    return {
        (name, start // ROWS + 1): members[start : start + ROWS]
        for name, members in sorted(groups.items())
        for start in range(0, len(members), ROWS)
    }


def index(past: Past, folders: dict[tuple[str, int], list[tuple[Machine, int]]]) -> Html:
    """The page of changes."""
    changes = past.changes
    return join(
        tag("p", "History", class_="kicker"),
        tag("h1", "When did it change, and why?"),
        tag("p", answer(past, changes), class_="answer"),
        tag("section", tag("h2", "Changes"), tag("p", METHOD), changes_table(changes), id="changes"),
        moved(past, changes),
        tag("section", tag("h2", "Machines"), [machine_part(machine) for machine in past.machines], id="machines"),
        tag("section", tag("h2", "All lines"), all_lines(folders), id="lines"),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
    )


def answer(past: Past, changes: Sequence[tuple[Machine, Change]]) -> str:
    """How much there is, what changed, and what of it still holds."""
    if not past.machines:
        return f"{some(len(past.runs), 'run')} and no latency in any of them."
    days = sorted(filter(None, (header.started[:10] for header in past.runs)))
    count = sum(len(machine.lines) for machine in past.machines)
    told = f"{some(len(past.runs), 'run')} on {some(len(past.machines), 'machine')}"
    told += f" from {days[0]} to {days[-1]}: " if days else ": "
    if not changes:
        return f"{told}none of {some(count, 'line')} changed its level."
    slower = [change for _, change in changes if change.ratio > 1]
    held = sum(change.held for change in slower)
    tools = sum(bool(change.tools) for _, change in changes)
    told += f"{some(len(changes), 'change')} in {some(count, 'line')}, {len(slower)} to slower, of which {held} still "
    return f"{told}hold{'s' if held == 1 else ''}; {tools} came with another toolchain."


def with_it(change: Change) -> str:
    """What else changed between the two runs."""
    found = [change.tools] if change.tools else []
    found += ["its own file"] if change.own else []
    return listed(found) or ("neither its file nor the toolchain" if change.own is False else "nothing recorded")


def change_row(machine: Machine, change: Change) -> Html:
    """A change in a table of them."""
    case, contender = machine.lines[change.line]
    one, other = machine.span(change)
    sign = "▲" if change.ratio > 1 else "▼"
    level = f"{show(change.before, 'ns')} to {show(change.after, 'ns')}"
    ratio = tag("span", f"{sign} {show(change.ratio, 'ratio')}", tag("small", level), class_="v")
    state = "holds" if change.held else "went back"
    return row(
        [
            day(machine.runs[change.place]),
            tag("code", f"{one or DASH}..{other or DASH}"),
            Cell(join(contender, tag("span", case, class_="under"))),
            number(ratio),
            state,
            Cell(with_it(change), class_="why"),
            tag("code", machine.fingerprint),
        ],
        class_="slower" if change.ratio > 1 else "faster",
        data_change="slower" if change.ratio > 1 else "faster",
    )


def changes_table(changes: Sequence[tuple[Machine, Change]]) -> Html:
    """The newest changes; how many older ones are not shown here."""
    if not changes:
        return tag("p", "None so far.", class_="quiet")
    columns = ["First run", "Commits", "Contender and case", ">Change", "Now", "What changed with it", "Machine"]
    left = len(changes) - SHOWN
    older = f"{left:,} older ones and these" if left > 0 else "The same"
    directions = (("slower", "Regressions only"), ("faster", "Improvements only"))
    return join(
        tools("Filter: decode, mla …", facet("change", "Show one direction", directions)),
        table(columns, [change_row(*item) for item in changes[:SHOWN]], class_="changes filterable", label="Changes"),
        tag("p", f"{older} as data: ", tag("a", DATA, href=DATA), class_="note"),
    )


def data(changes: Sequence[tuple[Machine, Change]]) -> list[dict[str, Any]]:
    """Every change as JSON data, the newest first; levels in nanoseconds."""
    return [
        {
            "case": machine.lines[change.line][0],
            "contender": machine.lines[change.line][1],
            "machine": machine.fingerprint,
            "method": machine.method,
            "run": machine.runs[change.place].run,
            "started": machine.runs[change.place].started,
            "commits": machine.span(change),
            "before_ns": change.before,
            "after_ns": change.after,
            "ratio": change.ratio,
            "holds": change.held,
            "toolchain": change.tools,
            "own_file_changed": change.own,
        }
        for machine, change in changes
    ]


def moved(past: Past, changes: Sequence[tuple[Machine, Change]]) -> Html | None:
    """The lines whose newest level is farthest from their first, drawn; without changes, the longest lines."""
    ranked = sorted(changes, key=lambda item: -_distance(item[0], item[1].line))
    keys = [machine.lines[change.line] for machine, change in ranked]
    lengths = [
        (int(machine.measured(line).size), key) for machine in past.machines for line, key in enumerate(machine.lines)
    ]
    keys += [key for _, key in sorted(lengths, key=lambda item: -item[0])]
    drawn = list(dict.fromkeys(keys))[: PLOTS if changes else 2]
    if not drawn:
        return None
    title = "Lines that moved most" if changes else "The longest lines"
    found = [plot(past.runs, past.machines, key, f"line-{number}").html() for number, key in enumerate(drawn, 1)]
    return tag("section", tag("h2", title), found, id="moved")


def _distance(machine: Machine, line: int) -> float:
    """How far a line's newest level is from its first, as a logarithm."""
    values = machine.levels(line)
    return abs(float(np.log(values[-1] / values[0])))


def machine_part(machine: Machine) -> Html:
    """A machine: its runs, and when its toolchain changed."""
    first, last = machine.runs[0], machine.runs[-1]
    facts = f"{some(len(machine.runs), 'run')}, {some(len(machine.lines), 'line')}, {day(first)} to {day(last)}"
    rows = [
        row([day(machine.runs[place]), tag("code", commit(machine.runs[place]) or DASH), words])
        for place, words in reversed(machine.tools[-SHOWN:])
    ]
    title = (machine.label, " ", tag("code", machine.fingerprint), f" method {machine.method}")
    changed = table(["From", "Commit", "Toolchain"], rows, label=f"Changes of the toolchain of {machine.fingerprint}")
    return join(
        tag("h3", title),
        tag("p", f"{facts}."),
        changed if rows else tag("p", "Its toolchain did not change.", class_="quiet"),
    )


def all_lines(folders: dict[tuple[str, int], list[tuple[Machine, int]]]) -> Html:
    """Links to the pages of lines, with what is on them."""
    rows = []
    for (name, part), members in folders.items():
        words = f"{name}, part {part}" if part > 1 or (name, 2) in folders else name
        changed = sum(bool(machine.points[line]) for machine, line in members)
        rows.append(row([tag("a", words, href=file_of(name, part)), number(len(members)), number(changed)]))
    return table(["Operation", ">Lines", ">With a change"], rows, label="Lines by operation")


def lines_page(name: str, members: Sequence[tuple[Machine, int]]) -> Html:
    """Every line of an operation as a row, by machine; those that changed last first."""
    changed = sum(bool(machine.points[line]) for machine, line in members)
    told = f"{changed} of {some(len(members), 'line')} changed their level." if changed else (
        f"None of {some(len(members), 'line')} changed its level."
    )  # fmt: skip
    words = tag("input", type="search", class_="filter", placeholder="Filter: mla, v3 …", aria_label="Filter rows")
    groups: dict[int, list[tuple[Machine, int]]] = {}
    for machine, line in members:
        groups.setdefault(id(machine), []).append((machine, line))
    bodies: list[Child] = []
    for found in groups.values():
        machine = found[0][0]
        head = tag(
            "th", f"{machine.label} ({machine.fingerprint}), method {machine.method}", colspan=6, scope="rowgroup"
        )
        ordered = sorted(found, key=lambda item: (-max(item[0].points[item[1]], default=-1), item[0].lines[item[1]]))
        bodies += [tag("tr", head, class_="group"), *(line_row(*item) for item in ordered)]
    columns = ["Contender and case", "Latency over runs", ">Runs", ">Newest level", ">To the first", "Last change"]
    return join(
        tag("p", tag("a", "History", href="index.html"), class_="kicker"),
        tag("h1", f"How did {name} move?"),
        tag("p", told, class_="answer"),
        tag(
            "section",
            tag("h2", "Every line"),
            tag("div", words, tag("span", class_="filtered", aria_live="polite"), class_="tools"),
            table(columns, bodies, class_="filterable lines", label=f"Lines of {name}"),
        ),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
    )


def line_row(machine: Machine, line: int) -> Html:
    """A line: drawing, runs, level, and its last change in words."""
    case, contender = machine.lines[line]
    values = machine.levels(line)
    last: Child = DASH
    if machine.points[line]:
        place = machine.points[line][-1]
        header, ratio = machine.runs[place], float(values[-1] / values[-2])
        told = f"{'▲' if ratio > 1 else '▼'} {show(ratio, 'ratio')} "
        last = (told, tag("span", f"{day(header)} {commit(header)}", class_="under"))
    return row(
        [
            Cell(join(contender, tag("span", case, class_="under"))),
            spark(machine, line),
            number(int(machine.measured(line).size)),
            number(show(float(values[-1]), "ns")),
            number(show(float(values[-1] / values[0]), "ratio") if len(values) > 1 else DASH),
            Cell(last),
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 usage, 6 the store is damaged or another program's."""
    parser = argparse.ArgumentParser(prog="python -m reports.history", description=__doc__)
    parser.add_argument("--history", type=Path, default=HISTORY, help=f"the store; default: {HISTORY}")
    parser.add_argument("--out", type=Path, default=Path("reports", "site-history"), help="where the pages go")
    asked = parser.parse_args(words)
    try:
        with History(asked.history, create=False) as store:
            past = read(store)
        written = publish(asked.out, pages(past), {DATA: json.dumps(data(past.changes), indent=1)})
    except Unusable as error:
        print(f"error: {error}", file=sys.stderr)
        return 6
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} pages from {some(len(past.runs), 'run')}.")
    print(f"Open {written[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
