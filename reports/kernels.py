"""The kernels as machine code: what `make kernels` found, as pages beside the site and as a section of each case.

`python -m reports.kernels FOLDER` writes a table of facts, texts of SASS and PTX, and differences between two
revisions into a folder beside the site, which takes it in (`beside.py`). Pages of cases show the facts of their own
kernels and link to the texts. Loses times: a kernel with fewer instructions need not be the faster one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.kernels.listing import NAME, Change, Kernel, Listing, read
from harness.kernels.table import COLUMNS, MEANING, failed, told, word
from harness.units import some

from . import facts
from .folder import publish
from .markup import Child, Html, join, tag
from .table import Cell, number, row, table
from .view import View, link, page_of

WORDS = ("bound",)  # facts that are words, not figures
LIMITS = (
    "How often an instruction runs, and how long anything takes: instructions are counted where they stand, and a loop "
    "counts once. Registers are those at launch; kernels whose warps have different roles move them later."
)


def page(listing: Listing) -> Html:
    """The content of the page."""
    kernels = listing.kernels()
    rows = [row([tag("code", one.name), one.contender, cases_of(one), *cells(one), texts(one, "")]) for one in kernels]
    heads = ["Kernel", "Contender", "Cases", *heads_of(), "Code"]
    failures = [tag("li", sentence) for sentence in failed(listing)]
    return join(
        tag("p", "Kernels", class_="kicker"),
        tag("h1", "What do the compiler's results look like?"),
        tag("p", answer(listing, kernels), class_="answer"),
        tag("section", tag("h2", "Every machine code"), table(heads, rows, label="Kernels"), tag("p", meaning())),
        tag("section", tag("h2", "Not compiled"), tag("ul", failures, class_="failures")) if failures else None,
        differences(listing) if listing.base is not None else None,
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
        tag("p", "All of it as data: ", tag("a", NAME, href=NAME), class_="note"),
    )


def answer(listing: Listing, kernels: Sequence[Kernel]) -> str:
    """How many there are, how many spill, and which run alone on a multiprocessor."""
    spilling = sum(bool(one.facts.get("spilled")) for one in kernels)
    alone = sum(one.facts.get("programs") == 1 for one in kernels)
    tools = ", ".join(f"{name} {listing.toolchain[name]}" for name in ("triton", "ptxas") if name in listing.toolchain)
    return (
        f"{some(len(kernels), 'machine code')} in {some(len(listing.facts), 'case')}, compiled without a GPU from "
        f"{listing.revision}{f' by {tools}' if tools else ''}: {counted(spilling, 'spills', 'spill')} registers, "
        f"{counted(alone, 'fills', 'fill')} a multiprocessor with one program."
    )


def counted(count: int, one: str, many: str) -> str:
    """`none spills`, `one spills`, `3 spill`."""
    return f"{'one' if count else 'none'} {one}" if count < 2 else f"{count} {many}"


def meaning() -> str:
    """What the columns count."""
    return f"S{'; '.join(MEANING)[1:]}."


def heads_of() -> list[str]:
    """Heads of the facts' columns."""
    return [f"{'' if name in WORDS else '>'}{head[:1].upper()}{head[1:]}" for name, head in COLUMNS.items()]


def cells(one: Kernel) -> list[Cell | Child]:
    """A kernel's facts; occupancy is drawn behind its figure."""
    found: list[Cell | Child] = []
    for name in COLUMNS:
        value = one.facts.get(name)
        share = float(value) if name == "occupancy" and isinstance(value, (int, float)) else None
        found.append(word(name, value) if name in WORDS else number(word(name, value), share=share))
    return found


def cases_of(one: Kernel) -> Html:
    """The first case, and how many more."""
    more = f" and {len(one.cases) - 1} more" if len(one.cases) > 1 else ""
    return tag("span", tag("code", one.cases[0]), more, title="\n".join(one.cases))


def texts(one: Kernel, to: str) -> Html:
    """Links to the machine code and to the PTX; `to` is the way to their folder."""
    known = [(word, f"{to}{one.code}.{word.lower()}.txt") for word in ("SASS", "PTX")]
    return join(*((tag("a", word, href=address), " ") for word, address in known))


def differences(listing: Listing) -> Html:
    """What is another code than in the base."""
    changes = listing.changes()
    items = [tag("li", change_line(change)) for change in changes]
    lead = f"Against {listing.base}: {some(len(changes), 'kernel')} with another machine code."
    return tag("section", tag("h2", "Against another revision"), tag("p", lead), tag("ul", items) if items else None)


def change_line(change: Change) -> Html:
    """One difference: where, which facts, and the code's."""
    where = join(tag("code", change.name), f" of {change.contender} in {some(len(change.cases), 'case')}")
    where = join(where, ", such as " if len(change.cases) > 1 else ", ", tag("code", change.cases[0]))
    if change.diff is None:
        return join(where, ": new" if change.before is None else ": gone")
    facts_told = told(change).replace("->", "→") or "the same facts in another code"
    return join(where, f": {facts_told}; ", tag("a", "difference of the codes", href=change.diff))


def beside(out: Path) -> Listing | None:
    """What `make kernels` last put beside the site `out`; None without it, and where it is damaged."""
    try:
        return read(out.with_name(f"{out.name}-kernels"))
    except (OSError, ValueError):
        return None


def section(view: View, case: facts.Case) -> Html | None:
    """The kernels of a case's contenders, with a word where a contender's file is not the one that was compiled."""
    listing = view.listing
    kernels = [] if listing is None else listing.of(case.id)
    if listing is None or not kernels:
        return None
    to = link("kernels/", page_of(case.id).count("/") + 1)
    rows = [row([tag("code", one.name), one.contender, *cells(one), texts(one, to)]) for one in kernels]
    other = [
        record.contender
        for record in case.records
        if record.contender in {one.contender for one in kernels}
        and record.source.get("digest")
        and not listing.sources.get(str(record.source.get("file")), "").startswith(record.source["digest"])
    ]
    caution = f"Compiled from another state of the file than was measured: {', '.join(other)}." if other else None
    return join(
        tag("p", f"Compiled without a GPU from {listing.revision}. {meaning()}"),
        tag("p", caution, class_="caution") if caution else None,
        table(["Kernel", "Contender", *heads_of(), "Code"], rows, label=f"Kernels of {case.id}"),
        tag("p", tag("a", "Every kernel, and what changed", href=f"{to}index.html")),
    )


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 where there is nothing to show or it cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m reports.kernels", description="Pages of what make kernels found.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/kernels"), help="what make kernels wrote")
    parser.add_argument("--out", type=Path, default=Path("reports/site-kernels"), help="where the pages go")
    asked = parser.parse_args(words)
    try:
        listing = read(asked.folder)
        files = {path.name: path.read_text() for path in sorted(asked.folder.glob("*.txt"))}
        files[NAME] = (asked.folder / NAME).read_text()
        written = publish(asked.out, {"index.html": ("Kernels", page(listing))}, files)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Open {written[0]}; make report takes it into the site")
    return 0


if __name__ == "__main__":
    sys.exit(main())
