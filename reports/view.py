"""A run as the pages see it: its folder in the site, its cases, its colours, and where its sources would be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.kernels.listing import Listing
from harness.metrics import Metric
from harness.record import Figure, Record, Run, slug
from harness.units import DASH, MISSING, interval, show

from . import facts
from .markup import Html, tag
from .palette import Palette
from .table import Cell, number

CPU_SENTENCE = (
    "Measured on a CPU. Correctness, bytes, FLOPs and memory hold anywhere; the latencies rank these implementations "
    "on this processor only and say nothing about a GPU, whose balance of bandwidth and arithmetic is another and on "
    "which other kernels run."
)


@dataclass(frozen=True)
class View:
    """One run of the site; `origin` says how it came in: newest, recorded or named; `listing` has compiled kernels."""

    run: Run
    folder: str
    origin: str
    palette: Palette
    root: Path
    listing: Listing | None = None

    @cached_property
    def cases(self) -> list[facts.Case]:
        """The run's cases in the order measured."""
        return facts.cases(self.run)

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric of the run by name."""
        return facts.metrics(self.run)

    @property
    def machine(self) -> Mapping[str, Any]:
        """The fingerprint, or nothing."""
        return mapping(self.run.header.machine)

    @property
    def label(self) -> str:
        """The machine in a few words."""
        return str(self.machine.get("label") or f"machine {MISSING}")

    @property
    def commit(self) -> str:
        """The commit measured, with a star when the tree differed from it."""
        git = mapping(self.machine.get("git"))
        commit = git.get("commit")
        return f"commit {MISSING}" if not commit else f"{str(commit)[:10]}{'*' if git.get('dirty') else ''}"

    @property
    def dirty(self) -> bool:
        """Whether the tree differed from the commit."""
        return bool(mapping(self.machine.get("git")).get("dirty"))

    @property
    def date(self) -> str:
        """When the run started, to the minute."""
        return re.sub(r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d).*$", r"\1 \2", self.run.header.started) or MISSING

    @property
    def on_gpu(self) -> bool:
        """Whether contenders ran on a GPU."""
        return self.run.header.device == "cuda"

    @property
    def memory_bytes(self) -> float | None:
        """Memory of one GPU, or of the machine for a run on its CPU."""
        gpus = self.machine.get("gpus")
        first = gpus[0] if self.on_gpu and isinstance(gpus, list) and gpus else self.machine.get("cpu")
        found = mapping(first).get("memory_bytes")
        return float(found) if isinstance(found, (int, float)) else None

    def studies(self) -> list[str]:
        """Studies with at least one record."""
        return facts.studies(self.run)

    def of(self, study: str) -> list[facts.Case]:
        """The cases of a study."""
        return [case for case in self.cases if case.first.study == study]

    def show(self, record: Record, metric: str) -> str:
        """A figure of a record with its unit."""
        return show(record.value(metric), self.unit(metric))

    def unit(self, metric: str) -> str:
        """The declared unit; a figure nobody declared is a plain number."""
        known = self.metrics.get(metric)
        return known.unit if known else "count"

    def ratio(self, record: Record, over: Record) -> Figure | None:
        """Latency of one contender over another's in the same case; several pages of a site ask for the same ones."""
        key = (record.case, record.contender, str(record.timing.get("pairing")), over.case, over.contender)
        if key not in self._ratios:
            self._ratios[key] = facts.ratio(self._round_medians, record, over)
        return self._ratios[key]

    @cached_property
    def _ratios(self) -> dict[tuple[str, ...], Figure | None]:
        return {}

    def _round_medians(self, record: Record) -> dict[int, float]:
        key = (record.case, record.contender)
        if key not in self._medians:
            self._medians[key] = facts.round_medians(self.run, record)
        return self._medians[key]

    @cached_property
    def _medians(self) -> dict[tuple[str, str], dict[int, float]]:
        return {}

    def cell(self, record: Record, metric: str, share: float | None = None) -> Cell:
        """A table cell with a figure and its interval."""
        figure = record.figures.get(metric)
        if figure is None:
            return number(tag("span", DASH, class_="quiet"), note=MISSING)
        return number(with_interval(figure, self.unit(metric)), share=share)

    @cached_property
    def answers(self) -> dict[str, str]:
        """The answer of each study, once it was worked out."""
        return {}

    def _current(self, file: str) -> str | None:
        if file not in self._digests:
            path = (self.root / file).resolve()
            inside = path.is_relative_to(self.root.resolve()) and path.is_file()
            self._digests[file] = hashlib.sha256(path.read_bytes()).hexdigest() if inside else None
        return self._digests[file]

    @cached_property
    def _digests(self) -> dict[str, str | None]:
        return {}  # by file, of the checkout as this view found it

    def drifted(self, record: Record) -> str | None:
        """Why the code at hand is not the code measured, or None when it is."""
        file, digest = record.source.get("file"), record.source.get("digest")
        if not file or not digest:
            return "its source was not recorded"
        current = self._current(str(file))
        if current is None:
            return f"{file} is not in this checkout"
        current = current[: len(digest)]
        return None if current == digest else f"the implementation has changed since: {file} is now {current}"


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, an empty one otherwise: a damaged header costs its facts, never the page."""
    return value if isinstance(value, Mapping) else {}


def plain(value: Any) -> float | None:
    """A number from JSON, or None."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def with_interval(figure: Figure, unit: str) -> Html:
    """Value, then its interval in small figures."""
    bounds = interval(figure, unit)
    return tag("span", show(figure.value, unit), tag("small", bounds) if bounds else None, class_="v")


def page_of(case: str) -> str:
    """A case's page, relative to its run's folder."""
    return f"case/{slug(case)}.html"


def link(path: str, depth: int = 0) -> str:
    """A relative address from a page `depth` folders down; names are escaped for use in an address."""
    return "../" * depth + quote(path)


def folder_names(runs: Sequence[Run]) -> list[str]:
    """A folder for each run, named after it and unique."""
    taken: list[str] = []
    for run in runs:
        name = re.sub(r"[^A-Za-z0-9._+-]", "-", run.header.run).strip(".") or "run"
        while name in (*taken, "static", "history", "compare", "kernels", "index.html", "claims.html", "summary.html"):
            name += "-2"
        taken.append(name)
    return taken
