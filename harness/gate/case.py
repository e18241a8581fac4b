"""One case of the timing gate: the visits so far, the verdict on the head, and the proof that it can be trusted.

The proof is the case's own: the base against itself must come out same, and a copy of the base slowed by a known share
must come out slower. Without it the case is unclear, whatever the head did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .. import verdict
from ..deviation import INCONCLUSIVE, INCORRECT, NOTHING, PASS, REGRESSION
from ..verdict import Paired, Rounds, Rule, Verdict, percent

Kind = Literal["incorrect", "missing", "slower", "unclear", "incomparable", "new", "faster", "same"]
CODES: Mapping[Kind, int] = {
    "incorrect": INCORRECT,
    "missing": NOTHING,
    "slower": REGRESSION,
    "unclear": INCONCLUSIVE,
    "incomparable": PASS,
    "new": PASS,
    "faster": PASS,
    "same": PASS,
}
MEANINGS: Mapping[str, str] = {
    **{str(kind): meaning for kind, meaning in verdict.MEANINGS.items()},
    "incorrect": "the head's result is wrong, or its code fails",
    "missing": "the base has it, the head does not",
    "new": "the head has it, the base does not",
}


@dataclass
class GateCase:
    """`kind` and `reason` are what is known now; a case that is `settled` needs no more measuring.

    `head`, `control` and `canary` (the slowed copy) are verdicts of the last look, None before the first.
    """

    case: str
    contender: str
    slowed_by: float
    kind: Kind = "unclear"
    reason: str = "nothing was measured"
    settled: bool = False
    visits: list[Rounds] = field(default_factory=list)
    head: Verdict | None = None
    control: Verdict | None = None
    canary: Verdict | None = None

    @property
    def name(self) -> str:
        """What a person reads: `ffn.decode/tiny/t4-fp32 moe/sorted`."""
        return f"{self.case} {self.contender}"

    @property
    def code(self) -> int:
        """Exit status that this case asks for."""
        return CODES[self.kind]

    @property
    def rounds(self) -> int:
        """Over all processes."""
        return sum(visit.arms["base"].size for visit in self.visits)

    def settle(self, kind: Kind, reason: str) -> None:
        """The end of it, without or against a verdict."""
        self.kind, self.reason, self.settled = kind, reason, True

    def lacking(self, base: str | None, head: str | None) -> None:
        """Settle what one revision or both cannot run, given what each lacks."""
        if head is not None and base is not None:
            self.settle("incomparable", f"neither revision runs it: the head {head}, the base {base}")
        elif head is not None:
            self.settle("missing", f"the head {head}")
        elif base is not None:
            self.settle("new", f"the base {base}")

    def take(self, answer: Mapping[str, Any]) -> None:
        """What a visit answered: rounds, a changed contract, or a revision's failure."""
        if "rounds" in answer:
            self.visits.append(Rounds({arm: np.array(times) for arm, times in answer["rounds"].items()}))
        elif "changed" in answer:
            self.settle("incomparable", f"the contract changed: {answer['changed']}")
        else:
            failed = answer["failed"]
            said = f"{failed['status']}: {failed['reason']}"
            if failed["side"] == "head":
                self.settle("incorrect", said)
            elif self.kind != "incorrect":
                self.settle("incomparable", f"the base's own code fails, {said}")

    def look(self, rule: Rule, number: int) -> None:
        """Draw verdicts from what there is; unclear ones stay open, others stand."""
        if self.settled or not self.visits:
            return
        paired = Paired(self.visits, rule, number)
        self.control = paired.control
        if self.head is None or self.head.kind == "unclear":
            self.head = paired.verdict("head")
        if self.canary is None or self.canary.kind == "unclear":
            self.canary = paired.verdict("slowed")
        self.kind, self.reason = self.head.kind, self.head.reason
        if self.kind != "slower" and self.canary.kind != "slower":
            said = f"{percent(self.slowed_by)} that were added to the base came out {self.canary.kind}"
            self.kind, self.reason = "unclear", f"{said}, {self.canary.reason}"
        self.settled = self.kind != "unclear"


def broken_proof(cases: Iterable[GateCase]) -> str | None:
    """Why the run as a whole cannot be trusted, in a sentence; None when it can."""
    judged = [case for case in cases if case.control is not None and case.canary is not None]
    for case in judged:
        assert case.control is not None and case.canary is not None
        if case.control.kind in ("slower", "faster"):
            return f"the base against itself came out {case.control.kind} in {case.name}: {case.control.reason}"
        if case.canary.kind in ("same", "faster"):
            return f"the base slowed by {percent(case.slowed_by)} came out {case.canary.kind} in {case.name}"
    if judged and not any(case.canary and case.canary.kind == "slower" for case in judged):
        return f"the base slowed by {percent(judged[0].slowed_by)} was noticed in none of {len(judged)} cases"
    return None
