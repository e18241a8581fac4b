"""Builds the site: every page of every run, the shared script, style and plotly.js once."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.record import Run, read_runs, slug

from . import claims, contest, environment, kernels, method, overview, profile, roofline, study, summary
from .beside import beside
from .folder import finish, start
from .markup import Html
from .packing import preset
from .page import PAGES_OF_RUN, PRESET, SITE, Place, folded, frame, shell
from .palette import Palette
from .view import View, folder_names, page_of

LOOKED_AT = 20


@dataclass(frozen=True)
class Found:
    """Runs that can be shown, how each came in, and a sentence for each that cannot."""

    runs: list[Run]
    origins: list[str]
    problems: list[str]


def find(runs: Path, recorded: Path, named: Sequence[Path] = ()) -> Found:
    """Named runs, the newest below `runs` (of each operation, if one run does not have all), every run below
    `recorded`."""
    problems: list[str] = []
    chosen: list[tuple[Run, str]] = []
    for folders, origin in ((named, "named"), (below(recorded), "recorded")):
        read, troubles = read_runs(folders)
        problems += troubles
        chosen += [(run, origin) for run in read]
    read, troubles = latest(newest(runs)[:LOOKED_AT])
    problems += troubles
    chosen += [(run, "newest") for run in read]
    unique: dict[tuple[str, str], tuple[Run, str]] = {}
    for run, origin in chosen:
        unique.setdefault((run.header.run, run.header.started), (run, origin))
    kept = sorted(unique.values(), key=lambda item: item[0].header.started, reverse=True)
    kept.sort(key=lambda item: ("newest", "named", "recorded").index(item[1]))
    for run, _ in kept:
        problems += [f"{run.header.run}: {problem}" for problem in run.problems]
    return Found([run for run, _ in kept], [origin for _, origin in kept], problems)


def latest(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The first of these runs that can be read, and each later one that has an operation none before it has.

    What `make bench` measures and what the longer commands measure come in runs of their own; a page of the newest run
    alone would forget the others. The short form of a long command's operation, a trial of `make bench`, does not
    stand for the long one, nor that for it.
    """
    chosen: list[Run] = []
    problems: list[str] = []
    seen: set[tuple[bool, str]] = set()
    for folder in folders:
        read, troubles = read_runs([folder])
        problems += troubles
        for run in read:
            long = isinstance(run.header.options.get("command"), str)
            operations = {(long, record.operation) for record in run.records}
            if not chosen or operations - seen:
                chosen.append(run)
            seen |= operations
    return chosen, problems


def below(folder: Path) -> list[Path]:
    """Folders of `folder` that hold a run, at any depth, by name."""
    return sorted(path.parent for path in folder.rglob("run.jsonl")) if folder.is_dir() else []


def newest(folder: Path) -> list[Path]:
    """Folders of `folder` that hold a run, the latest written first."""
    return sorted(below(folder), key=lambda path: ((path / "run.jsonl").stat().st_mtime, path.name), reverse=True)


def build(found: Found, out: Path, root: Path) -> list[Path]:
    """Write the site into `out`, replacing an earlier one; returns its pages.

    A run whose pages cannot be made is left out, and `found.problems` says so. Raises ValueError when `out` holds
    something else, or when no run is left.
    """
    partial = start(out)
    palette = Palette(record for run in found.runs for record in run.records)
    listing = kernels.beside(out)
    views = [
        View(run, folder, origin, palette, root, listing)
        for run, origin, folder in zip(found.runs, found.origins, folder_names(found.runs), strict=True)
    ]
    made = [(view, content) for view in views if (content := attempt(view, found.problems))]
    if not made:
        shutil.rmtree(partial)
        raise ValueError("no run could be shown")
    shown = [view for view, _ in made]
    judged = claims.judge(claims.LEDGER, shown)
    line = claims.line(judged, "claims.html")
    others = beside(out)
    site = [*SITE, *(other.entry for other in others)]
    everything: list[tuple[Place, str, Html]] = [
        (Place(), "Overview", overview.page(shown, line)),
        (Place(page="claims.html"), "Claims", claims.page(judged)),
    ]
    for other in others:
        other.copy(partial)
        everything += [(Place(page=f"{other.name}/{name}"), *found) for name, found in other.pages.items()]
    everything += [
        (Place(view, name), *found) for view, content in made for name, found in content.items() if not of_case(name)
    ]
    known = {view.folder: names(view) for view in shown}
    written = [
        write(partial, place, shell(place, shown, title, body, lambda view: known[view.folder], site))
        for place, title, body in everything
    ]
    for view, content in made:
        cases = {
            name: (title, frame(Place(view, name), shown, body, lambda view: known[view.folder], site))
            for name, (title, body) in content.items()
            if of_case(name)
        }
        written += write_cases(partial, view, cases)
        profile.copy(view, partial)
    (partial / summary.NAME).write_text(summary.page(shown, judged), encoding="utf-8")
    finish(partial, out)
    return [out / path for path in (*written, Path(summary.NAME))]


def attempt(view: View, problems: list[str]) -> dict[str, tuple[str, Html]]:
    """The pages of a run, or none and a sentence: what one run holds must not cost the others their pages."""
    try:
        return pages(view)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        problems.append(f"{view.run.header.run}: its pages could not be made: {words}")
        return {}


def pages(view: View) -> dict[str, tuple[str, Html]]:
    """Title and content of each page of a run, by its path in the run's folder."""
    found = {f"{slug(name)}.html": (name.capitalize(), study.page(view, name)) for name in view.studies()}
    found["roofline.html"] = ("Roofline", roofline.page(view))
    found["method.html"] = ("Method", method.page(view))
    found["environment.html"] = ("Environment", environment.page(view))
    for case in view.cases:
        found[page_of(case.id)] = (case.id, contest.page(view, case))
    return found


def names(view: View) -> set[str]:
    """The pages a run has."""
    own = {*(f"{slug(s)}.html" for s in view.studies()), *(f"{name}.html" for name in PAGES_OF_RUN)}
    return own | {page_of(c.id) for c in view.cases}


def of_case(name: str) -> bool:
    """Whether a run's page is one of the many of its cases, which are kept folded."""
    return name.startswith("case/")


def write_cases(folder: Path, view: View, bodies: Mapping[str, tuple[str, Html]]) -> list[Path]:
    """The pages of a run's cases, title and body by name, and what they have in common."""
    if not bodies:
        return []
    common = preset([body for _, body in bodies.values()])
    write(folder, Place(view, PRESET), common.script())
    return [
        write(folder, place, folded(place, title, body, common))
        for name, (title, body) in bodies.items()
        for place in [Place(view, name)]
    ]


def write(folder: Path, place: Place, text: str) -> Path:
    """One page; returns its path in the site."""
    target = folder / place.path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return Path(place.path)
