"""Pages as they were, read as a person reads them: titles, sentences and tables, without markup.

After a wanted change run `UPDATE_GOLDEN=1 python -m pytest tests/reports` and read the difference before keeping it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.record import slug
from tests.reports.conftest import Built
from tests.reports.reading import Reader, assert_as_kept, read_page

GPU = "2026-03-01T10-00-00-gpu"
PAGES = {
    "overview": "index.html",
    "attention": f"{GPU}/attention.html",
    "environment": f"{GPU}/environment.html",
    "case": f"{GPU}/case/{slug('attention.decode/v3/b16-s4096')}.html",
    "cpu": "2026-03-02T09-00-00-cpu/attention.html",
    "toy": "toy-run/toy.html",
}


@pytest.mark.parametrize("name", PAGES)
def test_pages_read_as_they_did(built: Built, name: str) -> None:
    assert_as_kept(name, Reader(built.pages[PAGES[name]]).lines)


def test_two_builds_of_the_same_runs_are_the_same_files(built: Built, tmp_path: Path) -> None:
    from reports import website

    again = website.build(built.found, tmp_path / "again", built.folder.parent)
    assert {p.relative_to(tmp_path / "again").as_posix(): read_page(p) for p in again} == built.pages
