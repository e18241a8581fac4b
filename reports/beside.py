"""Pages that other commands put beside the site, taken into it where they exist: history, a comparison, kernels.

`make history`, `make compare` and `make kernels` write folders of their own. What is taken over is the content of their
pages and their data; frame, navigation, style and script are the site's, so that a copy of its folder is whole.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .folder import MARKER
from .markup import Html

TITLES = {"history": "History", "compare": "Compare", "kernels": "Kernels"}
DATA = (".json", ".txt")
PAGE = re.compile(r'<title>(?P<title>.*?) · whalebench</title>.*?<main id="main">(?P<content>.*)</main>', re.S)


@dataclass(frozen=True)
class Beside:
    """A folder `name` of the site: title and content of its pages by file name, and its other files."""

    name: str
    pages: Mapping[str, tuple[str, Html]]
    files: tuple[Path, ...]

    @property
    def entry(self) -> tuple[str, str]:
        """Its word and address in the navigation."""
        return TITLES[self.name], f"{self.name}/index.html"

    def copy(self, site: Path) -> None:
        """Put its other files into the site."""
        (site / self.name).mkdir()
        for path in self.files:
            shutil.copyfile(path, site / self.name / path.name)


def beside(out: Path) -> list[Beside]:
    """What stands beside the site `out`: `<out>-history` and so on, if this program wrote them."""
    return [found for name in TITLES if (found := read(name, out.with_name(f"{out.name}-{name}"))) is not None]


def read(name: str, folder: Path) -> Beside | None:
    """The pages of a folder; None where it is not one of ours or has no first page."""
    if not (folder / MARKER).is_file():
        return None
    pages: dict[str, tuple[str, Html]] = {}
    for path in sorted(folder.glob("*.html")):
        found = PAGE.search(path.read_text(encoding="utf-8"))
        if found:
            pages[path.name] = (html.unescape(found["title"]), Html(found["content"]))
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in DATA]
    return Beside(name, pages, tuple(files)) if "index.html" in pages else None
