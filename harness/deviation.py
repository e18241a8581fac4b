"""What is worse, other or better than in a baseline: exact facts against exact facts, fact by fact.

There is no noise to allow for, so any change in the worse direction is a regression, any change of what has no
direction (FLOPs by the cost model, an expert's load) must be meant, and a case or contender that is gone is a loss of
coverage. Better or additional facts are told, and fail nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from .baseline import OPERATOR_LIST, Facts, Value, owner
from .metrics import COMMON, COUNTED, Better

Subjects = Mapping[str, Mapping[str, Value]]
Kind = Literal["incorrect", "missing", "worse", "changed", "better", "new"]
PASS, REGRESSION, USAGE, INCONCLUSIVE, NOTHING, INCORRECT, INCOMPATIBLE = range(7)
CODES: Mapping[Kind, int] = {
    "incorrect": INCORRECT,
    "missing": NOTHING,
    "worse": REGRESSION,
    "changed": REGRESSION,
    "better": PASS,
    "new": PASS,
}
RIGHT = ("passed", "compiled")
SEVERITY = (INCORRECT, USAGE, INCOMPATIBLE, NOTHING, REGRESSION, INCONCLUSIVE, PASS)


@dataclass(frozen=True)
class Rule:
    """Which way a fact is better, and what difference is none."""

    better: Better = "neither"
    exact: float = 0.0


RULES = {name: Rule(metric.better, metric.exact or 0.0) for name, metric in (COMMON | COUNTED).items()}


@dataclass(frozen=True)
class Deviation:
    """One fact that is not as in the baseline; `said` is the sentence without the case."""

    kind: Kind
    case: str
    subject: str
    fact: str
    was: Value | None
    now: Value | None
    said: str

    @property
    def code(self) -> int:
        """Exit status that this alone asks for."""
        return CODES[self.kind]


def worst(codes: Iterable[int]) -> int:
    """The exit status of several findings: the gravest, in the order of SEVERITY."""
    return min({PASS, *codes}, key=SEVERITY.index)


class Comparison:
    """Fresh facts against a baseline's.

    `rules` are those of the operations' own metrics, `reasons` why a contender failed, by (case, contender).
    """

    def __init__(self, rules: Mapping[str, Rule], reasons: Mapping[tuple[str, str], str]) -> None:
        self._rules, self._reasons = {**RULES, **rules}, reasons

    def failures(self, now: Facts) -> Iterator[Deviation]:
        """Contenders that give no right result, whatever a baseline says."""
        for case, subjects in sorted(now.items()):
            for subject, facts in sorted(subjects.items()):
                status = str(facts.get("status", "passed"))
                if status not in (*RIGHT, "unavailable"):
                    why = self._reasons.get((case, subject), "no reason is known")
                    yield Deviation("incorrect", case, subject, "status", None, status, f"{subject} is {status}: {why}")

    def against(self, baseline: Facts, now: Facts) -> Iterator[Deviation]:
        """Every deviation but failures, case by case."""
        for case in sorted(baseline.keys() | now.keys()):
            if case not in now:
                yield Deviation("missing", case, "", "", None, None, "the case is gone")
            elif case not in baseline:
                yield Deviation("new", case, "", "", None, None, "the case is new")
            else:
                yield from self._case(case, baseline[case], now[case])

    def _case(self, case: str, before: Subjects, after: Subjects) -> Iterator[Deviation]:
        for subject in sorted(before.keys() | after.keys()):
            if subject not in before:
                yield Deviation("new", case, subject, "", None, None, f"{subject} is new")
            elif subject in after:
                yield from self._facts(case, subject, before[subject], after[subject])
            elif subject == owner(subject):
                yield Deviation("missing", case, subject, "", None, None, f"{subject} is gone")
            elif after.get(owner(subject), {}).get("status") in RIGHT:
                yield Deviation("better", case, subject, "", None, None, f"{subject} is launched no more")

    def _facts(
        self, case: str, subject: str, before: Mapping[str, Value], after: Mapping[str, Value]
    ) -> Iterator[Deviation]:
        if before.get("status") != after.get("status"):
            yield from self._status(case, subject, str(before.get("status")), str(after.get("status")))
            return
        for fact in sorted((before.keys() | after.keys()) - {OPERATOR_LIST}):
            was, value = before.get(fact), after.get(fact)
            if value is None:
                yield Deviation("missing", case, subject, fact, was, None, f"{subject}: {fact} is gone, it was {was}")
            elif was is None:
                yield Deviation("new", case, subject, fact, None, value, f"{subject}: {fact} is new, {value}")
            elif was != value:
                why = _explained(before, after) if fact == "operators" else ""
                yield from self._compared(case, subject, fact, was, value, why)

    def _status(self, case: str, subject: str, was: str, value: str) -> Iterator[Deviation]:
        if value in RIGHT:
            yield Deviation("new", case, subject, "status", was, value, f"{subject} is {value}, it was {was}")
        elif value == "unavailable":
            why = self._reasons.get((case, subject), "no reason is known")
            said = f"{subject} cannot run any more: {why}"
            yield Deviation("missing", case, subject, "status", was, value, said)

    def _compared(self, case: str, subject: str, fact: str, was: Value, value: Value, why: str) -> Iterator[Deviation]:
        rule = self._rules.get(fact, Rule())
        said = f"{subject}: {fact} {shown(was)} -> {shown(value)}"
        if isinstance(was, str) or isinstance(value, str) or rule.better == "neither":
            said += ", which has no better direction: a change must be meant"
            yield Deviation("changed", case, subject, fact, was, value, said)
        elif abs(value - was) > rule.exact:
            better = (value < was) == (rule.better == "lower")
            direction = "" if better else f", {'more' if rule.better == 'lower' else 'less'} is worse"
            rounding = f" (up to {rule.exact:g} would be none)" if rule.exact and not better else ""
            said += direction + rounding + why
            yield Deviation("better" if better else "worse", case, subject, fact, was, value, said)


def _explained(before: Mapping[str, Value], after: Mapping[str, Value]) -> str:
    """Which operators are dispatched more or less often."""
    counts = [dict(one.rsplit(" ", 1) for one in str(facts[OPERATOR_LIST]).split(", ")) for facts in (before, after)]
    changes = {
        name: int(counts[1].get(name, 0)) - int(counts[0].get(name, 0)) for name in sorted({**counts[0], **counts[1]})
    }
    told = [f"{change:+d} {name}" for name, change in changes.items() if change]
    return f" ({', '.join(told)})" if told else ""


def shown(value: Value) -> str:
    """A number with its thousands apart."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def sentences(deviations: Iterable[Deviation]) -> list[str]:
    """One line for what several cases have in common: the gravest first, each with its case."""
    cases: dict[tuple[Kind, str], list[str]] = {}
    for one in deviations:
        cases.setdefault((one.kind, one.said), []).append(one.case)
    order = {kind: place for place, kind in enumerate(CODES)}
    lines = []
    for (kind, said), found in sorted(cases.items(), key=lambda item: (order[item[0][0]], item[1], item[0][1])):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        lines.append(f"{kind}: {found[0]}{more}: {said}")
    return lines
