"""What a claim is: a published figure with its conditions and source, and how records or arithmetic would answer it.

Claims are data (`ledger/`). Whatever decides about one is general: `evidence.py` finds records, `verdict.py` judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["value", "ratio", "speed-up", "saving", "change", "distance"]


@dataclass(frozen=True)
class Source:
    """A document, how it was read if not in its original form, and the place in it."""

    document: str
    place: str
    read: str = ""


@dataclass(frozen=True)
class Sum:
    """A value computed from published sizes, and the figure printed for it.

    value     in `unit`, as `harness.units` has it
    formula   the computation in words and numbers
    printed   what the source prints, in the same unit; None where this is ours alone
    within    how far the two may lie apart: half a unit of the last printed digit, unless `formula` says otherwise
    """

    what: str
    formula: str
    value: float
    unit: str
    printed: float | None = None
    within: float = 0.0

    @property
    def agrees(self) -> bool:
        """Whether the printed figure is the computed one, as far as it is printed."""
        return self.printed is None or abs(self.value - self.printed) <= self.within * (1 + 1e-9)


@dataclass(frozen=True)
class Effect:
    """What a measured quantity is held against.

    low, high  the published figure with its rounding, or its range; None where only a direction is claimed
    none       the value that would be no effect, or the bound of a claim that has one; None for a plain rate
    larger     whether a larger value is more of what is claimed
    """

    low: float | None = None
    high: float | None = None
    none: float | None = None
    larger: bool = True


@dataclass(frozen=True)
class Condition:
    """One condition of the published figure and what it is here.

    field, match  where a record tells ours, and the patterns, parted by `|`, that count as the same
    ours, same    the same for what no record tells
    essential     the figure hangs on it: where it differs, the two are not compared
    """

    what: str
    published: str
    field: str = ""
    match: str = ""
    ours: str = ""
    same: bool = False
    essential: bool = True


@dataclass(frozen=True)
class Join:
    """Which records answer a claim, and what is made of them.

    of, over   patterns of contenders (`mla/*`); of each the best by `metric` counts. With `over`, both from one case
    form       value; ratio of / over; speed-up over / of; saving 1 - of / over; change of / over - 1; distance |change|
    pick       "first" case in order of the run, the "best" case, or the "mean" over cases that differ in seed alone
    exact      counted, not timed: there is no noise
    times      a number in the record's shape to multiply by: `model.layers`
    per        a ceiling measured in the run to divide by: `read_bandwidth`, `matrix.bfloat16`
    """

    what: str
    operation: str
    of: str
    metric: str
    effect: Effect
    over: str = ""
    form: Form = "value"
    model: str = "*"
    sizes: str = "*"
    device: str = "*"
    pick: Literal["first", "best", "mean"] = "first"
    exact: bool = False
    times: str = ""
    per: str = ""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One published claim.

    printed   the figure as the source has it, with its unit
    measure   the quantity that would have to be measured
    takes     what it would take to measure it here, for a claim that no record answers
    identity  sums that settle the claim: the printed figure follows from them or it does not
    checks    sums beside it, which settle nothing; `beside` is their heading
    joins     where records would answer it, the decisive one first
    """

    id: str
    study: str
    title: str
    statement: str
    printed: str
    conditions: str
    source: Source
    measure: str
    takes: str = ""
    note: str = ""
    identity: tuple[Sum, ...] = ()
    checks: tuple[Sum, ...] = ()
    beside: str = "Beside it"
    joins: tuple[Join, ...] = ()
