"""Pages of cases, folded: whole again when unfolded, small among their like, readable in part without a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.markup import Html, data, tag
from reports.packing import WINDOW, parted, preset
from tests.reports.conftest import Built
from tests.reports.reading import read_page


def body(words: str, *specs: object) -> Html:
    """A page's body with figures."""
    return tag("main", words, *(tag("figure", data(spec)) for spec in specs))


def unfolded(folder: Path, bodies: list[str], which: int) -> str:
    """One of these bodies, from files as a site has them."""
    common = preset(bodies)
    (folder / "preset.js").write_text(common.script(), encoding="ascii")
    page = folder / "page.html"
    page.write_text(f"<html><body><script>{common.pack(bodies[which])}</script></body></html>", encoding="utf-8")
    return read_page(page).removeprefix("<html><body>").removesuffix("</body></html>")


@pytest.mark.parametrize("words", ["plain", "Größe 漢字 «»", "<script>whalebench</script>", "x" * 3 * WINDOW])
def test_a_page_is_whole_again(tmp_path: Path, words: str) -> None:
    bodies = [body(f"{words} {i}", {"data": list(range(i, 200))}, {"title": words}) for i in range(5)]
    for i, expected in enumerate(bodies):
        assert unfolded(tmp_path, bodies, i) == expected


def test_a_nul_of_a_record_does_not_shift_the_data_of_figures(tmp_path: Path) -> None:
    text = body("a\0b", {"n": 1}, {"n": "\0"})
    assert unfolded(tmp_path, [text], 0) == text.replace("a\0b", "a\N{REPLACEMENT CHARACTER}b")


def test_what_pages_share_is_paid_for_once() -> None:
    bodies = [body(" ".join(f"word {k * k}" for k in range(500)) + f" of {i}") for i in range(9)]
    common = preset(bodies)
    assert len(common.text) <= WINDOW
    assert max(len(common.pack(text)) for text in bodies) < 200 < 1000 < len(common.script()) < len(bodies[0])


def test_numbers_of_figures_are_not_shared() -> None:
    common = preset([body("words", {"x": list(range(500)), "name": "a"})])
    assert b"499" not in common.text and b'"name":"a"' in common.text


def test_parts_are_taken_in_order() -> None:
    markup, islands = parted(body("w", {"n": 1}, {"n": 2}))
    assert islands == ['{"n":1}', '{"n":2}'] and '{"n"' not in markup


def test_without_a_script_a_page_has_title_and_answer(built: Built) -> None:
    path = next(built.folder.rglob("attention.decode--v3--b16-s4096.html"))
    text = re.sub(r"<script>.*?</script>", "", path.read_text(encoding="utf-8"))
    answer = re.search(r'<p class="answer">.*?</p>', read_page(path))
    assert answer and answer[0] in text and "<h1" in text and "needs JavaScript" in text
