"""How a number on these pages comes about, for a reader who did not write the suite; this run's own facts beside it.

General rules are told once and short; whatever a record or the header knows (clocks, caches, rounds, what ended a
contest, tolerances, software) is counted from this run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from harness.record import Record
from harness.statistics import CONFIDENCE, RESAMPLES
from harness.units import MISSING, digits, duration, listed, show, some, tidy

from . import facts
from .environment import entry, title_of
from .intensity import roofs
from .markup import Child, Html, join, tag
from .roofline_plot import roof_words
from .sections import part
from .table import number, pairs, row, table
from .view import View, mapping, plain

CLOCKS = {
    "events": "device time between two CUDA events; the calls were queued behind a gate kernel, which is proven for "
    "each batch, so that the host's launches are not in it",
    "graph": "the same, with the whole call replayed as one CUDA graph, the way serving engines run a decode step",
    "host-bound": "wall time: the calls could not be queued in time, because they wait for the host or launch faster "
    "than the queue takes them, so launches are in it",
    "wall": "wall time of one call between two readings of the monotonic clock",
}
STOPS = {
    "narrow": "every median and ratio was known narrowly enough",
    "budget": "its share of the time was spent",
    "rounds": "it had its rounds",
    "steps": "it had taken all its steps",
}
NEVER = (
    "Give a time to a wrong result. A contender that fails verification, before or after timing, has a reason instead.",
    "Drop an outlier. Outliers are counted, stay in the samples and are drawn on the page of their case.",
    "Take the best of several tries for a contender. Figures are medians over rounds; only ceilings are a best.",
    "Divide times of two machines, or join them in one plot or line.",
    "Time a call whose data are still in the cache and call it cold.",
    "Leave out what did not run. It is listed with the reason.",
    "Draw what was computed or quoted like what was measured.",
    "Compute a statistic in the browser. What the pages, the terminal and the gates say comes from the same code.",
)
LIMITS = (
    "That the rules were kept: the code is the proof, and its tests. Each record names the file it measured and a "
    "digest of it; the pages of cases give the command that measures it again."
)


def page(view: View) -> Html:
    """The content of the page."""
    return join(
        tag("p", "Method", class_="kicker"),
        tag("h1", "How does a number here come about?"),
        tag("p", answer(view), class_="answer"),
        part("contest", "A contest, not a stopwatch", contest(view)),
        part("clock", "What is timed", clocks(view)),
        part("verified", "What counts as correct", verification(view)),
        part("intervals", "Medians, ratios and their intervals", intervals(view)),
        part("floors", "How fast it could be", floors(view)),
        part("memory", "Memory, bytes and FLOPs", tag("p", MEMORY)),
        trials(view),
        part("asked", "What this run was asked for", asked(view)),
        part("never", "What is never done", tag("ul", [tag("li", item) for item in NEVER])),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
    )


MEMORY = (
    "Resident memory is weights, what setup keeps, and state such as the cache; peak is the highest allocation of one "
    "call above that, taken in a pass that is not timed. FLOPs and least bytes are not measured but computed from the "
    "sizes by a cost model that each operation declares, the same for all contenders of a technique."
)


def timed(view: View) -> list[Record]:
    """Records with a latency."""
    return [record for record in view.run.records if "latency" in record.figures]


def answer(view: View) -> str:
    """The whole of it in three sentences."""
    clocks = Counter(str(record.timing.get("clock")) for record in timed(view))
    main = clocks.most_common(1)[0][0] if clocks else None
    kind = {"wall": "wall time on the CPU", "host-bound": "wall time", None: "time"}.get(main, "device time on the GPU")
    return (
        "All contenders of a case are verified, then timed in turn, in random order, round after round, then verified "
        f"again on other inputs. A latency is the median {kind} of a call with cold caches, unless its record says "
        f"otherwise; a ratio is the median over rounds in which both took part. In this run that gave "
        f"{some(len(timed(view)), 'latency').replace('latencys', 'latencies')} in {some(len(view.cases), 'case')}."
    )


def contest(view: View) -> Html:
    """Turns and rounds, and how many this run's contests took."""
    rounds = counted(view, "rounds")
    text = (
        "A case is one operation at one size. Its contenders are set up side by side in one process and take turns in "
        "short slots; the order is drawn anew for each round and inputs change by whole rows. Whatever disturbs the "
        "machine, other work or a clock that falls, disturbs all of them alike. What does not fit in memory together "
        "is timed apart and marked unpaired. A contender that crashes or hangs costs itself; the others go on in a new "
        "process."
    )
    stops = Counter(str(r.timing["stopped"]) for r in timed(view) if r.timing.get("stopped"))
    ends = [f"{STOPS.get(word, word)} ({count})" for word, count in stops.most_common()]
    apart = sum(record.timing.get("pairing") == "unpaired" for record in timed(view))
    return join(
        tag("p", text),
        pairs(
            [
                ("Rounds of a contender", spread(rounds)),
                ("Samples of a contender", spread(counted(view, "samples"))),
                ("Measured apart from the baseline", f"{apart} of {len(timed(view))}"),
            ]
        ),
        tag("p", f"Contests ended because {listed(ends)}.", class_="note") if ends else None,
    )


def counted(view: View, name: str) -> list[float]:
    """A number of every timed record's `timing`."""
    return [value for record in timed(view) if (value := plain(record.timing.get(name))) is not None]


def spread(values: Sequence[float]) -> str:
    """Median with least and greatest."""
    if not values:
        return MISSING
    return f"{tidy(float(np.median(values)))} in the median, {tidy(min(values))} to {tidy(max(values))}"


def clocks(view: View) -> Html:
    """The clocks of this run with what each means, and the caches."""
    found = Counter(str(r.timing.get("clock") or MISSING) for r in timed(view))
    rows = [row([name, number(n), CLOCKS.get(name, "as the record says")]) for name, n in found.most_common()]
    caches = Counter(str(r.timing["caches"]) for r in timed(view) if r.timing.get("caches"))
    told = listed([f"{name} ({count})" for name, count in caches.most_common()])
    cold = (
        "Before each cold call a buffer of twice the last-level cache is read, which leaves nothing of the call's data "
        "there. It is read, not written: a write would leave lines that the measured call has to put back."
    )
    gate = (
        "A GPU takes work from a queue. A gate kernel holds the queue until the whole batch stands in it; that the "
        "gate was still closed is checked, or the batch does not count. The time of an empty pair of events is taken "
        "off."
    )
    return join(
        tag("p", cold),
        tag("p", gate) if view.on_gpu else None,
        table(["Clock", ">Latencies", "What it is"], rows, class_="prose", label="Clocks of this run")
        if rows
        else None,
        tag("p", f"Caches in this run: {told}.", class_="note") if told else None,
    )


def verification(view: View) -> Html:
    """How results are judged, and how near to their limits this run's came."""
    text = (
        "The reference of a technique is its specification: plain code that computes the same in higher precision "
        "(FP64, FP32 for 16-bit dtypes). A contender may err twice as much as the reference does in the contender's "
        "own dtype (relative Frobenius norm), and four times as much in its worst element, so that one wrong value "
        "does not hide in the norm. It is judged on random inputs that were not there at setup, with NaN in the memory "
        "that will hold the result, before timing and again after it. What a call writes into a cache is judged too, "
        "and anything else that it changes is a failure. Whole numbers must be equal."
    )
    judged = [record for record in view.run.records if facts.verified(record)]
    errors = [error for record in judged if (error := plain(record.verification.get("error"))) is not None]
    middle = digits(float(np.median(errors))) if errors else MISSING
    wrong = sum(record.status == "incorrect" for record in view.run.records)
    precision = Counter(str(r.verification.get("precision")) for r in judged if r.verification.get("precision"))
    return join(
        tag("p", text),
        pairs(
            [
                ("Compared with a reference", str(len(judged))),
                ("Truth computed in", listed([f"{name} ({n})" for name, n in precision.most_common()]) or MISSING),
                ("Relative error of a result, in the median", middle),
                ("Found incorrect, and so without a time", str(wrong)),
            ]
        ),
    )


def intervals(view: View) -> Html:
    """The bootstrap, and how wide this run's intervals are."""
    widths = [
        (figure.high - figure.low) / (2 * figure.value)
        for record in timed(view)
        if (figure := record.figures["latency"]).low is not None and figure.high is not None and figure.value
    ]
    text = (
        f"Intervals are of the median, at {show(CONFIDENCE, 'share')}: {RESAMPLES} resamples of blocks of "
        "neighbouring rounds (a circular moving-block bootstrap), because what comes after each other resembles each "
        "other; nothing assumes a normal distribution. A ratio is taken round by round and then its median, so that "
        "drift cancels. Fewer than five rounds give no interval."
    )
    few = len(timed(view)) - len(widths)
    width = f"±{show(float(np.median(widths)), 'share')}" if widths else MISSING
    return join(
        tag("p", text),
        pairs([("Half the interval of a latency, in the median", width), ("Latencies without an interval", str(few))]),
    )


def floors(view: View) -> Html:
    """Ceilings of this run, and what lies above them."""
    text = (
        "The floor of a case is the least time its technique needs: the larger of least bytes over the measured "
        "bandwidth and FLOPs over the measured rate of its dtype. Ceilings are taken at the start of the same run, "
        "from this machine and not from a data sheet. More than 105 % of a floor is called suspect, measured again and "
        "shown."
    )
    suspect = sum(bool(record.timing.get("suspect")) for record in timed(view))
    return join(
        tag("p", text, " ", tag("a", "All results under these roofs", href="roofline.html"), "."),
        pairs([("Ceilings", roof_words(roofs(view)) or MISSING), ("Suspect results", str(suspect))]),
    )


def trials(view: View) -> Html | None:
    """What holds for trainings; None where the run has none."""
    found = [record for record in view.run.records if facts.steps(record)]
    if not found:
        return None
    text = (
        "A training cannot be compared with a truth. It passes when every step returns a finite number, the last tenth "
        "of them lies below the first, a second setup begins alike, and so do all contenders of its technique. Its "
        "latency is the median wall time of a step, with caches as the steps of the others left them."
    )
    early = sum(taken < planned for record in found for taken, planned in [facts.steps(record) or (0, 0)])
    return part(
        "trials",
        "Trainings",
        tag("p", text),
        pairs([("Trainings in this run", str(len(found))), ("Stopped early by their budget", str(early))]),
    )


def asked(view: View) -> Html:
    """Options, budget, software and method of the run, with the way to the environment page."""
    header = view.run.header
    options = mapping(header.options)
    items: list[tuple[str, Child]] = [("Run", header.run), ("Started", view.date), ("Commit", view.commit)]
    for name, value in options.items():
        if value is None:
            continue
        seconds = plain(value) if name in ("budget", "timeout") else None
        items.append((title_of(name), duration(seconds) if seconds is not None else entry(name, value)))
    items.append(("Method of timing", header.method))
    for name, value in mapping(view.machine.get("software")).items():
        if name in ("python", "torch", "triton", "cuda"):
            items.append((name, entry(name, value)))
    return join(
        pairs(items),
        tag(
            "p",
            tag("a", "Everything recorded of the machine", href="environment.html"),
            ", and ",
            tag("a", "what each metric and caution means", href="environment.html#words"),
            ".",
        ),
    )
