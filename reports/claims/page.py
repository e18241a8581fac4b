"""The claims page: how many published figures hold on these machines, every one as a card, and the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.units import listed, some

from ..markup import Child, Html, join, tag
from . import verdict
from .card import STUDIES, anchor, card, kind, pill
from .evidence import Judged

LIMITS = (
    "A verdict is about these runs and these conditions; it is no verdict on the paper.",
    "Figures are quoted as the documents had them when they were read. Later versions may differ, and some documents "
    "were read as transcriptions; the cards say which.",
    "Most published effects on quality are smaller than the spread between seeds of a small model.",
    "A quoted figure was never measured by this suite, whatever stands beside it.",
)


def page(judged: Sequence[Judged]) -> Html:
    """The content of the claims page."""
    return join(
        tag("p", "Claims", class_="kicker"),
        tag("h1", "Do the published claims hold on these machines?"),
        tag("p", answer(judged), class_="answer"),
        ledger(judged),
        tag("section", tag("h2", "How a verdict comes about"), tag("p", BEFORE), rules(), id="rules"),
        tag(
            "section", tag("h2", "What this does not show"), tag("ul", [tag("li", one) for one in LIMITS]), id="limits"
        ),
    )


BEFORE = (
    "Each claim names the records that would answer it, or the sums that settle it. Of several records those whose "
    "conditions match come first, then a GPU's. A verdict follows from the interval, the published figure and the "
    "conditions alone, by these rules."
)


def rules() -> Html:
    """Every verdict with its rule."""
    return tag(
        "dl",
        [tag("div", tag("dt", pill(word)), tag("dd", rule)) for word, rule in verdict.RULES.items()],
        class_="rules",
    )


def counts(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """Verdicts that occur and how often, in the order of the rules."""
    found = Counter(one.verdict for one in judged)
    return [(word, found[word]) for word in verdict.ORDER if found[word]]


def answer(judged: Sequence[Judged]) -> str:
    """The ledger in a few sentences."""
    found = dict(counts(judged))
    decided = {word: found[word] for word in verdict.MEASURED[:4] if word in found}
    parts = [f"{some(len(judged), 'published claim')}."]
    if decided:
        words = listed([f"{n} {word}" for word, n in decided.items()]) if len(decided) > 1 else next(iter(decided))
        parts.append(f"Records of these runs decide {sum(decided.values())}: {words}.")
    else:
        parts.append("Records of these runs decide none of them.")
    undecided = found.get(verdict.NOT_COMPARABLE, 0) + found.get(verdict.INCONCLUSIVE, 0)
    if undecided:
        parts.append(
            f"For {undecided} more the quantity was recorded, but under other conditions or with too wide an interval."
        )
    right, wrong = found.get(verdict.ARITHMETIC, 0), found.get(verdict.INCONSISTENT, 0)
    if right or wrong:
        parts.append(
            f"Arithmetic settles {right + wrong}: {right} follow from published sizes or parts, {wrong} are "
            "inconsistent as published."
        )
    if found.get(verdict.NOT_MEASURED):
        parts.append(f"{found[verdict.NOT_MEASURED]} were not measured here; their cards say what it would take.")
    return " ".join(parts)


def ledger(judged: Sequence[Judged]) -> Html:
    """Filters, then every card by study; within a study what is decided comes first."""
    content: list[Child] = []
    for study in dict.fromkeys([*STUDIES, *(one.claim.study for one in judged)]):
        cards = sorted((one for one in judged if one.claim.study == study), key=lambda one: _rank(one.verdict))
        if cards:
            content.append(tag("h2", STUDIES.get(study, study), class_="group"))
            content += [card(one) for one in cards]
    return tag(
        "section",
        tag("div", verdicts(judged), studies(judged), search(), told(), class_="tools ledger"),
        tag("div", content, class_="claims filterable"),
        id="ledger",
        aria_label="Claims",
    )


def _rank(word: str) -> int:
    first = (verdict.CONTRADICTED, verdict.INCONSISTENT, verdict.WEAKER, verdict.STRONGER)
    return first.index(word) if word in first else len(first) + verdict.ORDER.index(word)


def verdicts(judged: Sequence[Judged]) -> Html:
    """A button a verdict, with its number."""
    buttons = [
        chip(word, [tag("b", verdict.SIGNS[word], aria_hidden="true"), f" {n} {word}"], f"verdict {kind(word)}")
        for word, n in counts(judged)
    ]
    return facet("verdict", "Show one verdict", buttons)


def studies(judged: Sequence[Judged]) -> Html:
    """A button a study."""
    found = Counter(one.claim.study for one in judged)
    buttons = [chip(study, f"{study.capitalize()} {found[study]}") for study in STUDIES if found[study]]
    return facet("study", "Show one study", buttons)


def chip(value: str, content: Child, style: str | None = None) -> Html:
    """A button that, pressed, shows what has this value alone."""
    return tag("button", content, type="button", value=value, class_=style, aria_pressed="false")


def facet(name: str, label: str, buttons: Sequence[Html]) -> Html:
    """Buttons of which one may be pressed."""
    return tag("div", buttons, class_="facet chips", data_name=name, role="group", aria_label=label)


def search() -> Html:
    """The field that filters cards by their words."""
    return tag(
        "input", type="search", class_="filter", placeholder="Filter: cache, FP8, R1 …", aria_label="Filter claims"
    )


def told() -> Html:
    """Where the script tells how many cards are hidden."""
    return tag("span", class_="filtered", aria_live="polite", data_what="claims")


def line(judged: Sequence[Judged], address: str) -> Html:
    """The ledger on the overview: the answer, what stands out, and the way to the page."""
    loud = [one for one in judged if one.verdict in (verdict.CONTRADICTED, verdict.INCONSISTENT)]
    items = [
        tag("li", pill(one.verdict), " ", tag("a", one.claim.title, href=f"{address}#{anchor(one.claim)}"))
        for one in loud
    ]
    return tag(
        "section",
        tag("h2", "Published claims"),
        tag("p", answer(judged), " ", tag("a", "All claims", href=address), "."),
        tag("ul", items, class_="loud") if items else None,
        id="claims",
    )
