"""The one file with everything in it: complete, small, and dependent on nothing."""

from __future__ import annotations

import html
import re

from reports import study, summary
from reports.palette import Palette
from reports.view import View
from tests.reports.conftest import Built
from tests.reports.reading import Reader, assert_as_kept

BYTES = 600_000


def views(built: Built) -> list[View]:
    """The runs of the site."""
    return [View(run, run.header.run, "named", Palette(run.records), built.folder) for run in built.found.runs]


def test_it_reads_as_it_did(built: Built) -> None:
    assert_as_kept("summary", Reader(re.sub(r"<style>.*?</style>", "", built.pages[summary.NAME], flags=re.S)).lines)


def test_it_needs_nothing_else(built: Built) -> None:
    text = built.pages[summary.NAME]
    assert not re.findall(r"\b(?:href|src|srcset|action)=", text)
    assert "<script" not in text and "<link" not in text and "url(" not in text and "@import" not in text
    assert len(text.encode()) <= BYTES


def test_it_has_the_answer_and_techniques_of_every_study(built: Built) -> None:
    text = built.pages[summary.NAME]
    for view in views(built):
        assert html.escape(view.label) in text and html.escape(view.commit) in text
        for name in view.studies():
            assert html.escape(study.answer(view, name)) in text
            for case in view.of(name):
                assert all(f"<b>{html.escape(record.technique)}</b>" in text for record in case.passed)


def test_it_counts_each_technique_by_its_fastest(built: Built) -> None:
    view = next(view for view in views(built) if view.label == "NVIDIA H200")
    cases = [case for case in view.of("attention") if case.passed]
    rows = [summary.technique_row(view, cases, name) for name in ("mha", "gqa", "mqa", "mla")]
    firsts = [int(re.findall(r'<td class="n">(\d+)</td>', row)[0]) for row in rows]
    assert sum(firsts) == len(cases)


def test_the_overview_leads_to_it(built: Built) -> None:
    assert 'href="summary.html"' in built.pages["index.html"]
