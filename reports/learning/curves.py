"""What a policy learns: held-out accuracy over steps and over seconds, length, KL, and groups without signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.units import DASH, listed, show, some, whole

from ..figure import Plot, Trace, line
from ..lines import PLAIN_HUES
from ..markup import Html
from ..palette import MARKERS, Look
from ..seeds import mean_interval
from ..table import number, row, table
from ..view import View
from .cases import Course, courses, reference_words

Value = Callable[[float], str]


def look(place: int, one: Course) -> Look:
    """A colour an arm; PPO is dashed."""
    dash = "dash" if one.technique == "ppo" else "solid"
    return Look(PLAIN_HUES[place % len(PLAIN_HUES)], dash, MARKERS[place % len(MARKERS)], 1.0)


def traces(found: Sequence[Course], name: str, told: Value, over: str = "step") -> list[Trace]:
    """An arm a line: the mean over seeds with its range, at steps or at the mean of another series there."""
    drawn = []
    for place, one in enumerate(found):
        points = one.mean(name)
        other = {step: mean for step, mean, _, _ in one.mean(over)} if over != "step" else {s: s for s, *_ in points}
        points = [point for point in points if point[0] in other]
        if not points:
            continue
        several = len(one.records) > 1
        words = [
            f"{one.contender}, step {whole(s)}: {told(v)}" + (f" ({told(low)} to {told(high)})" if several else "")
            for s, v, low, high in points
        ]
        bounds = ([low for *_, low, _ in points], [high for *_, high in points]) if several else ((), ())
        drawn.append(
            line(
                one.contender,
                [other[s] for s, *_ in points],
                [v for _, v, *_ in points],
                look(place, one),
                words,
                *bounds,
            )
        )
    return drawn


def share(value: float) -> str:
    """A share in per cent."""
    return show(value, "share")


def accuracy_plot(view: View, over: str = "step") -> Plot | None:
    """Held-out accuracy of every arm, over steps or "seconds"; None without a course."""
    found = courses(view)
    drawn = traces(found, "accuracy", share, over)
    if not drawn:
        return None
    title = {"step": "Step", "seconds": "Seconds of steps, validation left out"}[over]
    layout = {
        "xaxis": {"title": {"text": title}},
        "yaxis": {"title": {"text": "Held-out problems right"}, "tickformat": ".0%", "range": [0, 1.02]},
        "hovermode": "closest",
    }
    seeds = max(len(one.records) for one in found)
    note = f"Greedy responses to problems that training never sees. {some(seeds, 'seed')}"
    note += ", means with the range of seeds." if seeds > 1 else ": no interval comes of one."
    note += reference_words([record for one in found for record in one.records]) if over == "step" else ""
    name = "accuracy" if over == "step" else "seconds"
    return Plot(
        f"{name}-plot",
        f"Accuracy over {'steps' if over == 'step' else 'seconds'}, {found[0].family}",
        told_ends(found) if over == "step" else told_speed(found),
        drawn,
        layout,
        ends_table(found),
        note=note,
    )


def told_ends(found: Sequence[Course]) -> str:
    """Where each arm began and ended."""
    parts = []
    for one in found:
        points = one.mean("accuracy")
        parts.append(f"{one.contender} from {share(points[0][1])} to {share(points[-1][1])}")
    return f"Held-out problems answered right: {listed(parts)}."


def told_speed(found: Sequence[Course]) -> str:
    """How long the steps took."""
    parts = [
        f"{one.contender} {show(max(v for _, v, *_ in one.mean('seconds')), 's')}"
        for one in found
        if one.mean("seconds")
    ]
    return f"All steps together took {listed(parts)}."


def ends_table(found: Sequence[Course]) -> Html:
    """Each arm's end, with an interval over seeds."""
    names = ("accuracy", "reward", "length", "truncated", "kl", "without_signal", "clipped")
    rows = []
    for one in found:
        values = one.ends("accuracy")
        mean, low, high = mean_interval(values) if values else (0.0, 0.0, 0.0)
        bounds = f" [{share(low)}, {share(min(1.0, high))}]" if len(values) > 1 else ""
        points = {name: one.mean(name) for name in names}
        others = [ending(points[name][-1][1], name) if points[name] else DASH for name in names[1:]]
        cells = [number(str(len(one.records))), number(f"{share(mean)}{bounds}" if values else DASH)]
        rows.append(row([one.contender, *cells, *(number(other) for other in others)]))
    heads = ["Reward", "Symbols", "Cut off", "KL, nats a symbol", "Without signal", "Clipped"]
    return table(["Arm", ">Seeds", ">Accuracy", *(f">{head}" for head in heads)], rows)


def ending(value: float, name: str) -> str:
    """A curve's end."""
    if name in ("length", "kl"):
        return f"{value:.3g}"
    return share(value)


def length_plot(view: View) -> Plot | None:
    """Symbols of a sampled response over steps, and below what had no end."""
    found = courses(view)
    drawn = traces(found, "length", lambda value: f"{value:.3g} symbols")
    if not drawn:
        return None
    for trace in traces(found, "truncated", share):
        drawn.append({**trace, "yaxis": "y2", "showlegend": False})
    layout = {
        "xaxis": {"title": {"text": "Step"}, "anchor": "y2"},
        "yaxis": {"title": {"text": "Symbols a response"}, "domain": [0.42, 1.0]},
        "yaxis2": {"title": {"text": "Cut off"}, "domain": [0.0, 0.3], "tickformat": ".1%"},
        "hovermode": "closest",
    }
    parts = [f"{one.contender} {p[0][1]:.3g} to {p[-1][1]:.3g}" for one in found if (p := one.mean("length"))]
    note = "Above the mean length of sampled responses, below the share that had no end when there was no more room. "
    note += "Right answers have few lengths here, so nothing can grow as answers of R1-Zero are published to."
    takeaway = f"Symbols a response, first to last: {listed(parts)}."
    return Plot(
        "length-plot", "Length and truncation over steps", takeaway, drawn[:8], layout, ends_table(found), note=note
    )


def signal_plot(view: View) -> Plot | None:
    """Groups without signal over steps, and below the KL to the reference."""
    found = courses(view)
    drawn = traces(found, "without_signal", share)
    if not drawn:
        return None
    for trace in traces(found, "kl", lambda value: f"{value:.3g} nats"):
        drawn.append({**trace, "yaxis": "y2", "showlegend": False})
    layout = {
        "xaxis": {"title": {"text": "Step"}, "anchor": "y2"},
        "yaxis": {"title": {"text": "Without signal"}, "domain": [0.42, 1.0], "tickformat": ".0%"},
        "yaxis2": {"title": {"text": "KL, nats a symbol"}, "domain": [0.0, 0.3]},
        "hovermode": "closest",
    }
    parts = [f"{one.contender} {share(p[-1][1])}" for one in found if (p := one.mean("without_signal"))]
    note = (
        "A group whose rewards are all equal teaches GRPO nothing, whether all are right or all are wrong. Below the "
    )
    note += "k3 estimate of the KL to the policy that all began with."
    takeaway = f"Groups without signal at the end: {listed(parts)}."
    return Plot(
        "signal-plot", "Groups without signal, and KL", takeaway, drawn[:8], layout, ends_table(found), note=note
    )


def answer(view: View) -> str | None:
    """What the arms came to."""
    found = courses(view)
    return told_ends(found) if found else None
