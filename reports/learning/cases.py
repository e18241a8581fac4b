"""Cases of the learning study as its page reads them: courses of steps by seed and arm, and single operations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record

from .. import facts
from ..markup import Html, tag
from ..palette import HUES, MARKERS, Look
from ..seeds import without_seed
from ..view import View, link, mapping, page_of, plain

PPO, GRPO = "ppo", "grpo"
STEP, ROLLOUT, UPDATE, LOGS = "learning.step", "learning.rollout", "learning.update", "learning.logprob"
MOST = 8
ASKED = ("accuracy", "seconds", "format", "validation_length")  # what is known before the first step


def of(view: View, operation: str) -> list[facts.Case]:
    """The study's cases of an operation, in the order measured."""
    return [case for case in view.of("learning") if case.first.operation == operation]


def linked(case: facts.Case) -> Html:
    """A case without study and operation, leading to its page."""
    return tag("a", f"{case.first.model} {case.first.sizes}", href=link(page_of(case.id)))


def hue_look(view: View, technique: str) -> Look:
    """A technique's colour with a marker of its own."""
    hue = view.palette.hue("learning", technique)
    return Look(hue, "solid", MARKERS[HUES.index(hue) % len(MARKERS)], 1.0)


def stands(case: facts.Case, technique: str) -> Record | None:
    """A technique's record that passed: ours before the reference, timed or not."""
    found = [r for r in case.records if r.technique == technique and r.status == "passed"]
    return min(found, key=lambda record: record.kind == "reference", default=None)


def pairs(view: View, metric: str) -> list[tuple[facts.Case, Record, Record]]:
    """Courses in which both techniques have a figure, PPO first; the largest model first."""
    found = []
    for case in of(view, STEP):
        ppo, grpo = stands(case, PPO), stands(case, GRPO)
        if ppo and grpo and ppo.value(metric) and grpo.value(metric):
            found.append((case, ppo, grpo))
    return sorted(found, key=lambda item: -(item[1].value("model_parameters") or 0.0))


def curve(record: Record, name: str) -> dict[float, float]:
    """A series' value by step, as far as both are numbers; what is a mean over steps has none before the first."""
    pairs_ = zip(record.series.get("step") or (), record.series.get(name) or (), strict=False)
    found = {s: v for a, b in pairs_ if (s := plain(a)) is not None and (v := plain(b)) is not None}
    return {s: v for s, v in found.items() if s > 0 or name in ASKED}


@dataclass(frozen=True)
class Course:
    """What one contender did over courses that differ in their seed alone."""

    family: str
    contender: str
    technique: str
    records: tuple[Record, ...]

    def curves(self, name: str) -> list[dict[float, float]]:
        """A series of each seed, where it has one."""
        return [found for record in self.records if (found := curve(record, name))]

    def mean(self, name: str) -> list[tuple[float, float, float, float]]:
        """(step, mean, least, most) over seeds, at the steps that all have."""
        curves = self.curves(name)
        if not curves:
            return []
        steps = sorted(set.intersection(*(set(one) for one in curves)))
        each = [(step, [one[step] for one in curves]) for step in steps]
        return [(step, statistics.mean(found), min(found), max(found)) for step, found in each]

    def ends(self, metric: str) -> list[float]:
        """A figure of each seed."""
        return [value for record in self.records if (value := record.value(metric)) is not None]


def courses(view: View) -> list[Course]:
    """Courses of the family that went furthest, most seeds first; references only where nothing else ran."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for case in of(view, STEP):
        for record in case.records:
            if record.status == "passed" and len(curve(record, "accuracy")) > 1:
                groups.setdefault((without_seed(record), record.contender), []).append(record)
    if not groups:
        return []
    family = max(groups, key=lambda key: max(last(record) for record in groups[key]))[0]
    found = [Course(family, name, r[0].technique, tuple(r)) for (f, name), r in groups.items() if f == family]
    ours = [one for one in found if one.records[0].kind != "reference"]
    return (ours or found)[:MOST]


def last(record: Record) -> float:
    """The last step of its curve."""
    return max(curve(record, "accuracy"), default=0.0)


def reference_words(records: Sequence[Record]) -> str:
    """What the policies began with, in the words of the records; empty where none tells."""
    told = {str(mapping(record.verification).get("data") or "") for record in records} - {""}
    return f" Begun with {'; '.join(sorted(told))}." if told else ""
