"""What the doctor says of one thing: what was found, why it matters to a measurement, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..units import some

State = Literal["fit", "note", "mend", "unseen"]
WORDS: dict[State, str] = {"fit": "fit", "note": "note", "mend": "MEND", "unseen": "UNSEEN"}
FIT, MEND, UNSEEN = range(3)


@dataclass(frozen=True)
class Finding:
    """`state`: fit; note (worth knowing, or not readable here, and no reason to stop); mend; or unseen, where nothing
    can be said without it. `found`, `why` and `advice` are sentences without a full stop.

    Raises ValueError for something to mend, or unseen, without advice.
    """

    subject: str
    state: State
    found: str
    why: str
    advice: str = ""

    def __post_init__(self) -> None:
        if self.state in ("mend", "unseen") and not self.advice:
            raise ValueError(f"{self.subject} is {self.state} without advice")


def exit_code(findings: Iterable[Finding]) -> int:
    """0 fit; 1 something to mend; 2 where nothing to mend was seen and something needed could not be looked at."""
    states = {finding.state for finding in findings}
    return MEND if "mend" in states else UNSEEN if "unseen" in states or not states else FIT


def lines(findings: Sequence[Finding], width: int) -> list[str]:
    """For the terminal: one line a finding, and below those that are not fit the reason and the advice."""
    told = []
    for finding in findings:
        told.append(f"{WORDS[finding.state]:6}  {finding.subject.ljust(width)}  {finding.found}")
        if finding.state != "fit":
            told += [f"{'':8}{word}: {said}" for word, said in (("why", finding.why), ("do", finding.advice)) if said]
    return told


def closing(findings: Sequence[Finding]) -> str:
    """The last line: fit or not, and by what."""
    code = exit_code(findings)
    if code == MEND:
        count = sum(finding.state == "mend" for finding in findings)
        return f"not fit to benchmark: {some(count, 'thing')} to mend; no setting was changed"
    if code == UNSEEN:
        names = ", ".join(finding.subject for finding in findings if finding.state == "unseen") or "everything"
        return f"cannot say whether this machine is fit: not seen: {names}; no setting was changed"
    return "fit to benchmark; no setting was changed"
