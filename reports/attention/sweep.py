"""Cases that differ in length alone, and what a sweep over lengths says: who is best where, and where MLA overtakes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.record import Figure, Record
from harness.units import length

from .. import facts, sweep
from ..view import View, mapping, plain

BASE, LATENT = "mha", "mla"


@dataclass(frozen=True)
class Sweep(sweep.Sweep):
    """Cases of one operation and model at one batch, by KV length (decode) or sequence length, ascending."""

    batch: float

    @cached_property
    def ratios(self) -> list[tuple[float, Figure]]:
        """MLA's latency over MHA's, the best implementation of each, at each length that has both."""
        found = []
        for n, case in self.points:
            top, bottom = case.best(LATENT), case.best(BASE)
            value = self.view.ratio(top, bottom) if top is not None and bottom is not None else None
            if value is not None:
                found.append((n, value))
        return found


@dataclass(frozen=True)
class Crossover:
    """Where MLA overtakes MHA; `tokens` is None when that is not within the measured range."""

    tokens: float | None
    sentence: str


def crossover(points: Sequence[tuple[float, float]]) -> Crossover:
    """From (length, MLA over MHA) by length: the last crossing below 1, on straight lines in log-log."""
    if not points:
        return Crossover(None, "MLA and MHA were not measured together")
    first, last = points[0], points[-1]
    measured = f"{length(first[0])} to {length(last[0])} tokens"
    if all(value < 1 for _, value in points):
        if len(points) == 1:
            return Crossover(None, f"MLA is ahead at the one length measured, {length(first[0])} tokens")
        return Crossover(None, f"MLA is ahead from {measured}, so no crossover lies within the measured range")
    if all(value >= 1 for _, value in points):
        if len(points) == 1:
            return Crossover(None, f"MLA is not ahead at the one length measured, {length(first[0])} tokens")
        return Crossover(None, f"MLA does not overtake MHA within the measured range, {measured}")
    if last[1] >= 1:
        return Crossover(None, f"MLA is ahead at some lengths, yet behind again at {length(last[0])} tokens")
    position = max(i for i, (_, value) in enumerate(points) if value >= 1)
    (before, high), (after, low) = points[position], points[position + 1]
    part = math.log(high) / (math.log(high) - math.log(low))
    tokens = before * (after / before) ** part
    between = f"between the measured {length(before)} and {length(after)}"
    return Crossover(tokens, f"MLA overtakes MHA at about {length(roughly(tokens))} tokens, interpolated {between}")


def roughly(value: float) -> float:
    """Two significant digits: all that an interpolation is worth."""
    return float(f"{value:.2g}")


def sweeps(view: View, operation: str) -> list[Sweep]:
    """Sweeps of an operation: those with the most comparable lengths first, then the larger batch."""
    groups: dict[tuple[str, str, str, float], dict[float, facts.Case]] = {}
    heads: dict[str, set[Any]] = {}
    for case in view.of("attention"):
        heads.setdefault(case.first.model, set()).add(mapping(mapping(case.first.shape).get("model")).get("heads"))
    for case in view.cases:
        first, shape = case.first, mapping(case.first.shape)
        n = plain(shape.get("length"))
        if first.operation != operation or n is None or n <= 0:
            continue
        held = setting(first, len(heads[first.model]) > 1)
        key = (first.model, held, variant(first), plain(shape.get("batch")) or 0.0)
        groups.setdefault(key, {})[n] = case
    found = [
        Sweep(view, operation, model, held, tuple(sorted(cases.items())), batch)
        for (model, held, _, batch), cases in groups.items()
    ]
    found = [one for one in found if one.techniques]
    return sorted(found, key=lambda s: (-comparable(s.points), -len(s.techniques), -len(s.points), -s.batch))


def variant(record: Record) -> str:
    """What the sizes say besides batch and length: cases that differ in it are never points of one line."""
    return "-".join(word for word in record.sizes.split("-") if not re.fullmatch(r"[bs]\d+", word))


def comparable(points: Iterable[tuple[float, facts.Case]]) -> int:
    """At how many lengths both MHA and MLA have a latency."""
    return sum(case.best(BASE) is not None and case.best(LATENT) is not None for _, case in points)


def setting(record: Record, with_heads: bool) -> str:
    """What a sweep holds fixed besides the model, in words; heads where a model is measured with several numbers."""
    shape = mapping(record.shape)
    words = []
    batch, new = plain(shape.get("batch")), plain(shape.get("new_tokens"))
    if batch is not None:
        words.append(f"batch {batch:g}")
    if new is not None and new != 1:
        words.append(f"{new:g} new tokens")
    if shape.get("ragged"):
        words.append("ragged lengths")
    if shape.get("cache") not in (None, "native"):
        words.append(f"{shape['cache']} cache")
    if "graph" in variant(record).split("-"):
        words.append("CUDA graph")
    heads = plain(mapping(shape.get("model")).get("heads"))
    if with_heads and heads is not None:
        words.append(f"{heads:g} heads")
    return ", ".join(words)
