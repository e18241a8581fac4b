"""Same, faster, slower, unclear or incomparable: what two measurements of one contender say of each other.

Three situations. *Paired*: two revisions alternated in short slots, in several processes, beside a control (the base
a second time); ratios of a round cancel what the machine did meanwhile, and the control says how far apart equal code
came out. *Stored*: two runs, taken hours or machines apart; contenders whose code did not change are the control, and
what they differ by is no difference. *Looks*: the same question asked again with more data, each time with a share of
the permitted errors. Wins over a threshold on two medians, which fires on most runs of equal code on a shared
machine. Loses sight of differences below its tolerance: many small ones add up unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .statistics import Estimate, nested_estimate

Kind = Literal["same", "faster", "slower", "unclear", "incomparable"]
MEANINGS: dict[Kind, str] = {
    "slower": "the interval lies above 1 + tolerance",
    "faster": "the interval lies below 1 / (1 + tolerance)",
    "same": "the interval lies below 1 + tolerance, and not all of it where faster begins",
    "unclear": "the interval is too wide, or equal code differs by more than the tolerance",
    "incomparable": "the two are not measurements of the same thing",
}
LOOKS = (0.5, 0.25, 0.25)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """`ratio` is the later latency over the earlier one, above 1 is slower; None where there is none.

    `spread`: how far equal code came out from 1; None where it is not known. `reason` is half a sentence.
    """

    kind: Kind
    reason: str
    ratio: Estimate | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Rule:
    """What counts as a difference, and how often a verdict may be wrong.

    tolerance   ratios up to 1 + tolerance are none
    cases       how many verdicts are drawn together; the permitted errors are divided among them (Bonferroni)
    error       chance that any of them is wrong, both directions and all looks together
    """

    tolerance: float
    cases: int = 1
    error: float = 0.05

    def confidence(self, look: int) -> float:
        """Of one interval at look 0, 1, ...; looks past the last planned one have nothing left to spend.

        Raises ValueError for those.
        """
        if not 0 <= look < len(LOOKS):
            raise ValueError(f"look {look} is not one of {len(LOOKS)} planned")
        return 1 - self.error * LOOKS[look] / max(1, self.cases)


@dataclass(frozen=True)
class Rounds:
    """What one process measured of one case after one setup: nanoseconds [rounds] of each arm, round by round.

    `base` and `control` are the same code twice. Raises ValueError for arms of different lengths, and for times that
    are not above 0.
    """

    arms: Mapping[str, Array]

    def __post_init__(self) -> None:
        sizes = {name: arm.size for name, arm in self.arms.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the arms of a visit must have equally many rounds, they have {sizes}")
        if any(arm.size and arm.min() <= 0 for arm in self.arms.values()):
            raise ValueError("times must be above 0 to have a ratio")

    def logs(self, arm: str) -> Array:
        """Logarithms [2 x rounds] of an arm over base, then over control, round by round.

        Not over the mean of the two: times are skewed, and the median of a mean lies above that of a single one.
        """
        equal = np.stack([self.arms["base"], self.arms["control"]])
        found: Array = np.log(self.arms[arm] / equal).T.reshape(-1)
        return found

    @property
    def control_logs(self) -> Array:
        """Logarithms [rounds] of control over base: of equal code."""
        found: Array = np.log(self.arms["control"] / self.arms["base"])
        return found


def ratio(groups: Sequence[Array], confidence: float) -> Estimate:
    """The ratio whose logarithms [rounds] are given by process."""
    found = nested_estimate(groups, confidence)
    low = math.exp(found.low) if math.isfinite(found.low) else 0.0
    return Estimate(math.exp(found.value), low, math.exp(found.high))


@dataclass(frozen=True)
class Paired:
    """One look at a case, after so many visits. Raises ValueError without any."""

    visits: Sequence[Rounds]
    rule: Rule
    look: int = 0

    def __post_init__(self) -> None:
        if not self.visits:
            raise ValueError("a verdict needs at least one visit")

    @cached_property
    def _control(self) -> Estimate:
        return ratio([visit.control_logs for visit in self.visits], self.rule.confidence(self.look))

    @property
    def control(self) -> Verdict:
        """On equal code: anything but "same" says that these data cannot carry a verdict."""
        return judged(self._control, self.rule.tolerance, self.spread)

    @property
    def spread(self) -> float:
        """How far equal code came out from 1: 0.02 for 0.98."""
        return math.exp(abs(math.log(self._control.value))) - 1

    def verdict(self, arm: str) -> Verdict:
        """On an arm against base and control.

        How far equal code came out from 1 widens what counts as slower or faster; above the tolerance, or where it
        cannot be told to be within, nothing is called the same.
        """
        found = ratio([visit.logs(arm) for visit in self.visits], self.rule.confidence(self.look))
        verdict = judged(found, self.rule.tolerance, self.spread)
        if verdict.kind == "same" and self.control.kind != "same":
            return replace(
                verdict, kind="unclear", reason=f"equal code came out {self.control.kind}, {self.control.reason}"
            )
        return verdict


def judged(found: Estimate, tolerance: float, spread: float) -> Verdict:
    """The verdict on a ratio when equal code came out up to `spread` from 1."""
    bound = 1 + max(tolerance, spread)
    if found.low > bound:
        return Verdict("slower", f"all of the interval is above {bound:.3f}", found, spread)
    if found.high < 1 / bound:
        return Verdict("faster", f"all of the interval is below {1 / bound:.3f}", found, spread)
    if spread > tolerance:
        said = f"equal code came out up to {percent(spread)} apart, more than the tolerance of {percent(tolerance)}"
        return Verdict("unclear", said, found, spread)
    if found.high < 1 + tolerance:
        return Verdict("same", f"all of the interval is below {1 + tolerance:.3f}", found, spread)
    return Verdict("unclear", f"the interval reaches over {1 + tolerance:.3f}", found, spread)


def percent(share: float) -> str:
    """A share as a person reads it: `2.5 %`."""
    if not share < 10:
        return f"more than {10:g} times"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Unchanged:
    """The control between two runs: log ratios [contenders] of code that is the same in both."""

    differences: Array
    assumed: float

    LEAST = 8

    @property
    def spread(self) -> float:
        """How far apart equal code came out, nine times in ten; `assumed` where too little of it is in both runs."""
        if self.differences.size < self.LEAST:
            return self.assumed
        return float(np.exp(np.quantile(np.abs(self.differences), 0.9))) - 1

    @property
    def known(self) -> bool:
        """Whether the spread is measured."""
        return self.differences.size >= self.LEAST


def stored(before: Estimate, after: Estimate, tolerance: float, unchanged: Unchanged) -> Verdict:
    """Two medians with intervals, taken in different runs: nothing cancels, so unchanged code sets the scale.

    An unknown interval (infinite or crossing 0) is unclear, and nothing is the same where equal code differs by more
    than the tolerance.
    """
    if before.low <= 0 or not math.isfinite(before.high) or not math.isfinite(after.high):
        value = after.value / before.value if before.value > 0 else math.nan
        return Verdict("unclear", "too few rounds for an interval", Estimate(value, 0.0, math.inf))
    value = math.log(after.value / before.value)
    up = math.hypot(math.log(after.high / after.value), math.log(before.value / before.low))
    down = math.hypot(math.log(after.value / after.low), math.log(before.high / before.value)) if after.low > 0 else 99
    found = Estimate(math.exp(value), math.exp(value - down), math.exp(value + up))
    return judged(found, tolerance, unchanged.spread)
