"""Kernels as a person reads them in the terminal: a row a machine code, then what differs from the base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..units import aligned, some, whole
from .listing import Change, Facts, Kernel, Listing

COLUMNS = {  # by fact: the head of its column
    "threads": "threads",
    "stages": "stages",
    "registers": "registers",
    "spilled": "spilled",
    "shared": "shared",
    "programs": "programs",
    "occupancy": "occupancy",
    "bound": "bound by",
    "wgmma": "wgmma",
    "mma": "mma",
    "tma": "TMA",
    "convert": "convert",
    "local": "local",
    "instructions": "instructions",
}
MEANING = (
    "spilled: bytes of a thread; shared: bytes of a program; programs: how many a multiprocessor holds, bound by what",
    "wgmma, mma: matrix instructions of a warp group, of a warp; convert: between formats",
    "local: loads and stores of local memory; instructions are counted in the code, not as executed",
)


def word(name: str, value: Any) -> str:
    """A fact as it is shown."""
    if value is None:
        return "-"
    if name == "occupancy":
        return f"{value:.0%}"
    return whole(value) if isinstance(value, int) else str(value)


def failed(listing: Listing) -> Iterator[str]:
    """A sentence for each contender that should have compiled and did not."""
    for case, subjects in listing.facts.items():
        for name, facts in subjects.items():
            if facts.get("status") not in (None, "compiled", "unavailable"):
                yield f"{case} {name}: {facts['status']}: {listing.reasons.get(f'{case} {name}', 'no reason is known')}"


def lines(listing: Listing) -> list[str]:
    """The table, what did not compile, and the differences."""
    kernels = listing.kernels()
    head = ["kernel", "contender", "cases", *COLUMNS.values()]
    told = ["", *aligned([head, *(_row(one) for one in kernels)]), "", *MEANING]
    count = some(len(kernels), "machine code")
    told += [f"{count} of {some(len(listing.facts), 'case')}, {listing.revision}", *failed(listing)]
    if listing.base is not None:
        changes = listing.changes()
        told += ["", f"against {listing.base}: {some(len(changes), 'kernel')} with another machine code"]
        told += [line for change in changes for line in _change(change)]
    return told


def _row(one: Kernel) -> list[str]:
    return [one.name, one.contender, str(len(one.cases)), *(word(name, one.facts.get(name)) for name in COLUMNS)]


def _change(change: Change) -> Iterator[str]:
    where = f"{change.contender} {change.name}, {some(len(change.cases), 'case')} such as {change.cases[0]}"
    if change.before is None or change.after is None:
        yield f"  {'new' if change.before is None else 'gone'}: {where}"
        return
    yield f"  {where}: {told(change) or 'the same facts in another code'}; {change.diff}"


def told(change: Change) -> str:
    """The facts that differ, before and after."""
    pairs = [(COLUMNS.get(name, name), name, before, after) for name, before, after in change.differing]
    return ", ".join(f"{head} {word(name, before)} -> {word(name, after)}" for head, name, before, after in pairs)


def facts_of(one: Facts) -> Iterator[tuple[str, str]]:
    """Heads and words of every fact that has a column, for a page."""
    for name, head in COLUMNS.items():
        yield head, word(name, one.get(name))
