"""Pages as their readers have them: unfolded, as lines of text, and as they were kept."""

from __future__ import annotations

import base64
import os
import re
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
LINES = {"p", "h1", "h2", "h3", "h4", "li", "tr", "figcaption", "summary", "div", "option", "title", "a", "button"}
PACKED = re.compile(r'whalebench\.packed\.(\w+)=\{data:"([^"]*)"(?:, skip: (\d+))?\};')


def read_page(path: Path) -> str:
    """A page as its reader sees it: one of a case is unfolded, with what its run's pages have in common."""
    text = path.read_text(encoding="utf-8")
    found = PACKED.search(text)
    if found is None:
        return text
    shared = PACKED.fullmatch((path.parent / "preset.js").read_text(encoding="ascii"))
    assert shared is not None and found[1] == "page"
    stream = base64.b64decode(shared[2]) + base64.b64decode(found[2])
    markup, *islands = zlib.decompress(stream, -15)[int(shared[3]) :].decode().split("\0")
    kept = iter(islands)
    body = re.sub(r'(?<=<script type="application/json">)', lambda _: next(kept), markup)
    return re.sub(r"<body>.*</body>", lambda _: f"<body>{body}</body>", text, flags=re.S)


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


def assert_as_kept(name: str, found: Sequence[str]) -> None:
    """Lines are those of the golden file.

    After a wanted change run `UPDATE_GOLDEN=1 python -m pytest tests/reports`, and read the difference.
    """
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
    assert list(found) == path.read_text(encoding="utf-8").splitlines()


def story(page: str, question: str) -> list[str]:
    """The lines of a study's page, without frame and table of contenders."""
    lines = Reader(page).lines
    start, table, end = (lines.index(t) for t in (question, "Every case, every contender", "What this does not show"))
    return [*lines[start:table], *lines[end:-1]]
