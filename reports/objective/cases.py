"""Cases of the objective study as its page reads them: training steps, generation with and without drafts, losses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Figure, Record
from harness.units import show, some, whole

from .. import facts
from ..markup import Html, tag
from ..palette import HUES, MARKERS, Look
from ..table import row
from ..view import View, link, mapping, page_of, plain

NTP, MTP, PARALLEL = "ntp", "mtp", "mtp-parallel"
STEP, GENERATE, LOSS = "objective.train_step", "objective.generate", "objective.loss"
FORMS = (("graph", "refused-graph"), ("cached", "refused"))  # how a step runs, and the control that keeps no draft
TABLE_ROWS = 60


def of(view: View, operation: str) -> list[facts.Case]:
    """The study's cases of an operation, in the order measured."""
    return [case for case in view.of("objective") if case.first.operation == operation]


def capped(rows: Sequence[Html]) -> list[Html]:
    """As many rows as a page has room for, and how many are left out."""
    left = len(rows) - TABLE_ROWS
    note = f"{some(left, 'more row')} left out; each case has a page of its own."
    return list(rows) if left <= 0 else [*rows[:TABLE_ROWS], row([tag("span", note, class_="quiet")])]


def name(case: facts.Case) -> str:
    """A case without its study and operation: `byte-dense-mla-d96 b8-p32-n32`."""
    return f"{case.first.model} {re.sub(r'-fp32$', '', case.first.sizes)}"


def linked(case: facts.Case) -> Html:
    """The name, leading to the case's page."""
    return tag("a", name(case), href=link(page_of(case.id)))


def row_names(cases: Sequence[facts.Case]) -> dict[str, str]:
    """The name of each case's row in a plot, by its id: its sizes and depth, with the model where there are several."""
    models = {case.first.model for case in cases}
    found = {}
    for case in cases:
        sizes = re.sub(r"-depth\d+|-fp32$", "", case.first.sizes)
        found[case.id] = f"{f'{case.first.model} ' if len(models) > 1 else ''}{sizes}, depth {depth(case)}"
    return found


def size(record: Record, *path: str) -> float | None:
    """A positive number of its shape by the names that lead there; None where the record does not tell."""
    found: object = record.shape
    for part in path:
        found = mapping(found).get(part)
    value = plain(found)
    return value if value is not None and value > 0 else None


def depth(case: facts.Case) -> int:
    """How many tokens after the next one its MTP predicts."""
    return int(size(case.first, "model", "depth") or 1)


def hue_look(view: View, technique: str) -> Look:
    """A technique's colour with a marker of its own."""
    hue = view.palette.hue("objective", technique)
    return Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)


def span(values: Sequence[float], unit: str) -> str:
    """The range of values, or the only one."""
    least, most = (show(value, unit) for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


def reaches(figure: Figure) -> list[float]:
    """What an axis must hold of a ratio: its value, and its interval as far as a factor of 3."""
    ends = [end for end in (figure.low, figure.high) if end is not None]
    return [figure.value, *(min(max(end, figure.value / 3), 3 * figure.value) for end in ends)]


@dataclass(frozen=True)
class Drafting:
    """One case of generation in one form: plain decoding, decoding with drafts, and the control that keeps none.

    The control takes as many steps as plain decoding and drafts and verifies in each, so its time over plain decoding's
    is the cost of a speculative step, 1 + c.
    """

    view: View
    case: facts.Case
    form: str
    plain: Record
    drafted: Record
    refused: Record | None

    @property
    def batch(self) -> int:
        """Sequences together."""
        return int(size(self.case.first, "batch") or 1)

    @property
    def depth(self) -> int:
        """Tokens drafted a step."""
        return depth(self.case)

    @property
    def family(self) -> tuple[str, str, str]:
        """All but the batch: cases of one family are points of one line."""
        return self.case.first.model, re.sub(r"^b\d+-", "", self.case.first.sizes), self.form

    @property
    def speed_up(self) -> Figure | None:
        """Plain decoding's time over that with drafts."""
        return self.view.ratio(self.plain, self.drafted)

    @property
    def cost(self) -> Figure | None:
        """1 + c."""
        return self.view.ratio(self.refused, self.plain) if self.refused else None

    @property
    def acceptance(self) -> float | None:
        """How often the first draft stood."""
        return self.drafted.value("acceptance")

    @property
    def gain(self) -> float | None:
        """Plain steps over steps with drafts: 1 + p of one sequence, less in a batch, where the slowest decides."""
        plain_steps, steps = self.plain.value("generation_steps"), self.drafted.value("generation_steps")
        if plain_steps and steps:
            return plain_steps / steps
        return self.drafted.value("symbols_a_step")

    @property
    def expected(self) -> float | None:
        """The speed-up that steps and their cost make: (1 + p) / (1 + c)."""
        gain, cost = self.gain, self.cost
        return gain / cost.value if gain and cost and cost.value > 0 else None

    @property
    def setting(self) -> str:
        """`batch 8`, with the depth where it is more than one."""
        return f"batch {whole(self.batch)}" + (f", depth {self.depth}" if self.depth > 1 else "")


def draftings(view: View) -> list[Drafting]:
    """Generation timed with and without drafts, in the faster form of each case: by depth, then by batch."""
    found = []
    for case in of(view, GENERATE):
        known = {r.contender: r for r in case.passed}
        made = [
            Drafting(view, case, form, known[f"{NTP}/{form}"], known[f"{MTP}/{form}"], known.get(f"{MTP}/{control}"))
            for form, control in FORMS
            if f"{NTP}/{form}" in known and f"{MTP}/{form}" in known
        ]
        if made:
            found.append(min(made, key=lambda one: one.plain.figures["latency"].value))
    return sorted(found, key=lambda one: (one.depth, one.family, one.batch))


def origin(record: Record) -> str | None:
    """Where its trained weights came from, in a sentence; None where it does not tell."""
    told = re.search(r"weights (\w+) \((\w+)\)", record.layout or "")
    if not told:
        return None
    steps, batch, length = (size(record, "recipe", part) for part in ("steps", "batch", "length"))
    recipe = ""
    if steps and batch and length:
        recipe = f", {whole(steps)} steps of {whole(batch)} \N{MULTIPLICATION SIGN} {whole(length)} bytes"
    where = "trained in this run" if told[2] == "trained" else "trained before and recorded with the code"
    return f"The model was {where}{recipe}; digest of its weights {told[1]}."
