"""Cases of the ffn study as its page reads them: tokens, skew, sweeps over tokens, and the skewed case's even twin."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.record import Record
from harness.units import some

from .. import facts, lines
from ..markup import Html, tag
from ..sweep import Sweep
from ..table import row
from ..view import View, mapping, plain

MIXTURE = "moe"
FORWARD = ("ffn.decode", "ffn.prefill")
LAYER = (*FORWARD, "ffn.train")
ROUTER = ("ffn.route", "ffn.select")  # over all experts of a model, also where the layer is a slice
INNER = (*ROUTER, "ffn.permute", "ffn.experts")
BALANCE, PARALLEL = "ffn.balance", "ffn.parallel"
TABLE_ROWS = 60
UNIFORM = "uniform"
WORDS = {"ffn.decode": "decode", "ffn.prefill": "prefill", "ffn.train": "training step"}


def capped(rows: Sequence[Html]) -> list[Html]:
    """As many rows as a page has room for, and how many are left out."""
    left = len(rows) - TABLE_ROWS
    note = f"{some(left, 'more row')} left out; each case has a page of its own."
    return list(rows) if left <= 0 else [*rows[:TABLE_ROWS], row([tag("span", note, class_="quiet")])]


def of(view: View, operations: Sequence[str]) -> list[facts.Case]:
    """The study's cases of some operations, in the order measured."""
    return [case for case in view.of("ffn") if case.first.operation in operations]


def trainings(view: View) -> list[facts.Case]:
    """Training cases with an arm that passed: a long run before a trial of `make bench`, then by steps and arms."""
    found = [(case, [r for r in case.records if r.status == "passed"]) for case in of(view, (BALANCE,))]
    kept = [(case, arms) for case, arms in found if arms]
    kept.sort(key=lambda item: (shortened(item[0]), -max(map(last_step, item[1])), -len(item[1])))
    return [case for case, _ in kept]


def shortened(case: facts.Case) -> bool:
    """Whether a training case is a trial of `make bench`, not a run of `make balance`."""
    return any(facts.steps(record) for record in case.records)


def last_step(record: Record) -> float:
    """The last step of a training's curves; 0 where none is told."""
    steps = record.series.get("step") or [0]
    return plain(steps[-1]) or 0.0


def tokens(record: Record) -> float | None:
    """Tokens of its case; None where the record does not tell."""
    found = plain(mapping(record.shape).get("tokens"))
    return found if found is not None and found > 0 else None


def skew(record: Record) -> float:
    """The exponent of its routing: 0 is uniform or recorded, 1 is Zipf's law."""
    return plain(mapping(record.shape).get("skew")) or 0.0


def routing(record: Record) -> str:
    """Its routing in words."""
    exponent = skew(record)
    return "recorded" if mapping(record.shape).get("recorded") else f"Zipf {exponent:g}" if exponent else UNIFORM


def spoken(arm: str) -> str:
    """An arm of training in a sentence."""
    return "no balancing" if arm == "none" else arm


def variant(record: Record) -> str:
    """What the sizes say besides tokens and routing: cases that differ in it are never points of one line."""
    return "-".join(word for word in record.sizes.split("-") if not re.fullmatch(r"t\d+|zipf[\d.]+|recorded", word))


def name(case: facts.Case) -> str:
    """A case without its study: `prefill v3-ep8/t4096`."""
    return f"{case.first.operation.split('.', 1)[-1]} {case.first.model}/{case.first.sizes}"


def told(case: facts.Case) -> str:
    """A layer's case in a sentence: `decode of 128 tokens`."""
    count = tokens(case.first)
    word = WORDS.get(case.first.operation, case.first.operation)
    return f"{word} of {lines.tokens(count)}" if count is not None else f"{word} ({case.first.sizes})"


def sweeps(view: View) -> list[Sweep]:
    """Decode and prefill of one model over tokens; uniform routing and the most comparable points first.

    Where both were measured with as many tokens, the second is a sweep of its own.
    """
    groups: dict[tuple[str, ...], dict[float, facts.Case]] = {}
    for case in of(view, FORWARD):
        first, count = case.first, tokens(case.first)
        if count is None:
            continue
        key: tuple[str, ...] = (first.model, routing(first), variant(first))
        if count in groups.get(key, {}):
            key = (*key, first.operation)
        groups.setdefault(key, {})[count] = case
    found = []
    for key, cases in groups.items():
        held = ", ".join(filter(None, (f"{key[1]} routing" if key[1] != UNIFORM else "", key[2])))
        points = tuple(sorted(cases.items()))
        found.append((key[1] != UNIFORM, Sweep(view, points[0][1].first.operation, key[0], held, points)))
    kept = [(skewed, sweep) for skewed, sweep in found if sweep.techniques]
    kept.sort(key=lambda item: (item[0], -comparable(item[1]), -len(item[1].points)))
    return [sweep for _, sweep in kept]


def comparable(sweep: Sweep) -> int:
    """At how many lengths both a dense layer and the mixture have a latency."""
    return sum(case.best(MIXTURE) is not None and case.best("dense") is not None for _, case in sweep.points)


def twins(view: View, operations: Sequence[str] = LAYER) -> list[tuple[facts.Case, facts.Case]]:
    """Each case with skewed or recorded routing beside the same case with uniform routing, where both were measured."""

    def key(case: facts.Case) -> tuple[object, ...]:
        return case.first.operation, case.first.model, tokens(case.first), variant(case.first)

    cases = of(view, operations)
    even = {key(case): case for case in cases if routing(case.first) == UNIFORM}
    return [(case, even[key(case)]) for case in cases if routing(case.first) != UNIFORM and key(case) in even]
