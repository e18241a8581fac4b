"""A claim as a card: what is quoted beside what was found here, conditions, verdict, sums and further evidence.

What is quoted stands in italics in a dashed box, what is ours upright in a filled one, each under its label.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.record import Figure
from harness.units import GAP, digits, interval, listed, show, some, whole

from ..facts import cautions
from ..markup import Child, Html, join, tag
from ..page import badge
from ..table import number, row, table
from ..view import link, page_of
from . import verdict
from .claim import Claim, Sum
from .evidence import Evidence, Held, Judged

STUDIES = {
    "attention": "Attention: MHA against MLA",
    "ffn": "Feed-forward: dense against experts",
    "linear": "Linear layers: BF16 against FP8",
    "objective": "Objective: next token against several",
    "learning": "Learning: PPO against GRPO",
    "model": "Whole models and clusters",
}
LONG = 30  # characters: a printed figure longer than this is set smaller
KINDS = {
    verdict.REPRODUCED: "good",
    verdict.STRONGER: "good",
    verdict.ARITHMETIC: "good",
    verdict.WEAKER: "warn",
    verdict.INCONCLUSIVE: "warn",
    verdict.CONTRADICTED: "bad",
    verdict.INCONSISTENT: "bad",
}


def card(judged: Judged) -> Html:
    """The card of one claim."""
    claim, word = judged.claim, judged.verdict
    place = [claim.source.document, f", {claim.source.place}" if claim.source.place else ""]
    read = f" ({claim.source.read})" if claim.source.read else ""
    first = judged.evidence[0] if judged.evidence else None
    return tag(
        "article",
        tag("p", tag("a", claim.id, href=f"#{anchor(claim)}", class_="id"), pill(word), class_="head"),
        tag("h3", claim.title),
        tag("p", claim.statement),
        tag("div", quoted(claim), ours(judged), class_="sides"),
        conditions(first) if first is not None and not claim.identity else None,
        tag("p", claim.note, class_="note") if claim.note else None,
        more(judged),
        tag("p", "Source: ", place, read, class_="source"),
        class_="card claim wide" if unfolded(claim) else "card claim",
        id=anchor(claim),
        data_verdict=word,
        data_study=claim.study,
    )


def anchor(claim: Claim) -> str:
    """The id of a claim's card."""
    return f"claim-{claim.id}"


def pill(word: str) -> Html:
    """A verdict: sign, word and colour."""
    return tag("span", tag("b", verdict.SIGNS[word], aria_hidden="true"), f" {word}", class_=f"verdict {kind(word)}")


def kind(word: str) -> str:
    """The style class of a verdict; none for what decides nothing."""
    return KINDS.get(word, "open")


def quoted(claim: Claim) -> Html:
    """The published figure, never to be taken for a measurement."""
    return tag(
        "div",
        tag("p", "Quoted", class_="label"),
        tag("p", claim.printed, class_="figure long" if len(claim.printed) > LONG else "figure"),
        tag("p", claim.conditions, class_="under"),
        class_="side quoted",
    )


def ours(judged: Judged) -> Html:
    """What stands against it: sums, a record, or that there is nothing."""
    claim = judged.claim
    if claim.identity:
        label, content = "Recomputed", computed(claim.identity)
    elif judged.evidence:
        label, content = recorded(judged.evidence[0])
    else:
        label, content = "Not measured here", join(tag("p", takes(claim), class_="under"))
    empty = not claim.identity and not judged.evidence
    return tag("div", tag("p", label, class_="label"), content, class_=f"side ours{' empty' if empty else ''}")


def takes(claim: Claim) -> str:
    """What it would take to measure a claim here."""
    if claim.takes:
        return claim.takes
    operations = ", ".join(dict.fromkeys(one.operation for one in claim.joins))
    return f"make bench: a run with {operations} has the quantity."


def computed(identity: Sequence[Sum]) -> Html:
    """The first sum that differs from what is printed, or the first."""
    chosen = next((one for one in identity if not one.agrees), identity[0])
    words = f"{chosen.what}: {chosen.formula}"
    rest = f"; {some(len(identity) - 1, 'more sum')} below" if len(identity) > 1 else ""
    return join(tag("p", value(chosen.value, chosen.unit), class_="figure"), tag("p", words, rest, class_="under"))


def value(number: float, unit: str) -> str:
    """A value as `harness.units` shows it, with more digits where three would hide what is printed."""
    if unit == "share":
        return f"{digits(100 * number)}{GAP}%"
    if unit in ("bytes", "count") and 1e4 <= abs(number) < 1e6 and number == round(number):
        return f"{whole(number)}{GAP}B" if unit == "bytes" else whole(number)
    return show(number, unit)


def recorded(one: Evidence) -> tuple[str, Html]:
    """Label and content for a figure from records."""
    words = {w for w, _ in cautions(one.record)}
    counted = "Simulated" if "simulated" in words else "Counted" if one.join.exact else "Measured"
    label = f"{counted} here · {'GPU' if one.view.on_gpu else 'CPU'}"
    figure = tag("p", told(one), class_="figure")
    return label, join(figure, tag("p", one.join.what, class_="under"), tag("p", origin(one), class_="under"))


def told(one: Evidence) -> Child:
    """The figure with its interval."""
    bounds = "" if one.join.exact else interval(one.figure, one.unit)
    return [value(one.figure.value, one.unit), " ", tag("small", bounds or missing(one.figure, one.join.exact))]


def missing(figure: Figure, exact: bool) -> str:
    """Why a figure has no interval."""
    return "" if exact or figure.low is not None else "no interval"


def origin(one: Evidence) -> Child:
    """Contenders, case and machine, with the way to the case's page."""
    over = f" over {one.over.contender}" if one.over is not None else ""
    among = {"best": "the best of {}", "mean": "the mean of {}"}.get(one.join.pick, "")
    chosen = f", {among.format(some(one.cases, 'case'))}" if among and one.cases > 1 else ""
    where = tag("a", one.case.id, href=link(f"{one.view.folder}/{page_of(one.case.id)}"))
    pills = [] if one.join.exact else [[" ", badge(word)] for word, _ in cautions(one.record)]
    return [f"{one.record.contender}{over} in ", where, f"{chosen}; {one.view.label}", pills]


def conditions(one: Evidence) -> Html | None:
    """Each condition as published and as it is here."""
    if not one.held:
        return None
    rows = [tag("li", tag("b", f"{held.condition.what}: "), condition(held)) for held in one.held]
    return tag("ul", rows, class_="conditions", aria_label="Conditions")


def condition(held: Held) -> Child:
    """Published, ours, and what follows from the difference."""
    if held.same:
        other = f"; here {held.ours}" if held.condition.published not in held.ours else ""
        word = "✓ counts as the same" if other else "✓ the same"
        return [tag("span", word, class_="good"), f", {held.condition.published}{other}"]
    weight = "so it is not compared" if held.condition.essential else "not held against it"
    words = [tag("i", held.condition.published), f"; here {held.ours}"]
    return [tag("span", "≠ ", class_="bad" if held.condition.essential else "quiet"), words, f" ({weight})"]


def more(judged: Judged) -> Html | None:
    """Sums, further evidence, and the quantity that answers the claim."""
    claim = judged.claim
    others = judged.evidence if claim.identity else judged.evidence[1:]
    content: list[Child] = []
    if claim.identity:
        content.append(sums("Recomputed", claim.identity, claim.id))
    if claim.checks:
        content.append(sums(claim.beside, claim.checks, claim.id))
    if others:
        content.append(further(others))
    content.append(tag("p", tag("b", "To be measured: "), f"{claim.measure}."))
    if claim.takes and (judged.evidence or claim.identity):
        content.append(tag("p", tag("b", "How: "), claim.takes))
    return tag("details", tag("summary", summary(claim, others)), content, open=unfolded(claim))


def unfolded(claim: Claim) -> bool:
    """Whether its sums are the answer: a figure that is recomputed and then taken apart."""
    return bool(claim.identity and claim.checks)


def summary(claim: Claim, others: Sequence[Evidence]) -> str:
    """What the folded part holds."""
    parts = []
    if claim.identity or claim.checks:
        parts.append(some(len(claim.identity) + len(claim.checks), "sum"))
    if others:
        parts.append(f"{len(others)} further figure{'s' if len(others) > 1 else ''} from records")
    return ", ".join([*parts, "what to measure"]).capitalize()


def further(others: Sequence[Evidence]) -> Html:
    """Evidence beside the decisive one, each with its own verdict."""
    items = [
        tag("li", tag("b", told(one)), f" {one.join.what}. ", origin(one), ". ", pill(one.verdict), apart(one))
        for one in others
    ]
    return join(tag("p", "Also recorded", class_="label"), tag("ul", items, class_="further"))


def apart(one: Evidence) -> str:
    """Which essential conditions differ."""
    names = [held.condition.what.lower() for held in one.held if held.condition.essential and not held.same]
    return f" (other: {listed(names)})" if names else ""


def sums(title: str, shown: Sequence[Sum], claim: str) -> Html:
    """Computed values beside the printed ones; the claim's name tells its table from those of others."""
    printed = any(one.printed is not None for one in shown)
    rows = [
        row(
            [
                one.what,
                one.formula,
                number(value(one.value, one.unit)),
                *([number(print_cell(one))] if printed else []),
            ]
        )
        for one in shown
    ]
    heads = ["Quantity", "Computation", ">Computed", *([">Printed"] if printed else [])]
    return join(tag("p", title, class_="label"), table(heads, rows, class_="prose sums", label=f"{claim}: {title}"))


def print_cell(one: Sum) -> Child:
    """The printed value and whether the computed one agrees."""
    if one.printed is None:
        return ""
    sign = tag("span", "✓ agrees" if one.agrees else "≠ differs", class_="good" if one.agrees else "bad")
    return [tag("i", value(one.printed, one.unit)), " ", sign]
