"""Tables that scroll in their own box, sort by what a value is worth, and read well without a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .markup import Child, Html, tag


@dataclass(frozen=True)
class Cell:
    """What a cell shows; `share` draws a bar behind it, 1 is the full width; `note` is its tooltip."""

    content: Child
    number: bool = False
    share: float | None = None
    note: str | None = None
    class_: str | None = None

    def html(self) -> Html:
        """The cell as `td`."""
        style = None if self.share is None else f"--bar:{min(max(self.share, 0.0), 1.0):.0%}"
        words = " ".join(filter(None, ("n" if self.number else "", "share" if style else "", self.class_)))
        return tag("td", self.content, class_=words or None, style=style, title=self.note)


def number(content: Child, share: float | None = None, note: str | None = None) -> Cell:
    """A right-aligned cell with figures of equal width."""
    return Cell(content, number=True, share=share, note=note)


def row(cells: Iterable[Cell | Child], class_: str | None = None, **attributes: str) -> Html:
    """A row; what is not a `Cell` becomes a plain one. Further attributes are what a filter goes by: `data_verdict`."""
    return tag("tr", [(c if isinstance(c, Cell) else Cell(c)).html() for c in cells], class_=class_, **attributes)


def table(columns: Sequence[str], bodies: Iterable[Child], class_: str | None = None, label: str = "Table") -> Html:
    """Header and body rows; a column that begins with `>` is right-aligned."""
    heads = [tag("th", c.removeprefix(">"), scope="col", class_="n" if c.startswith(">") else None) for c in columns]
    body = tag("table", tag("thead", tag("tr", heads)), tag("tbody", bodies), class_=class_)
    return tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=label)


def named(found: Html, title: str) -> Html:
    """The same for a reader who hears it, under the name of a heading; where it has a name of its own that stays."""
    return Html(found.replace('aria-label="Table"', f'aria-labelledby="{title}"', 1))


def pairs(items: Iterable[tuple[str, Child]]) -> Html:
    """Names and values, as a definition list."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in items], class_="pairs")
