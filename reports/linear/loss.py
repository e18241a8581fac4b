"""What FP8 does to a loss: the small model's curves with and without it, seed by seed, beside DeepSeek-V3's 0.25 %."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Record
from harness.units import DASH, digits, listed, some, whole

from .. import facts
from ..figure import MAX_SERIES, Plot, Trace, line, rounded
from ..lines import PLAIN_HUES
from ..markup import Html
from ..palette import INK, MARKERS, Look
from ..seeds import mean_interval, points, without_seed
from ..table import number, row, table
from ..view import View, mapping, plain
from .cases import BF16, FP8, LOSS, capped, emulated, linked, of, percent

CLAIM = 0.0025
SERIES = "smoothed_loss"


@dataclass(frozen=True)
class Seed:
    """One seed: the model trained without and with FP8."""

    case: facts.Case
    seed: int
    plain: Record
    fp8: Record

    def both(self, series: str) -> list[tuple[float, float, float]]:
        """(step, value without, value with FP8) at the steps that both have."""
        without, within = points(self.plain, series), points(self.fp8, series)
        return [(step, without[step], within[step]) for step in sorted(set(without) & set(within))]

    @property
    def end(self) -> float:
        """The last step that both have."""
        return self.both(SERIES)[-1][0]

    def apart(self, series: str = SERIES) -> list[tuple[float, float]]:
        """(step, relative difference): with FP8 less without, over without."""
        return [(step, (b - a) / a) for step, a, b in self.both(series) if a > 0]


@dataclass(frozen=True)
class Family:
    """Seeds of one model and recipe."""

    name: str
    seeds: tuple[Seed, ...]

    @property
    def longest(self) -> tuple[Seed, ...]:
        """The seeds that came to the last step any came to."""
        last = max(seed.end for seed in self.seeds)
        return tuple(seed for seed in self.seeds if seed.end == last)

    @property
    def steps(self) -> str:
        """After how many steps seeds ended, in words."""
        ends = sorted({seed.end for seed in self.seeds})
        return some(round(ends[0]), "step") if len(ends) == 1 else f"{whole(ends[0])} to {whole(ends[-1])} steps"

    @property
    def at_end(self) -> list[float]:
        """The relative difference of each seed at its own last step."""
        return [seed.apart()[-1][1] for seed in self.seeds]

    @property
    def cut(self) -> float | None:
        """The step planned, where a training was stopped before it."""
        planned = [known[1] for seed in self.seeds for r in (seed.plain, seed.fp8) if (known := facts.steps(r))]
        least = min(seed.end for seed in self.seeds)
        return float(max(planned)) if planned and max(planned) > least else None

    @property
    def spread(self) -> float | None:
        """How far apart the longest seeds end without FP8: the largest less the least, over their mean."""
        ends = [seed.both(SERIES)[-1][1] for seed in self.longest]
        return (max(ends) - min(ends)) / statistics.mean(ends) if len(ends) > 1 else None


def families(view: View) -> list[Family]:
    """Models that were trained with and without FP8, those with most seeds and steps first."""
    groups: dict[str, list[Seed]] = {}
    for case in of(view, LOSS):
        passed = [r for r in case.records if r.status == "passed"]
        without = next((r for r in passed if r.technique == BF16), None)
        within = next((r for r in sorted(passed, key=lambda r: r.value("latency") or 0.0) if r.technique == FP8), None)
        seed = plain(mapping(mapping(case.first.shape).get("recipe")).get("seed"))
        if without is None or within is None:
            continue
        found = Seed(case, int(seed or 0), without, within)
        if found.both(SERIES):
            groups.setdefault(without_seed(case.first), []).append(found)
    made = [Family(key, tuple(sorted(seeds, key=lambda s: s.seed))) for key, seeds in groups.items()]
    return sorted(made, key=lambda family: (-len(family.seeds), -family.longest[0].end))


def verdict(found: Sequence[float]) -> str:
    """Whether the mean difference is within the claim: by its whole interval, else inconclusive."""
    _, low, high = mean_interval(found)
    if low > -CLAIM and high < CLAIM:
        return f"within the {percent(CLAIM)} claimed of large models"
    if low > CLAIM or high < -CLAIM:
        return f"beyond the {percent(CLAIM)} claimed of large models"
    return f"inconclusive beside the {percent(CLAIM)} claimed of large models"


def told(family: Family) -> str:
    """The mean difference with its interval, the spread of seeds, and the verdict."""
    found = family.at_end
    mean, low, high = mean_interval(found)
    bounds = f" [{signed(low)}, {signed(high)}]" if len(found) > 1 else ""
    text = f"after {family.steps} the smoothed loss with FP8 differs by {signed(mean)}{bounds} over "
    text += some(len(found), "seed")
    if family.spread is not None:
        text += f", seeds without FP8 among themselves by {percent(family.spread)}"
    if family.cut is not None:
        return f"{text}: inconclusive, for the time was up before step {whole(family.cut)}"
    return f"{text}: {verdict(found)}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{percent(abs(value))}"


def loss_plot(view: View) -> Plot | None:
    """Above the mean curves, below each seed's difference beside the claim; None where nothing was trained."""
    found = families(view)
    if not found:
        return None
    family = found[0]
    traces = [
        mean_curve(family, place, title, dash)
        for place, title, dash in ((1, "FP8", "solid"), (0, f"without FP8 ({base_of(family)})", "dash"))
    ]
    traces += [difference(seed, place) for place, seed in enumerate(family.seeds[: MAX_SERIES - 2])]
    edges = [abs(y) for trace in traces[2:] for y in trace["y"]] + [100 * CLAIM]
    reach = rounded(1.15 * max(edges))
    layout = {
        "xaxis": {"title": {"text": "Step"}, "anchor": "y2"},
        "yaxis": {"title": {"text": "Loss, bits a byte"}, "domain": [0.5, 1.0]},
        "yaxis2": {"title": {"text": "Difference, %"}, "domain": [0.0, 0.4], "range": [-reach, reach]},
        "hovermode": "closest",
        "shapes": [claim_line(side) for side in (CLAIM, -CLAIM)],
    }
    hidden = len(family.seeds) - (MAX_SERIES - 2)
    note = (
        "Training loss, smoothed with a factor of 0.9 as in DeepSeek-V3's figure 10; above the mean over seeds that "
        "came furthest, below "
    )
    note += "each seed's relative difference, both trained from the same parameters on the same bytes. Dashed: the "
    note += f"paper's {percent(CLAIM)}, for models of 16 and 230 billion parameters over 0.9 to 1.3 trillion tokens."
    note += " FP8 is emulated here, with the same rounding; its accumulation is FP32." if emulation(view) else ""
    note += f" In the table: {some(hidden, 'more seed')}." if hidden > 0 else ""
    return Plot(
        "loss",
        f"Loss with and without FP8, {family.name}",
        f"{told(family)[0].upper()}{told(family)[1:]}.",
        traces,
        layout,
        loss_table(found),
        note=note,
        height=520,
    )


def emulation(view: View) -> bool:
    """Whether this run's FP8 was emulated."""
    return not view.on_gpu or any(emulated(r) for case in of(view, LOSS) for r in case.records)


def base_of(family: Family) -> str:
    """The dtype computed in without FP8."""
    return "FP32" if family.name.endswith("-fp32") else "BF16"


def mean_curve(family: Family, place: int, title: str, dash: str) -> Trace:
    """The mean over the longest seeds of one side, with the range over them on hovering."""
    sides = [{step: pair[place] for step, *pair in seed.both(SERIES)} for seed in family.longest]
    steps = sorted(set.intersection(*map(set, sides)))
    values = [[side[step] for side in sides] for step in steps]
    words = [
        f"{title}, step {whole(s)}: {digits(statistics.mean(v), 4)} ({digits(min(v), 4)} to {digits(max(v), 4)})"
        for s, v in zip(steps, values, strict=True)
    ]
    look = Look(INK if place == 0 else PLAIN_HUES[2], dash, MARKERS[place], 1.0)
    return line(title, steps, [statistics.mean(v) for v in values], look, words)


def difference(seed: Seed, place: int) -> Trace:
    """A seed's relative difference in per cent, on the lower axis."""
    found = seed.apart()
    look = Look(PLAIN_HUES[1 + place % (len(PLAIN_HUES) - 1)], "solid", MARKERS[place + 2], 1.0)
    words = [f"seed {seed.seed}, step {whole(s)}: {signed(d)}" for s, d in found]
    trace = line(f"seed {seed.seed}", [s for s, _ in found], [100 * d for _, d in found], look, words)
    return trace | {"yaxis": "y2", "line": trace["line"] | {"width": 1.4}}


def claim_line(side: float) -> dict[str, object]:
    """One edge of the claim on the lower axis."""
    stroke = {"type": "line", "line": {"color": INK, "width": 1, "dash": "dash"}}
    return {**stroke, "xref": "paper", "yref": "y2", "x0": 0, "x1": 1, "y0": 100 * side, "y1": 100 * side}


def loss_table(found: Sequence[Family]) -> Html:
    """Every seed of every model: both losses, their difference, and that of validation, at its last step."""
    rows = []
    for family in found:
        for seed in family.seeds:
            losses = [number(digits(value, 5)) for value in seed.both(SERIES)[-1][1:]]
            apart = [dict(seed.apart(series)).get(seed.end) for series in (SERIES, "validation_bits")]
            cells = [number(signed(value) if value is not None else DASH) for value in apart]
            rows.append(row([linked(seed.case), number(str(seed.seed)), number(whole(seed.end)), *losses, *cells]))
    heads = [">Seed", ">Step", ">Without FP8", ">FP8", ">Difference", ">Of validation"]
    return table(["Case", *heads], capped(rows))


def answer(view: View) -> str | None:
    """What the first family found."""
    found = families(view)
    return f"Training a small model ({found[0].name}): {told(found[0])}." if found else None


def others(view: View) -> str | None:
    """Models in the table alone."""
    rest = [family.name for family in families(view)[1:]]
    return f"In the table also: {listed(rest)}." if rest else None
