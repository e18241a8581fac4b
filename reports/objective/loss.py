"""What MTP does to the loss of the next token: validation of models trained with and without it, seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, digits, listed, some, whole

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, line, reference_line, rounded
from ..lines import PLAIN_HUES
from ..markup import Html
from ..palette import INK, MARKERS, Look
from ..seeds import Points, mean_interval, points, without_seed
from ..table import number, row, table
from ..view import View
from .cases import LOSS, MTP, NTP, PARALLEL, capped, hue_look, linked, of, size

SERIES = "validation_bits"
SAME = 0.0015  # bits a byte: published differences are 0.000 and -0.001, printed to three digits
PUBLISHED = "0.729 to 0.729 and 0.658 to 0.657 bits a byte"


@dataclass(frozen=True)
class Seed:
    """One seed: the same model trained without and with a technique that predicts further tokens."""

    case: facts.Case
    seed: int
    plain: Record
    further: Record

    @property
    def both(self) -> list[tuple[float, float, float]]:
        """(step, bits without, bits with) at the validations that both have."""
        without, within = points(self.plain, SERIES), points(self.further, SERIES)
        return [(step, without[step], within[step]) for step in sorted(set(without) & set(within))]

    @property
    def end(self) -> float:
        """The last step that both have."""
        return self.both[-1][0]

    @property
    def at_end(self) -> float:
        """Bits a byte with the technique less without, at that step."""
        _, without, within = self.both[-1]
        return within - without

    @property
    def cut(self) -> float | None:
        """The step planned, where either was stopped before it."""
        known = [taken for r in (self.plain, self.further) if (taken := facts.steps(r))]
        return float(max(planned for _, planned in known)) if any(a < b for a, b in known) else None


@dataclass(frozen=True)
class Family:
    """Seeds of one model, recipe and technique."""

    name: str
    technique: str
    seeds: tuple[Seed, ...]

    @property
    def at_end(self) -> list[float]:
        """The difference of each seed at its own last step."""
        return [seed.at_end for seed in self.seeds]

    @property
    def steps(self) -> str:
        """After how many steps seeds ended, in words."""
        ends = sorted({seed.end for seed in self.seeds})
        return some(round(ends[0]), "step") if len(ends) == 1 else f"{whole(ends[0])} to {whole(ends[-1])} steps"

    @property
    def cut(self) -> float | None:
        """The step planned, where a training was stopped before it."""
        return max((cut for seed in self.seeds if (cut := seed.cut) is not None), default=None)

    @property
    def spread(self) -> float | None:
        """How far apart seeds end without it, in bits a byte."""
        ends = [seed.both[-1][1] for seed in self.seeds]
        return max(ends) - min(ends) if len(ends) > 1 else None


def families(view: View) -> list[Family]:
    """Models trained with and without predicting further tokens: MTP first, then those with most seeds and steps."""
    groups: dict[tuple[str, str], list[Seed]] = {}
    for case in of(view, LOSS):
        passed = {r.technique: r for r in reversed(case.records) if r.status == "passed"}
        for technique in (MTP, PARALLEL):
            if NTP not in passed or technique not in passed:
                continue
            seed = int(size(case.first, "recipe", "seed") or 0)
            found = Seed(case, seed, passed[NTP], passed[technique])
            if found.both:
                groups.setdefault((technique, without_seed(case.first)), []).append(found)
    made = [Family(name, t, tuple(sorted(seeds, key=lambda s: s.seed))) for (t, name), seeds in groups.items()]
    return sorted(made, key=lambda f: (f.technique != MTP, -len(f.seeds), -f.seeds[0].end))


def verdict(found: Sequence[float]) -> str:
    """Whether the loss is better, worse or unchanged, by the whole interval over seeds, else inconclusive."""
    if len(found) < 2:
        return "inconclusive, for one seed has no interval"
    _, low, high = mean_interval(found)
    if low > -SAME and high < SAME:
        return "unchanged, as published of large models"
    if low > 0:
        return "worse"
    return "better" if high < 0 else "inconclusive, for the interval holds 0"


def told(family: Family) -> str:
    """The mean difference with its interval, the spread of seeds, and the verdict."""
    found = family.at_end
    mean, low, high = mean_interval(found)
    bounds = f" [{signed(low)}, {signed(high)}]" if len(found) > 1 else ""
    text = f"after {family.steps} validation of the next byte with {family.technique} differs by {signed(mean)}{bounds}"
    text += f" bits a byte over {some(len(found), 'seed')}"
    if family.spread is not None:
        text += f", seeds without it among themselves by {digits(family.spread, 2)}"
    if family.cut is not None:
        return f"{text}: inconclusive, for the time was up before step {whole(family.cut)}"
    return f"{text}: {verdict(found)}"


def signed(value: float) -> str:
    """A difference in bits a byte with its sign, to the fourth digit after the point."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{abs(value):.4f}"


def loss_plot(view: View) -> Plot | None:
    """Above mean validation curves, below each seed's difference with MTP; None where nothing was trained."""
    found = families(view)
    if not found:
        return None
    first = found[0]
    same = [family for family in found if family.name == first.name]
    traces = [mean_curve(NTP, {s.seed: points(s.plain, SERIES) for s in first.seeds}, Look(INK, "dash", "circle", 1))]
    for family in same:
        curves = {s.seed: points(s.further, SERIES) for s in family.seeds}
        traces.append(mean_curve(family.technique, curves, hue_look(view, family.technique)))
    traces += [difference(seed, place, first.technique) for place, seed in enumerate(first.seeds)]
    traces = traces[:MAX_SERIES]
    edges = [abs(y) for trace in traces if "yaxis" in trace for y in later(trace)]
    reach = rounded(1.15 * max([*edges, 2 * SAME]))
    zero = reference_line(0.0)["shapes"][0] | {"yref": "y2"}
    layout = {
        "xaxis": {"title": {"text": "Step"}, "anchor": "y2"},
        "yaxis": {"title": {"text": "Validation, bits a byte"}, "domain": [0.5, 1.0], **late_range(traces)},
        "yaxis2": {"title": {"text": "Difference, bits"}, "domain": [0.0, 0.4], "range": [-reach, reach]},
        "hovermode": "closest",
        "shapes": [zero],
    }
    data = first.seeds[0].plain.verification.get("data")
    hidden = len(first.seeds) - sum("yaxis" in trace for trace in traces)
    note = "Loss of the main head on validation windows; models of one seed begin alike and read the same bytes in the "
    note += "same order. Above the mean over seeds, without the start of training; below each seed, "
    note += f"{first.technique} less {NTP}. Published of "
    note += f"models of 16 and 229 billion parameters: {PUBLISHED} (DeepSeek-V3, table 4)."
    note += f" Trained on: {data}." if isinstance(data, str) else ""
    note += f" In the table: {some(hidden, 'more seed')}." if hidden > 0 else ""
    sentence = told(first)
    return Plot(
        "loss-plot",
        f"Validation with and without MTP, {first.name}",
        f"{sentence[0].upper()}{sentence[1:]}.",
        traces,
        layout,
        loss_table(found),
        note=note,
        height=520,
    )


def late_range(traces: Sequence[Trace]) -> dict[str, list[float]]:
    """The range of the upper axis without the start of training, beside which all curves look alike."""
    values = [y for trace in traces if "yaxis" not in trace for y in later(trace)]
    spare = 0.06 * (max(values) - min(values))
    return {"range": [rounded(min(values) - spare), rounded(max(values) + spare)]} if spare else {}


def later(trace: Trace) -> list[float]:
    """Values after the first quarter of training, in which differences are large and say little."""
    last = max(trace["x"])
    return [y for x, y in zip(trace["x"], trace["y"], strict=True) if x >= last / 4]


def mean_curve(word: str, curves: dict[int, Points], look: Look) -> Trace:
    """The mean over seeds at the steps that all have, with the range on hovering."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    values = [[curve[step] for curve in curves.values()] for step in steps]
    words = [
        f"{word}, step {whole(s)}: {digits(statistics.mean(v), 4)} ({digits(min(v), 4)} to {digits(max(v), 4)})"
        for s, v in zip(steps, values, strict=True)
    ]
    return line(word, steps, [statistics.mean(v) for v in values], look, words)


def difference(seed: Seed, place: int, technique: str) -> Trace:
    """A seed's difference, on the lower axis."""
    look = Look(PLAIN_HUES[1 + place % (len(PLAIN_HUES) - 1)], "solid", MARKERS[(place + 3) % len(MARKERS)], 1.0)
    found = [(step, within - without) for step, without, within in seed.both]
    words = [f"{technique}, seed {seed.seed}, step {whole(s)}: {signed(d)}" for s, d in found]
    trace = line(f"seed {seed.seed}", [s for s, _ in found], [d for _, d in found], look, words)
    return trace | {"yaxis": "y2", "line": trace["line"] | {"width": 1.4}}


def loss_table(found: Sequence[Family]) -> Html:
    """Every seed of every model and technique: both losses and their difference at the last step."""
    rows = []
    for family in found:
        for seed in family.seeds:
            losses = [number(digits(value, 5)) for value in seed.both[-1][1:]]
            cells = [number(str(seed.seed)), number(whole(seed.end)), *losses, number(signed(seed.at_end))]
            rows.append(row([linked(seed.case), family.technique, *cells]))
        mean, low, high = mean_interval(family.at_end)
        bounds = f" [{signed(low)}, {signed(high)}]" if len(family.seeds) > 1 else ""
        over = [number(str(len(family.seeds))), *[number(DASH)] * 3, number(f"{signed(mean)}{bounds}")]
        rows.append(row([f"mean of {family.name}", family.technique, *over]))
    heads = ["Case", "Technique", ">Seed", ">Step", ">ntp", ">With it", ">Difference"]
    return table(heads, capped(rows))


def answer(view: View) -> str | None:
    """What the first family found."""
    found = families(view)
    return f"Training a small model ({found[0].name}): {told(found[0])}." if found else None


def others(view: View) -> str | None:
    """The other techniques and models, each with its verdict."""
    rest = [f"{family.name}, {told(family)}" for family in families(view)[1:]]
    return f"In the table also: {listed(rest)}." if rest else None
