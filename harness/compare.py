"""Two runs in the terminal: what they were taken on, then a verdict on each time, exact metrics, and what is gone.

`python -m harness.compare A B` takes run folders, record files, names of runs or git revisions. The verdicts are
`pairing.py`'s, which the page and the gate show too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .deviation import USAGE, sentences
from .lookup import Finder, NotFound
from .pairing import CODES, Pair, Pairing, geometric_mean, pair, scale
from .provenance import commit, label
from .record import Figure, Run
from .statistics import Estimate
from .store import HISTORY
from .units import interval, plain, show, some
from .verdict import percent

SHOWN = 25
SHOWN_UNCLEAR = 8
COLUMNS = ("case", "contender", "A", "B", "B / A", "95 % interval", "verdict", "why")


def lines(found: Pairing) -> list[str]:
    """Everything a person should read, machine differences first."""
    told = [head("A", found.before), head("B", found.after), *traits(found), "", scale(found)]
    if found.pairs:
        told += [summary(found), *rows(found.of("slower")), *rows(found.of("faster"))]
        told += rows(found.of("unclear"), SHOWN_UNCLEAR)
    told += reasons(found)
    told += exact(found)
    told += alone(found)
    told += [f"problem: {problem}" for problem in found.problems[:SHOWN]]
    return [*told, ending(found)]


def ending(found: Pairing) -> str:
    """The last line: exit code and what it means."""
    return f"compare: exit code {found.code}: {CODES[found.code]}"


def head(side: str, run: Run) -> str:
    """A run in a line."""
    code = commit(run.header) or "not recorded"
    return f"{side}: {run.header.run}, {run.header.started}, commit {code}, {label(run.header)}"


def traits(found: Pairing) -> list[str]:
    """A line for each thing that differs, then one for all that do not."""
    other = [f"  {t.aspect}: {t.name}: {t.before} -> {t.after}" for t in found.traits if t.differs]
    same = [f"{t.name} {t.before}" for t in found.traits if not t.differs]
    return [*(["differs:", *other] if other else []), *(["the same: " + ", ".join(same)] if same else [])]


def summary(found: Pairing) -> str:
    """How many have which verdict, with the geometric mean of what is slower and faster."""
    words = []
    for kind, count in found.counts.items():
        mean = geometric_mean(found.of(kind)) if kind in ("slower", "faster") else None
        words.append(f"{count} {kind}" + (f" (geometric mean {plain(show(mean, 'ratio'))})" if mean else ""))
    return f"{some(len(found.pairs), 'time')} in both: {', '.join(words)}; tolerance {percent(found.tolerance)}"


def ratio(estimate: Estimate | None) -> tuple[str, str]:
    """A ratio and its interval; dashes where unknown."""
    if estimate is None or not math.isfinite(estimate.value):
        return "-", "-"
    known = estimate.low > 0 and math.isfinite(estimate.high)
    figure = Figure(estimate.value, estimate.low if known else None, estimate.high if known else None)
    return plain(show(estimate.value, "ratio")), interval(figure, "ratio") or "-"


def rows(pairs: Sequence[Pair], most: int = SHOWN) -> list[str]:
    """A table of at most so many pairs that have one verdict, each with its reason."""
    shown = pairs[:most]
    if not shown:
        return []
    cells = [COLUMNS, *(_cells(one) for one in shown)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    table = []
    for row in cells:
        words = (c.rjust(w) if 2 <= i < 6 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        table.append(("  " + "  ".join(words)).rstrip())
    if len(pairs) > most:
        table.append(f"  and {len(pairs) - most} more that are {pairs[0].verdict.kind}; JSON=1 and the page have all")
    return ["", *table]


def _cells(one: Pair) -> tuple[str, ...]:
    times = (plain(show(record.value("latency"), "ns")) for record in (one.before, one.after))
    return one.case, one.contender, *times, *ratio(one.verdict.ratio), one.verdict.kind, one.verdict.reason


def reasons(found: Pairing) -> list[str]:
    """Why times are incomparable, each reason once."""
    counted = Counter(one.verdict.reason for one in found.of("incomparable"))
    return ["", *(f"incomparable: {count}: {reason}" for reason, count in counted.most_common())] if counted else []


def exact(found: Pairing) -> list[str]:
    """Exact metrics that differ, the gravest first."""
    if not found.compared:
        return ["", "No exact metric is in both."]
    told = ["", f"{found.compared} exact figures in both, {len(found.counted)} differ."]
    if found.counted and found.loose:
        told.append(f"They fail nothing: {found.loose}.")
    said = sentences(found.counted)
    return [*told, *said[:SHOWN], *([f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else [])]


def alone(found: Pairing) -> list[str]:
    """Results that one run does not have, a line for all that have the same reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for lone in found.alone:
        groups.setdefault((lone.side, lone.reason), []).append(f"{lone.record.case} {lone.record.contender}")
    told = [
        f"only in {side}: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for (side, reason), names in groups.items()
    ]
    return [*told[:SHOWN], *([f"and {len(told) - SHOWN} more reasons; JSON=1 has all"] if len(told) > SHOWN else [])]


def data(found: Pairing) -> dict[str, Any]:
    """All of it as JSON data."""
    return {
        "code": found.code,
        "meaning": CODES[found.code],
        "runs": [{"run": h.run, "started": h.started, "commit": commit(h), "machine": label(h)}
                 for h in (found.before.header, found.after.header)],
        "traits": [vars(trait) for trait in found.traits],
        "scale": scale(found),
        "tolerance": found.tolerance,
        "counts": found.counts,
        "pairs": [_pair(one) for one in found.pairs],
        "exact": {"compared": found.compared, "fails": found.loose is None, "why": found.loose,
                  "differ": [vars(deviation) for deviation in found.counted]},
        "alone": [{"side": lone.side, "case": lone.record.case, "contender": lone.record.contender,
                   "reason": lone.reason} for lone in found.alone],
        "problems": found.problems,
    }  # fmt: skip


def _pair(one: Pair) -> dict[str, Any]:
    estimate = one.verdict.ratio
    values = [None] * 3 if estimate is None else [
        value if math.isfinite(value) else None for value in (estimate.value, estimate.low, estimate.high)
    ]  # fmt: skip
    return {
        "case": one.case,
        "contender": one.contender,
        "verdict": one.verdict.kind,
        "reason": one.verdict.reason,
        "latency_ns": [one.before.value("latency"), one.after.value("latency")],
        "ratio": values[0],
        "interval": values[1:],
        "unchanged": one.unchanged,
    }


def arguments(program: str, words: Sequence[str] | None) -> argparse.Namespace:
    """What terminal and page are asked for."""
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("a", metavar="A", help="a run's folder, record file or name, or a git revision")
    parser.add_argument("b", metavar="B", help="the later one")
    parser.add_argument("--tolerance", type=share, help="per cent that count as no difference; default: 1 GPU, 3 CPU")
    parser.add_argument("--history", type=Path, default=HISTORY, help=f"where runs of a revision may be: {HISTORY}")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of text")
    parser.add_argument("--out", type=Path, default=Path("reports", "site-compare"), help="where the page goes")
    return parser.parse_args(words)


def share(text: str) -> float:
    """A number of per cent as a share. Raises ArgumentTypeError for what is none between 0 and 100."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a number of per cent between 0 and 100")
    return value / 100


def asked_for(asked: argparse.Namespace) -> Pairing:
    """The comparison that `arguments` describe. Raises NotFound."""
    before, after = Finder(Path.cwd(), asked.history).two(asked.a, asked.b)
    return pair(before, after, asked.tolerance)


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 nothing slower, worse or gone, 1 something is, 2 usage, 3 all unclear, 4 nothing comparable or a
    contender gone, 5 a result is wrong now, 6 damaged."""
    asked = arguments("python -m harness.compare", words)
    try:
        found = asked_for(asked)
    except NotFound as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error.filename or 'a run'} cannot be read: {error.strerror or error}", file=sys.stderr)
        return USAGE
    try:
        print(json.dumps(data(found), indent=1, default=str) if asked.json else "\n".join(lines(found)), flush=True)
    except BrokenPipeError:  # the reader has seen enough; nothing is flushed again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return found.code


if __name__ == "__main__":
    sys.exit(main())
