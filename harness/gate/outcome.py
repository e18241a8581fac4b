"""What a gate found, exact and timed together: one exit code, and everything said on the way to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import exact
from ..deviation import INCOMPATIBLE, INCONCLUSIVE, INCORRECT, NOTHING, PASS, REGRESSION, USAGE, worst
from ..verdict import Verdict
from .case import GateCase
from .revision import Revision
from .run import Found

MEANINGS: Mapping[int, str] = {
    PASS: "pass",
    REGRESSION: "regression",
    USAGE: "the request cannot be met",
    INCONCLUSIVE: "inconclusive: some case is unclear, or the run is invalid",
    NOTHING: "nothing measured, or coverage dropped",
    INCORRECT: "incorrect result",
    INCOMPATIBLE: "the base or a baseline cannot be compared with",
}


@dataclass
class Outcome:
    """`kernels`: those carried out by Triton's interpreter. `remarks`: sentences that belong to no case.

    A part that did not run is None.
    """

    base: Revision
    head: str
    exact: exact.Verdict | None = None
    kernels: list[GateCase] = field(default_factory=list)
    timed: Found | None = None
    remarks: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    def remark(self, sentence: str, code: int = PASS) -> None:
        """A sentence, and the exit code it asks for."""
        self.remarks.append(sentence)
        self.codes.append(code)

    @property
    def cases(self) -> list[GateCase]:
        """Of the timing gate, the gravest first."""
        order = list(_ORDER)
        return sorted(self.timed.cases if self.timed else [], key=lambda case: order.index(case.kind))

    @property
    def code(self) -> int:
        """The gravest of all parts."""
        parts = [part.code for part in (self.exact, self.timed) if part is not None]
        return worst([PASS, *parts, *self.codes, *(case.code for case in self.kernels)])

    @property
    def meaning(self) -> str:
        """The exit code in words."""
        return MEANINGS[self.code]

    def proof(self) -> str:
        """Whether the timing gate's proof held, in a sentence."""
        if self.timed is None:
            return "not timed"
        if self.timed.broken is not None:
            return f"INVALID, no verdict counts: {self.timed.broken}"
        judged = [case for case in self.timed.cases if case.control and case.canary]
        if not judged:
            return "no case was timed"
        equal = sum(case.control is not None and case.control.kind == "same" for case in judged)
        caught = sum(case.canary is not None and case.canary.kind == "slower" for case in judged)
        added = f"{100 * judged[0].slowed_by:g} %"
        return f"the base against itself came out same in {equal} of {len(judged)} cases, {added} added to it was " + (
            f"noticed in {caught}"
        )

    def to_data(self) -> dict[str, Any]:
        """The whole outcome as JSON values."""
        timed = self.timed
        return {
            "schema": 1,
            "code": self.code,
            "meaning": self.meaning,
            "base": dataclasses.asdict(self.base),
            "head": self.head,
            "remarks": self.remarks,
            "exact": None
            if self.exact is None
            else {
                "code": self.exact.code,
                "facts": self.exact.facts,
                "remarks": self.exact.remarks,
                "deviations": [dataclasses.asdict(one) | {"code": one.code} for one in self.exact.deviations],
            },
            "kernels": [{"case": one.case, "contender": one.contender, "reason": one.reason} for one in self.kernels],
            "timing": None
            if timed is None
            else {
                "code": timed.code,
                "device": timed.device,
                "software": dict(timed.software),
                "invalid": timed.broken,
                "proof": self.proof(),
                "seconds": round(timed.seconds, 1),
                "processes": timed.processes,
                "cases": list(map(case_data, self.cases)),
            },
        }


_ORDER = ("incorrect", "missing", "slower", "unclear", "incomparable", "new", "faster", "same")


def case_data(case: GateCase) -> dict[str, Any]:
    """A case as JSON values."""
    return {
        "case": case.case,
        "contender": case.contender,
        "kind": case.kind,
        "reason": case.reason,
        "code": case.code,
        "slowed_by": case.slowed_by,
        "rounds": case.rounds,
        "processes": len(case.visits),
        "nanoseconds": dict(medians(case)),
        **{name: _verdict_data(getattr(case, name)) for name in ("head", "control", "canary")},
    }


def medians(case: GateCase) -> Iterator[tuple[str, float]]:
    """Nanoseconds of a call, by arm: the median of all rounds."""
    import numpy as np

    for arm in case.visits[0].arms if case.visits else ():
        yield arm, float(np.median(np.concatenate([visit.arms[arm] for visit in case.visits])))


def _verdict_data(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None or verdict.ratio is None:
        return None
    ratio = verdict.ratio
    interval = [ratio.low, ratio.high] if ratio.low > 0 and ratio.high < float("inf") else None
    return {
        "kind": verdict.kind,
        "reason": verdict.reason,
        "ratio": ratio.value,
        "interval": interval,
        "spread": verdict.spread,
    }
