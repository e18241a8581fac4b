"""How the contenders of a case were judged: results against the truth, or, of trials, how they began and ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.record import Record
from harness.units import MISSING, digits

from . import facts, study
from .markup import Html, join, tag
from .table import number, row, table
from .view import View, mapping, plain


def tables(view: View, case: facts.Case) -> Html | None:
    """What was checked of every contender that was judged; None where nobody was."""
    judged_ones = [record for record in case.records if mapping(record.verification)]
    trials = [record for record in judged_ones if facts.steps(record)]
    return (
        join(compared(view, [record for record in judged_ones if record not in trials]), stepped(view, trials)) or None
    )


def compared(view: View, records: Sequence[Record]) -> Html | None:
    """Error against limit. The error is the largest of all tensors compared, the limit the tightest: its share of that
    is drawn behind it where there is one tensor only, else the two may be of different ones."""
    rows = []
    for record in records:
        found = mapping(record.verification)
        error, limit = plain(found.get("error")), plain(found.get("limit"))
        checked = list(map(str, found.get("checked") or []))
        rows.append(
            row(
                [
                    study.contender_name(view, record),
                    number(
                        digits(error) if error is not None else MISSING,
                        error / limit if error is not None and limit and len(checked) == 1 else None,
                    ),
                    number(digits(limit) if limit is not None else MISSING),
                    number(judged(found.get("worst"))),
                    str(found.get("precision") or MISSING),
                    ", ".join(checked) or MISSING,
                ]
            )
        )
    if not rows:
        return None
    lead = tag(
        "p",
        "Relative Frobenius error against the technique's own reference in higher precision, on fresh random "
        "inputs and poisoned memory, before timing and again after on other inputs. Worst: the largest "
        "single deviation over the result's root mean square. Where several tensors are compared, the error is the "
        "largest of them and the limit the tightest; each was held against its own.",
    )
    columns = ["Contender", ">Error", ">Limit", ">Worst element", "Judged in", "Compared"]
    return join(lead, table(columns, rows, label="Verification"))


def judged(value: Any) -> str:
    """A verification figure: a number, or what else was recorded."""
    found = plain(value)
    return digits(found) if found is not None else MISSING if value is None else str(value)


def stepped(view: View, records: Sequence[Record]) -> Html | None:
    """Of trials: what the steps returned at the start and at the end, and what the first step of another setup did."""
    rows = []
    for record in records:
        found = mapping(record.verification)
        figures = (number(judged(found.get(name))) for name in ("start", "end", "first", "again", "limit"))
        checked = ", ".join(map(str, found.get("checked") or [])) or MISSING
        rows.append(row([study.contender_name(view, record), *figures, checked, str(found.get("data") or MISSING)]))
    if not rows:
        return None
    lead = tag(
        "p",
        "A trial has no result to compare. Every step must return a finite number; the mean over the last tenth of the "
        "steps must lie beyond that over the first; set up a second time, its first step must return the same, within "
        "the limit (relative), and so must that of every contender of its technique.",
    )
    columns = ["Contender", ">Start", ">End", ">First step", ">Set up again", ">Limit", "Checked", "Learned from"]
    return join(lead, table(columns, rows, label="Verification"))
