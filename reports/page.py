"""The frame around every page: where you are, which run you look at, and what to hold against its numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plotly.offline import get_plotlyjs_version

from harness.record import Record
from harness.units import DASH

from . import facts
from .markup import Child, Html, join, tag
from .packing import Preset
from .view import CPU_SENTENCE, View, link

PLOTLY = f"plotly-{get_plotlyjs_version()}.js"
BADGES = {
    "suspect": "bad",
    "host-bound": "warn",
    "unpaired": "warn",
    "stopped early": "warn",
    "throttled": "warn",
    "low clock": "warn",
    "few rounds": "warn",
    "changed since": "warn",
    "dirty tree": "warn",
    "CPU": "cpu",
    "GPU": "gpu",
}
SITE = (("Claims", "claims.html"),)  # pages of the whole site beside the overview
PAGES_OF_RUN = ("roofline", "method", "environment")  # beside one a study
PRESET = "case/preset.js"
SIGNS = {"passed": "✓", "unavailable": DASH, "incorrect": "✗"}


@dataclass(frozen=True)
class Place:
    """A page's address in the site: the run's folder and the page in it, or the overview."""

    view: View | None = None
    page: str = "index.html"

    @property
    def path(self) -> str:
        """The file, relative to the site."""
        return f"{self.view.folder}/{self.page}" if self.view else self.page

    def to(self, path: str) -> str:
        """The relative address of another file of the site."""
        return link(path, self.path.count("/"))

    def within(self, page: str) -> str:
        """The relative address of another page of the same run."""
        return self.to(f"{self.view.folder}/{page}") if self.view else self.to(page)


def badge(word: str, why: str | None = None) -> Html:
    """A caution or label in a pill; `why` is its tooltip and is also told where badges are explained."""
    return tag("span", word, class_=f"badge {BADGES.get(word, '')}".strip(), title=why)


def badges(view: View, record: Record) -> Html:
    """All cautions of a record."""
    found = [badge(word, why) for word, why in facts.cautions(record)]
    drift = view.drifted(record)
    if drift and "changed" in drift:
        found.append(badge("changed since", drift))
    return join(*([" ", pill] for pill in found))


def strip(records: Sequence[Record]) -> Html:
    """How many records have which status: `✓ 41 passed · ✗ 1 incorrect · – 5 unavailable`."""
    items = [
        tag("span", tag("b", SIGNS.get(s, "✗")), f" {n} {facts.status_words(s)}", class_=f"status {s}")
        for s, n in facts.counts(records)
    ]
    return tag("span", items or "no records", class_="strip")


def banner(view: View) -> Html:
    """The run in one line, and what to hold against it."""
    run, kind = view.run, "GPU" if view.on_gpu else "CPU"
    notes: list[Child] = []
    if not view.on_gpu:
        notes.append(CPU_SENTENCE)
    if view.dirty:
        notes.append("The checkout had uncommitted changes: the commit alone does not reproduce this run.")
    if run.problems:
        notes.append(f"Parts of this run could not be read: {'; '.join(run.problems[:3])}.")
    line = [
        badge(kind),
        tag("strong", view.label),
        tag("span", view.date),
        tag("code", view.commit),
        badge("dirty tree") if view.dirty else None,
        strip(run.records),
    ]
    return tag("div", tag("p", line, class_="run"), [tag("p", n, class_="caution") for n in notes], class_="banner")


def shell(
    place: Place,
    views: Sequence[View],
    title: str,
    content: Child,
    pages: Callable[[View], set[str]],
    site: Sequence[tuple[str, str]] = SITE,
) -> str:
    """The whole document; `pages` names the pages of a run, so that switching runs stays on the same question.

    `site` holds words and addresses of the pages that belong to no single run.
    """
    body = frame(place, views, content, pages, site)
    return document(place, title, body, [PLOTLY, "export.js"] if 'class="plot"' in body else [])


def document(place: Place, title: str, body: Html, scripts: Sequence[str] = ()) -> str:
    """Head and body; `scripts` are files of the site's static folder that run once the page is there."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · whalebench"),
        tag("link", rel="stylesheet", href=place.to("static/style.css")),
        tag("script", src=place.to("static/app.js")),
        [tag("script", src=place.to(f"static/{name}"), defer=True) for name in scripts],
    ]
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def frame(
    place: Place,
    views: Sequence[View],
    content: Child,
    pages: Callable[[View], set[str]],
    site: Sequence[tuple[str, str]] = SITE,
) -> Html:
    """A page's body: header, banner, content and footer."""
    skip = tag("a", "Skip to content", href="#main", class_="skip")
    main = tag("main", banner(place.view) if place.view else None, content, id="main")
    foot = tag(
        "footer",
        "Latencies are medians with 95 % intervals; ratios come from rounds measured in turn. "
        "A result that failed verification has no numbers. ",
        tag("a", "How to read this", href=place.within("environment.html") + "#words") if place.view else None,
    )
    return join(skip, header(place, views, pages, site), main, foot)


def folded(place: Place, title: str, body: Html, preset: Preset) -> str:
    """A document whose body the browser unfolds; title and answer stay readable without that."""
    told = re.search(r'<p class="answer">.*?</p>', body, re.S)
    without = (
        "The rest of this page is compressed and needs JavaScript and a browser of 2023 or later. Pages of studies "
        "need neither."
    )
    main = tag("main", tag("h1", title, class_="id"), Html(told[0] if told else ""), tag("p", without, class_="folded"))
    shared = tag("script", src=place.within(PRESET))
    lead = join(main, shared, tag("script", preset.pack(body)))
    return document(place, title, lead, [PLOTLY, "export.js"] if 'class="plot"' in body else [])


def header(
    place: Place, views: Sequence[View], pages: Callable[[View], set[str]], site: Sequence[tuple[str, str]]
) -> Html:
    """Name, pages of the run, run switcher, theme."""
    view = place.view
    items: list[Html] = []
    if view:
        names = [(name, f"{name}.html") for name in (*view.studies(), *PAGES_OF_RUN)]
        for name, page in names:
            current = "page" if page == place.page else None
            items.append(tag("a", name.capitalize(), href=place.within(page), aria_current=current))
    options = []
    for other in views:
        page = (
            place.page if view and place.page in pages(other) else next(iter(other.studies()), "environment") + ".html"
        )
        label = f"{'GPU' if other.on_gpu else 'CPU'} · {other.label} · {other.date}"
        options.append(tag("option", label, value=place.to(f"{other.folder}/{page}"), selected=other is view))
    if not view:
        options.insert(0, tag("option", "Choose a run", value="", selected=True))
    listed = tag("select", options, class_="runs", autocomplete="off")
    switch = tag("label", tag("span", "Run", class_="sr"), listed) if views else None
    theme = tag("button", "◐", type="button", class_="theme", aria_label="Switch between light and dark")
    home = tag("a", "whalebench", href=place.to("index.html"), class_="brand")
    entries = [tag("a", name, href=place.to(page), aria_current="page" if page == place.path else None)
               for name, page in site]  # fmt: skip
    pages_of_site = tag("nav", entries, aria_label="All runs", class_="site") if views else None
    pages_of_run = tag("nav", items, aria_label="This run" if view else None)
    return tag("header", tag("div", home, pages_of_site, pages_of_run, switch, theme, class_="bar"))
