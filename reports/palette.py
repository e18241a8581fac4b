"""One look for each contender on every page: hue by technique, line by kind, marker by name.

Hues are Okabe and Ito's, told apart with every common colour vision; nothing is said by colour alone. The script maps
each hue to a lighter one on a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.record import Record

HUES = ("#009e73", "#d55e00", "#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#7a7a7a")
INK = "#1d1d1f"
DASHES = {"reference": "dash", "compiled": "dot", "library": "dashdot", "optimized": "solid"}
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon", "triangle-down", "pentagon")


@dataclass(frozen=True)
class Look:
    """How one contender is drawn."""

    colour: str
    dash: str
    marker: str
    opacity: float


class Palette:
    """Looks for all records of a site, given once, so that a contender looks the same in every run."""

    def __init__(self, records: Iterable[Record]) -> None:
        techniques: dict[str, set[str]] = {}
        names: dict[tuple[str, str], set[str]] = {}
        for record in records:
            techniques.setdefault(record.study, set()).add(record.technique)
            names.setdefault((record.study, record.technique), set()).add(record.implementation)
        self._hues = {study: sorted(found) for study, found in techniques.items()}
        self._markers = {key: sorted(found) for key, found in names.items()}

    def hue(self, study: str, technique: str) -> str:
        """The colour of a technique."""
        known = self._hues.get(study, [])
        return HUES[known.index(technique) % len(HUES)] if technique in known else HUES[-1]

    def mark(self, study: str, technique: str) -> str:
        """The style class of a technique's colour."""
        return f"h{HUES.index(self.hue(study, technique))}"

    def look(self, record: Record) -> Look:
        """Reference and compiled are dashed and paler, ours and the libraries' in full colour."""
        known = self._markers.get((record.study, record.technique), [])
        place = known.index(record.implementation) if record.implementation in known else 0
        return Look(
            self.hue(record.study, record.technique),
            DASHES.get(record.kind, "longdash"),
            MARKERS[place % len(MARKERS)],
            0.65 if record.kind in ("reference", "compiled") else 1.0,
        )
