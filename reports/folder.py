"""A site's folder: written beside its place and put there as a whole, so that nobody sees half of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from plotly.offline import get_plotlyjs

from .markup import Html
from .packing import packed
from .page import PLOTLY, Place, shell

STATIC = Path(__file__).parent / "static"
MARKER = ".whalebench-site"


def start(out: Path) -> Path:
    """A folder beside `out` with style, script and plotly.js. Raises ValueError when `out` holds something else."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).exists())):
        raise ValueError(f"{out} is not empty and not a site of this program; choose another folder with --out")
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(STATIC, partial / "static")
    (partial / MARKER).write_text("Built by `python -m reports`; replaced as a whole by the next build.\n")
    (partial / "static" / PLOTLY).write_text(packed("plotly", get_plotlyjs()), encoding="ascii")
    return partial


def finish(partial: Path, out: Path) -> None:
    """Put what was begun with `start` in the place of an earlier site."""
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def publish(out: Path, pages: Mapping[str, tuple[str, Html]], files: Mapping[str, str] | None = None) -> list[Path]:
    """A site of pages that belong to no single run, title and content by file name; returns their paths.

    `files` are further texts. Raises ValueError when `out` holds something else, OSError when it cannot be written.
    """
    partial = start(out)
    for name, (title, content) in pages.items():
        text = shell(Place(page=name), [], title, content, lambda view: set())
        (partial / name).write_text(text, encoding="utf-8")
    for name, text in (files or {}).items():
        (partial / name).write_text(text, encoding="utf-8")
    finish(partial, out)
    return [out / name for name in pages]
