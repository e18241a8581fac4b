"""The verdicts and their rules. They are printed on the page as they are written here, and tested one by one."""

from __future__ import annotations

from collections.abc import Sequence

from harness.record import Figure

from .claim import Effect, Sum

REPRODUCED, STRONGER, WEAKER, CONTRADICTED = "reproduced", "stronger", "weaker", "contradicted"
NOT_COMPARABLE, INCONCLUSIVE, NOT_MEASURED = "not comparable", "inconclusive", "not measured here"
ARITHMETIC, INCONSISTENT = "arithmetic", "inconsistent as published"

RULES = {
    REPRODUCED: "Our interval touches the published figure, rounding included, and excludes half its effect; or the "
    "claim is a direction and the interval lies wholly on that side.",
    STRONGER: "Our interval lies wholly beyond the published figure, on the side of more effect.",
    WEAKER: "Our interval lies wholly short of the published figure, yet excludes no effect.",
    CONTRADICTED: "Our interval lies wholly on the other side of no effect, or beyond the bound that is claimed.",
    INCONCLUSIVE: "Our interval holds both an effect and none, or more than half the effect and less; or there is no "
    "interval.",
    NOT_COMPARABLE: "Records of the quantity exist, but a condition that the figure hangs on differs.",
    ARITHMETIC: "The figure follows from published sizes or parts; recomputed here to the last printed digit, or "
    "within what the row says. That it was reached in practice is not shown by this.",
    INCONSISTENT: "The same recomputation gives another number than the one printed.",
    NOT_MEASURED: "No record of these runs has the quantity. The card says what it would take.",
}
SIGNS = {
    REPRODUCED: "✓",
    STRONGER: "▲",
    WEAKER: "▽",
    CONTRADICTED: "✗",
    INCONCLUSIVE: "?",
    NOT_COMPARABLE: "∥",
    ARITHMETIC: "=",
    INCONSISTENT: "≠",
    NOT_MEASURED: "○",
}
ORDER = tuple(RULES)
MEASURED = (REPRODUCED, STRONGER, WEAKER, CONTRADICTED, INCONCLUSIVE, NOT_COMPARABLE)


def judge(figure: Figure, effect: Effect, comparable: bool = True) -> str:
    """The verdict on a measured figure; `comparable`: every essential condition is the published one."""
    if not comparable:
        return NOT_COMPARABLE
    low, high = figure.low, figure.high
    if low is None or high is None:
        return INCONCLUSIVE
    if effect.none is not None:
        if low < high and low <= effect.none <= high:
            return INCONCLUSIVE
        if not (low > effect.none if effect.larger else high < effect.none):
            return CONTRADICTED
    if effect.low is None or effect.high is None:
        return REPRODUCED
    if low <= effect.high and high >= effect.low:
        return REPRODUCED if sharp(low, high, effect) else INCONCLUSIVE
    beyond = low > effect.high if effect.larger else high < effect.low
    return STRONGER if beyond else WEAKER


def sharp(low: float, high: float, effect: Effect) -> bool:
    """Whether an interval excludes half the published effect."""
    assert effect.low is not None and effect.high is not None
    least = effect.low if effect.larger else effect.high
    if least == effect.none:  # a bound: all on its side was excluded already
        return True
    none = effect.none or 0.0
    half = none + (least - none) / 2
    return low > half if effect.larger or effect.none is None else high < half


def settle(identity: Sequence[Sum]) -> str:
    """The verdict on a claim that arithmetic settles."""
    return ARITHMETIC if all(one.agrees for one in identity) else INCONSISTENT
