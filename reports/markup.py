"""HTML by functions: text is escaped, markup is not, and nothing is ever pasted together by hand.

Good for pages of a few hundred elements; there is no streaming, a page is one string.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, TypeAlias

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Html(str):
    """Markup that may be inserted as it is; every other string is escaped."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | bool | Iterable[Child] | None"


def join(*children: Child) -> Html:
    """Children one after the other: strings escaped, None and False left out, iterables flattened."""
    parts: list[str] = []
    for child in children:
        if type(child) is Html:
            parts.append(child)
        elif child is None or child is False or child is True:
            continue
        elif isinstance(child, (str, int, float)):
            parts.append(html.escape(str(child)))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def tag(element: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """One element. Attribute names lose a trailing underscore and turn the others into dashes; None leaves one out."""
    words = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        words.append(word if value is True else f'{word}="{html.escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if element in VOID else f"{opening}{join(*children)}</{element}>")


def data(value: Any, **attributes: str) -> Html:
    """A JSON island that a script reads; no `<` can end it early."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return tag("script", Html(text), type="application/json", **attributes)


def paragraphs(text: str) -> Html:
    """Plain text with blank lines between paragraphs, such as a docstring."""
    blocks = [block.strip() for block in text.strip().split("\n\n")]
    return join(*(tag("p", block) for block in blocks if block))
