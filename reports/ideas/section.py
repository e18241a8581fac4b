"""The ideas on the overview and in the summary: a sentence each, then what it buys, costs and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..markup import Child, Html, join, tag
from ..page import badge
from ..view import View, link
from .told import IDEAS, Idea, Told

LEAD = (
    "Each idea against what it replaces: the fastest implementation of both in every case, on the kind of machine that "
    "measured most of it. Figures in brackets are 95 % intervals; below 1\N{MULTIPLICATION SIGN} the idea is faster."
)


@dataclass(frozen=True)
class Answer:
    """What the runs of one machine tell of an idea; without runs or comparisons it is empty."""

    idea: Idea
    views: Sequence[View]
    told: Told

    @property
    def empty(self) -> bool:
        """Whether nothing was compared."""
        return not (self.told.buys or self.told.costs)


def answers(views: Sequence[View]) -> list[Answer]:
    """One for each idea."""
    found = []
    for idea in IDEAS:
        own = chosen(views, idea.study)
        found.append(Answer(idea, own, idea.tell(own) if own else Told()))
    return found


def chosen(views: Sequence[View], study: str) -> list[View]:
    """The runs of the machines of one name that have most of a study, a GPU before a CPU: no two kinds mix."""
    groups: dict[tuple[bool, str], list[View]] = {}
    for view in views:
        if view.of(study):
            groups.setdefault((view.on_gpu, view.label), []).append(view)

    def worth(key: tuple[bool, str]) -> tuple[bool, int]:
        return key[0], sum(len(case.passed) for view in groups[key] for case in view.of(study))

    return groups[max(groups, key=worth)] if groups else []


def section(views: Sequence[View], linked: bool = True) -> Html:
    """A sentence each, then a card each; `linked` where the pages of the runs are at hand."""
    found = answers(views)
    cards = [card(one, linked) for one in found if not one.empty]
    return tag(
        "section",
        tag("h2", "What each idea buys, costs, and how sure that is"),
        tag("ul", [headline(one) for one in found], class_="headlines"),
        [tag("p", LEAD, class_="note"), tag("div", cards, class_="ideas")] if cards else None,
        id="ideas",
    )


def headline(one: Answer) -> Html:
    """An idea in a sentence: its first gains, its first cost, whether the ratios settle it."""
    told, name = one.told, tag("b", one.idea.name)
    if one.empty:
        return tag("li", name, " was not measured in these runs; ", tag("code", one.idea.command), " does that.")
    buys = " and ".join(part.short for part in told.buys[:2]).rstrip(",") or "no time or bytes"
    costs = told.costs[0].short.rstrip(",") if told.costs else "nothing that shows here"
    first = one.views[0]
    where = first.label if first.on_gpu else f"{first.label}, a CPU, which says nothing about a GPU"
    text = f" buys {buys}; it costs {costs}. On {where}: {told.doubt or 'no paired ratio'}; {told.outcome}."
    return tag("li", name, text)


def card(one: Answer, linked: bool) -> Html:
    """Everything told of an idea."""
    told = one.told
    rows = (
        ("Buys", [part.full for part in told.buys], "No gain in time or bytes shows in these runs."),
        ("Costs", [part.full for part in told.costs], "No cost shows in these runs."),
        ("How sure", told.sure, "No ratio has an interval."),
    )
    listing = [[tag("dt", word), tag("dd", sentences(parts) or otherwise)] for word, parts, otherwise in rows]
    return tag(
        "article",
        tag("h3", f"{one.idea.name} ", tag("small", f"in place of {one.idea.replaces}")),
        tag("dl", listing),
        tag("p", " ".join(told.missing), class_="quiet") if told.missing else None,
        origin(one, linked),
        class_="card",
    )


def sentences(parts: Sequence[str]) -> str:
    """Clauses as sentences, each beginning with a capital."""
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def origin(one: Answer, linked: bool) -> Html:
    """The machine, and the runs that this was worked out from."""
    first, names = one.views[0], list[Child]()
    for view in one.views:
        word = f"{view.date}, {view.commit}"
        address = link(f"{view.folder}/{one.idea.study}.html")
        names += ["; " if names else "", tag("a", word, href=address) if linked else word]
    caution = "" if first.on_gpu else " A CPU's times say nothing about a GPU."
    return tag(
        "p", join(badge("GPU" if first.on_gpu else "CPU"), f" {first.label}: ", names, f".{caution}"), class_="note"
    )
