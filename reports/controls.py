"""What narrows a table down: a field for words, and groups of buttons of which one may be pressed.

The script hides rows (and, on the roofline, points) that do not fit and says how many; without it everything stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from .markup import Child, Html, tag


def facet(name: str, label: str, choices: Sequence[tuple[str, Child]]) -> Html:
    """Buttons of which one may be pressed; `choices` are the values that rows carry as `data-<name>`, with words."""
    buttons = [
        tag("button", words, type="button", value=value, aria_pressed="false", class_="verdict")
        for value, words in choices
    ]
    return tag("div", buttons, class_="facet chips", data_name=name, role="group", aria_label=label)


def tools(placeholder: str, *facets: Child, what: str = "rows") -> Html:
    """A line with the field for words, the groups, and where the number of hidden rows is told."""
    words = tag("input", type="search", class_="filter", placeholder=placeholder, aria_label="Filter rows")
    return tag(
        "div",
        words,
        facets,
        tag("span", class_="filtered", aria_live="polite", data_what=what),
        class_="tools",
    )
