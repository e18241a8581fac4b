"""Numbers as people read them: three significant digits, the unit chosen by size, intervals in the same unit.

The terminal and the pages both write numbers with this module. Decimal prefixes throughout (1 kB is 1000 bytes). A
value that is not there reads "not recorded", never 0. Number and unit are joined by a space that no line break splits;
`plain` makes it an ordinary one for a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .record import Figure

MISSING = "not recorded"
TIMES_SIGN = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
GAP = "\N{NARROW NO-BREAK SPACE}"
GLUED = ("", "B", "B/s", "FLOP/s")
TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def digits(value: float, significant: int = 3) -> str:
    """`value` with so many significant digits, thousands grouped, no exponent down to a thousandth."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3:
        return f"{value:.1e}"
    decimals = max(0, significant - 1 - magnitude)
    rounded = round(value, decimals)
    if abs(rounded) >= 10 ** (magnitude + 1):
        decimals = max(0, decimals - 1)
    return f"{rounded:,.{decimals}f}"


def scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide a value of this size by, and the unit that is left."""
    if unit in ("ns", "s"):
        factor = 1.0 if unit == "ns" else 1e9
        divisor, name = next(((d, n) for d, n in TIMES if abs(value) * factor >= d), TIMES[-1])
        return divisor / factor, name
    if unit in ("share", "ratio"):
        return (0.01, "%") if unit == "share" else (1.0, TIMES_SIGN)
    divisor, prefix = next(((d, p) for d, p in PREFIXES if abs(value) >= d), PREFIXES[-1])
    base = {"bytes": "B", "bytes/s": "B/s", "count": ""}.get(unit, unit)
    return divisor, f"{prefix}{base}" if base in GLUED else f"{prefix} {base}".strip()


def show(value: float | None, unit: str) -> str:
    """A value with its unit: `12.3 µs`, `0.42×`, `63 %`, `1.2e-04`."""
    if value is None:
        return MISSING
    if unit == "ratio" and abs(value) < 0.01:
        return digits(value)
    if unit == "count" and value == round(value) and abs(value) < 10_000:
        return whole(value)
    divisor, name = scale(value, unit)
    significant = 2 if unit == "share" and abs(value) < 1 else 3
    return _with_unit(digits(value / divisor, significant), name)


def interval(figure: Figure | None, unit: str) -> str:
    """The interval of a figure in the unit that `show` chose for its value: `[12.1, 12.6]`; empty where unknown."""
    if figure is None or figure.low is None or figure.high is None:
        return ""
    divisor, _ = scale(figure.value, unit)
    return f"[{digits(figure.low / divisor)}, {digits(figure.high / divisor)}]"


def full(figure: Figure | None, unit: str) -> str:
    """Value and interval: `12.3 µs [12.1, 12.6]`."""
    return " ".join(filter(None, (show(figure.value if figure else None, unit), interval(figure, unit))))


def tidy(value: float) -> str:
    """A sensor's reading: a whole number as one, anything else with three digits."""
    return whole(value) if value == round(value) else digits(value)


def whole(value: float) -> str:
    """An integer with grouped thousands: `65,536`."""
    return f"{round(value):,}"


def length(value: float) -> str:
    """A length in tokens, short: `512`, `4K`, `128K` when it is a multiple of 1024."""
    number = round(value)
    if number >= 2**20 and number % 2**20 == 0:
        return f"{number >> 20}M"
    return f"{number >> 10}K" if number >= 1024 and number % 1024 == 0 else f"{number:,}"


def duration(seconds: float) -> str:
    """Minutes and seconds: `1m40s`, `12s`."""
    found = max(0, round(seconds))
    return f"{found // 60}m{found % 60:02d}s" if found >= 60 else f"{found}s"


def some(count: int, word: str) -> str:
    """So many of something: `1 case`, `1,200 cases`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def listed(parts: Sequence[str]) -> str:
    """A list in a sentence: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def plain(text: str) -> str:
    """The same text with ordinary spaces, as one types it."""
    return text.replace(GAP, " ")


def _with_unit(text: str, unit: str) -> str:
    if not unit:
        return text
    return f"{text}{unit}" if unit == TIMES_SIGN else f"{text}{GAP}{unit}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell: words left, figures right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
