"""The first page: which runs are here, what each found in a sentence, and what ran, failed or could not run."""

from __future__ import annotations

from collections.abc import Sequence

from harness.units import DASH

from . import facts, ideas
from .markup import Child, Html, join, tag
from .page import badge, strip
from .study import answer, ranked
from .view import View, link, page_of

SIGN = {"passed": "✓", "unavailable": DASH}
ROWS = 60


def page(views: Sequence[View], claims: Html) -> Html:
    """The content of the overview; `claims` is what the ledger says, in a few lines."""
    return join(
        tag("p", "Overview", class_="kicker"),
        tag("h1", "What do DeepSeek's ideas buy, measured on these machines?"),
        tag("p", lead(views), class_="answer"),
        ideas.section(views),
        tag("h2", "Runs"),
        tag("div", [card(view) for view in views], class_="cards"),
        claims,
        tag(
            "section",
            tag("h2", "Coverage"),
            tag("p", COVERAGE),
            [coverage(view, i == 0) for i, view in enumerate(views)],
            id="coverage",
        ),
        tag("section", tag("h2", "What this does not show"), tag("p", LIMITS)),
        tag("p", "All answers in one file, to send or to keep: ", tag("a", "summary.html", href="summary.html"), "."),
    )


COVERAGE = (
    "✓ verified and timed, ✗ failed, "
    + DASH
    + " could not run here. Letters point to reasons below each table; a case's name "
    "leads to its page."
)
LIMITS = (
    "Runs of different machines stand beside each other and are never drawn in one plot; a CPU's figures say nothing "
    "about a GPU's. Recorded runs were taken earlier and elsewhere, at the commit each one names."
)
ORIGINS = {"newest": "newest run", "recorded": "recorded run", "named": "run you named"}


def lead(views: Sequence[View]) -> str:
    """What is here, in a sentence."""
    records = [r for view in views for r in view.run.records]
    cases = sum(len(view.cases) for view in views)
    failed = sum(n for status, n in facts.counts(records) if status not in ("passed", "unavailable"))
    runs = "one run" if len(views) == 1 else f"{len(views)} runs"
    passed, verified = sum(record.status == "passed" for record in records), sum(map(facts.verified, records))
    text = f"{runs.capitalize()} with {cases} cases: {verified} results verified and timed"
    if passed > verified:
        text += f", {passed - verified} without a reference to compare with"
    return f"{text}, {failed} failed." if failed else f"{text}, none failed."


def card(view: View) -> Html:
    """A run: machine, date, commit, counts and what its studies found."""
    findings: list[Child] = []
    for study in view.studies():
        address = link(f"{view.folder}/{study}.html")
        findings.append(
            tag(
                "div",
                tag("h3", tag("a", study.capitalize(), href=address)),
                tag("p", answer(view, study)),
                class_="finding",
            )
        )
    facts_line = [
        tag("span", view.date),
        tag("code", view.commit),
        badge("dirty tree") if view.dirty else None,
        tag("span", ORIGINS[view.origin]),
    ]
    return tag(
        "article",
        tag("p", badge("GPU" if view.on_gpu else "CPU"), " ", tag("strong", view.label)),
        tag("p", facts_line, class_="run"),
        findings or tag("p", "This run has no records.", class_="quiet"),
        tag("p", f"{view.run.problems[0]} ({len(view.run.problems)} in all)", class_="caution")
        if view.run.problems
        else None,
        tag("p", strip(view.run.records), " ", tag("a", "environment", href=link(f"{view.folder}/environment.html"))),
        class_="card",
    )


def coverage(view: View, opened: bool) -> Html:
    """A table an operation: cases down, contenders across."""
    operations = list(dict.fromkeys(case.first.operation for case in view.cases))
    parts = [matrix(view, operation) for operation in operations]
    name = f"{view.label}, {view.date}"
    return tag(
        "details",
        tag("summary", badge("GPU" if view.on_gpu else "CPU"), " ", name),
        parts or "No records.",
        class_="coverage",
        open=opened,
    )


def matrix(view: View, operation: str) -> Html:
    """Implementations by cases of one operation, with reasons as lettered notes."""
    cases = [case for case in view.cases if case.first.operation == operation]
    columns = list(dict.fromkeys(r.contender for case in cases for r in ranked(case)))
    columns.sort(key=lambda name: name.split("/")[0])
    reasons: dict[str, str] = {}
    rows = [matrix_row(view, case, columns, reasons) for case in cases[:ROWS]]
    head = [tag("th", "Case", scope="col"), *(tag("th", tag("span", c), scope="col") for c in columns)]
    body = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="matrix")
    label = f"Coverage of {operation}, {view.folder}"
    notes = [tag("li", tag("b", mark), " ", reason) for reason, mark in reasons.items()]
    return tag(
        "section",
        tag("h3", operation),
        tag(
            "div",
            body,
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=label,
        ),
        tag("ul", notes, class_="reasons") if notes else None,
        tag("p", f"{len(cases) - ROWS} more cases stand on the study's page.", class_="note")
        if len(cases) > ROWS
        else None,
    )


def matrix_row(view: View, case: facts.Case, columns: Sequence[str], reasons: dict[str, str]) -> Html:
    """One case: a sign and, unless it passed, the letter of its reason."""
    found = {record.contender: record for record in case.records}
    cells = []
    for name in columns:
        record = found.get(name)
        if record is None:
            cells.append(tag("td", ""))
        elif record.status == "passed":
            cells.append(tag("td", SIGN["passed"], class_="p"))
        else:
            reason = f"{facts.status_words(record.status)}: {record.reason}"
            mark = reasons.setdefault(reason, letter(len(reasons)))
            kind = "u" if record.status == "unavailable" else "f"
            cells.append(tag("td", SIGN.get(record.status, "✗"), tag("sup", mark), class_=kind, title=reason))
    address = link(f"{view.folder}/{page_of(case.id)}")
    return tag("tr", tag("th", tag("a", f"{case.first.model}/{case.first.sizes}", href=address), scope="row"), cells)


def letter(index: int) -> str:
    """The marks a, b, … z, aa, ab and so on."""
    return (letter(index // 26 - 1) if index >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[index % 26]
