"""Pages as they were, read as a person reads them: titles, sentences and tables, without markup.

After a wanted change run `UPDATE_GOLDEN=1 python -m pytest tests/reports` and read the difference before keeping it.
"""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.record import slug
from tests.reports.conftest import Built

GOLDEN = Path(__file__).parent / "golden"
GPU = "2026-03-01T10-00-00-gpu"
PAGES = {
    "overview": "index.html",
    "attention": f"{GPU}/attention.html",
    "environment": f"{GPU}/environment.html",
    "case": f"{GPU}/case/{slug('attention.decode/v3/b16-s4096')}.html",
    "cpu": "2026-03-02T09-00-00-cpu/attention.html",
    "toy": "toy-run/toy.html",
}
LINES = {"p", "h1", "h2", "h3", "h4", "li", "tr", "figcaption", "summary", "div", "option", "title", "a", "button"}


class Reader(HTMLParser):
    """The text of a page: a line a block, cells parted by bars; figures' specifications left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag == "script"
        if tag in ("td", "th"):
            self.parts.append("| ")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag in LINES:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)

    @property
    def lines(self) -> list[str]:
        """Lines that say something."""
        found = [re.sub(r"\s+", " ", line).strip() for line in "".join(self.parts).splitlines()]
        return [line for line in found if line.strip("| ")]


@pytest.mark.parametrize("name", PAGES)
def test_pages_read_as_they_did(built: Built, name: str) -> None:
    found = Reader(built.pages[PAGES[name]]).lines
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
    assert found == path.read_text(encoding="utf-8").splitlines()


def test_two_builds_of_the_same_runs_are_the_same_files(built: Built, tmp_path: Path) -> None:
    from reports import website

    again = website.build(built.found, tmp_path / "again", built.folder.parent)
    assert {p.relative_to(tmp_path / "again").as_posix(): p.read_text(encoding="utf-8") for p in again} == built.pages
