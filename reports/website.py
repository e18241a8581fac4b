"""Builds the site: every page of every run, the shared script, style and plotly.js once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plotly.offline import get_plotlyjs

from harness.record import Run, read_runs, slug

from . import contest, environment, overview, study
from .markup import Html
from .page import PLOTLY, Place, shell
from .palette import Palette
from .view import View, folder_names, page_of

STATIC = Path(__file__).parent / "static"
MARKER = ".whalebench-site"


@dataclass(frozen=True)
class Found:
    """Runs that can be shown, how each came in, and a sentence for each that cannot."""

    runs: list[Run]
    origins: list[str]
    problems: list[str]


def find(runs: Path, recorded: Path, named: Sequence[Path] = ()) -> Found:
    """Named runs, the newest run below `runs` that can be read, and every run below `recorded`."""
    problems: list[str] = []
    chosen: list[tuple[Run, str]] = []
    for folders, origin, first in (
        (named, "named", False),
        (newest(runs), "newest", True),
        (below(recorded), "recorded", False),
    ):
        for folder in folders:
            read, troubles = read_runs([folder])
            problems += troubles
            chosen += [(run, origin) for run in read]
            if first and read:
                break
    unique: dict[tuple[str, str], tuple[Run, str]] = {}
    for run, origin in chosen:
        unique.setdefault((run.header.run, run.header.started), (run, origin))
    kept = sorted(unique.values(), key=lambda item: item[0].header.started, reverse=True)
    kept.sort(key=lambda item: ("newest", "named", "recorded").index(item[1]))
    for run, _ in kept:
        problems += [f"{run.header.run}: {problem}" for problem in run.problems]
    return Found([run for run, _ in kept], [origin for _, origin in kept], problems)


def below(folder: Path) -> list[Path]:
    """Folders of `folder` that hold a run, at any depth, by name."""
    return sorted(path.parent for path in folder.rglob("run.jsonl")) if folder.is_dir() else []


def newest(folder: Path) -> list[Path]:
    """Folders of `folder` that hold a run, the latest written first."""
    return sorted(below(folder), key=lambda path: ((path / "run.jsonl").stat().st_mtime, path.name), reverse=True)


def build(found: Found, out: Path, root: Path) -> list[Path]:
    """Write the site into `out`, replacing an earlier one; returns its pages.

    Raises ValueError when `out` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise ValueError(f"{out} is not empty and not a site of this program; choose another folder with --out")
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(STATIC, partial / "static")
    (partial / MARKER).write_text("Built by `python -m reports`; replaced as a whole by the next build.\n")
    (partial / "static" / PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")
    palette = Palette(record for run in found.runs for record in run.records)
    views = [
        View(run, folder, origin, palette, root)
        for run, origin, folder in zip(found.runs, found.origins, folder_names(found.runs), strict=True)
    ]
    written = [write(partial, Place(), views, "Overview", overview.page(views))]
    for view in views:
        for page, (title, content) in pages(view).items():
            written.append(write(partial, Place(view, page), views, title, content))
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return [out / path for path in written]


def pages(view: View) -> dict[str, tuple[str, Html]]:
    """Title and content of each page of a run, by its path in the run's folder."""
    found = {f"{slug(name)}.html": (name.capitalize(), study.page(view, name)) for name in view.studies()}
    found["environment.html"] = ("Environment", environment.page(view))
    for case in view.cases:
        found[page_of(case.id)] = (case.id, contest.page(view, case))
    return found


def names(view: View) -> set[str]:
    """The pages a run has."""
    return {*(f"{slug(s)}.html" for s in view.studies()), "environment.html", *(page_of(c.id) for c in view.cases)}


def write(folder: Path, place: Place, views: Sequence[View], title: str, content: Html) -> Path:
    """One page; returns its path in the site."""
    target = folder / place.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(shell(place, views, title, content, names), encoding="utf-8")
    return Path(place.path)
