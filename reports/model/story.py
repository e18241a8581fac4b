"""What does each idea buy, alone and together? Sixteen models, each of four choices on or off."""

from __future__ import annotations

from harness.units import listed, some

from ..figure import tabs
from ..markup import Child, Html, join, tag
from ..sections import absent, figure, missing, part
from ..study import general_answer
from ..view import View
from . import analysis, combinations, rungs
from .cases import ALL, BITS, CHOICES, PLAINEST, Ladder, combination, ladders

QUESTION = "What does each idea buy, alone and together?"
MAKE = "make ladder"
NO_LADDER = ("The sixteen combinations were not trained in this run.", MAKE)
INCOMPLETE = "Too few combinations have figures to compare."


def answer(view: View) -> str:
    """All four together, then the strongest effect of each quantity; other operations where there is no ladder."""
    found = ladders(view)
    if not found:
        general = general_answer(view, "model")
        return f"{general} The sixteen combinations were not trained in this run; {MAKE} does that."
    ladder = found[0]
    if not ladder.passed:
        return f"Nothing was measured: none of {some(len(ladder.records), 'combination')} could run."
    early = f"The time was up after {ladder.early} steps." if ladder.early else None
    told = [together(ladder), averaged(ladder), lost(ladder), early, combinations.failures(ladder)]
    text = " ".join(sentence for sentence in told if sentence)
    if not view.on_gpu:
        text += " On a CPU FP8 is emulated, so its times are the emulation's."
    return text


def together(ladder: Ladder) -> str:
    """All four beside none, in every quantity that both have."""
    top, bottom = ladder.passed.get(ALL), ladder.passed.get(PLAINEST)
    if top is None or bottom is None:
        gone = [combination(s) for s in (PLAINEST, ALL) if s not in ladder.passed]
        return f"All four ideas together cannot be told: {listed(gone)} has no figures."
    parts = []
    for quantity in ladder.quantities:
        one, other = quantity.of(top), quantity.of(bottom)
        if one is not None and other is not None:
            parts.append(f"{quantity.effect(one.value / other.value)} the {quantity.words}")
    if not parts:
        return "All four ideas together were trained, but no time or size of them was recorded."
    return f"All four ideas together ({combination(ALL)}) take, over {combination(PLAINEST)}, {listed(parts)}."


def averaged(ladder: Ladder) -> str | None:
    """The strongest effect on a training step and on generation at the largest batch, whatever the order."""
    chosen = [q for q in ladder.quantities if q.metric == ladder.stepping]
    chosen += [q for q in ladder.quantities if q.inverse][-1:]
    parts, columns = [], []
    for quantity in chosen:
        found = analysis.main_effects(ladder, quantity)
        if found:
            name = max(found, key=lambda name: found[name].size)
            parts.append(f"the {quantity.words} changes most with {analysis.told(quantity, name, found[name])}")
            columns.append(found)
    where = analysis.scope(columns)
    return f"{where[0].upper()}{where[1:]}, {'; '.join(parts)}." if parts else None


def lost(ladder: Ladder) -> str | None:
    """Validation without any and with all four."""
    values = ladder.values(BITS)
    if ALL not in values or PLAINEST not in values:
        return None
    return (
        f"Validation ends at {BITS.show(values[ALL])} beside {BITS.show(values[PLAINEST])}, from one seed each, which "
        "does not separate losses that are close."
    )


def sections(view: View) -> Html:
    """All evidence, each part saying so when its records are not in the run."""
    found = ladders(view)
    ladder = next((one for one in found if one.passed), None)
    if ladder is None:
        tables = [combinations.full_table(view, one) for one in found]
        why = missing("No combination could run; the table has the reasons.") if tables else absent(*NO_LADDER)
        return join(
            part("combinations", "The combinations", why, tables),
            part("ladder", "The ladder: one idea after the other", why),
            part("effects", "What does each do, whatever the order?", why),
        )
    return join(
        part(
            "combinations",
            "The combinations",
            combinations.notes(ladder),
            combinations.full_table(view, ladder),
            traded(view, ladder),
            others(found, ladder),
        ),
        part("ladder", "The ladder: one idea after the other", up(ladder)),
        part("effects", "What does each do, whatever the order?", effects(ladder)),
    )


def traded(view: View, ladder: Ladder) -> Html:
    """Validation against generation, or why they are not drawn."""
    why = "No combination has both its validation loss and its speed of generation."
    return figure(combinations.tradeoff_plot(view, ladder), why, MAKE)


def others(found: list[Ladder], shown: Ladder) -> Html | None:
    """Ladders of the run that the page does not show."""
    rest = [one.case.id for one in found if one is not shown]
    return tag("p", f"Not shown, with fewer combinations: {listed(rest)}.", class_="note") if rest else None


def up(ladder: Ladder) -> Html:
    """The ladder in a few quantities: training, generation at the largest batch, cache, validation."""
    generating = [q for q in ladder.quantities if q.inverse]
    wanted = [q for q in ladder.quantities if not q.inverse and q.metric != "peak"]
    order = [*wanted[:1], *generating[-1:], *wanted[1:], BITS]
    panels: list[tuple[str, Child]] = []
    for place, quantity in enumerate(order):
        plot = rungs.rung_plot(ladder, quantity, place)
        if plot is not None:
            panels.append((quantity.words, plot.html()))
    if not panels:
        return missing(INCOMPLETE)
    return join(tag("p", f"Rungs: {combination(PLAINEST)}, then {listed(CHOICES)}, each kept."), tabs("rungs", panels))


def effects(ladder: Ladder) -> Html:
    """Averages, pairs, leave-one-out, validation; what cannot be told says what it needs."""
    pairs = (
        "Pairs of choices need combinations that differ in two of them and nothing else, which have no figures here."
    )
    last = f"Leaving one choice out needs {combination(ALL)} and one without that choice, which have no figures here."
    plots = (
        (analysis.main_plot(ladder), INCOMPLETE),
        (analysis.pair_plot(ladder), pairs),
        (analysis.last_plot(ladder), last),
        (analysis.bits_plot(ladder), "Validation of neighbouring combinations was not recorded."),
    )
    lead = "A ladder's steps depend on its order. What follows does not."
    return join(tag("p", lead), [plot.html() if plot else missing(why) for plot, why in plots])


def limits(view: View) -> list[str]:
    """What the page does not show, by what the run holds."""
    found = []
    if ladders(view):
        found.append(
            "Large models: these are small and trained for minutes. They show a direction; sizes of effects, and which "
            "idea pays at all, change with width, depth and length."
        )
        found.append("Chance: one seed was trained of each combination, so losses that are close are not told apart.")
        found.append(
            "Energy and capacity: joules a token and the largest batch that fits are not measured, nor are several "
            "GPUs, over which a mixture's experts would be spread."
        )
    if any(case.first.operation != "model.ladder" for case in view.of("model")):
        found.append("Serving: times of a step or a pass are those of one model alone on the device, without a queue.")
    if not view.on_gpu:
        found.append(
            "FP8's speed: this machine has no FP8, so it is emulated and slower than what it replaces; its rounding is "
            "FP8's. A CPU's balance of bandwidth and arithmetic is another than a GPU's, and so are all rankings."
        )
    return found
