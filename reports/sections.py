"""Parts of a study's page: a titled section, and the sentence that stands where there is no figure."""

from __future__ import annotations

from .figure import Plot
from .markup import Child, Html, tag


def part(name: str, title: str, *content: Child) -> Html:
    """A titled section with an anchor."""
    return tag("section", tag("h2", title), content, id=name)


def missing(*sentence: Child) -> Html:
    """Why there is no figure."""
    return tag("p", sentence, class_="quiet")


def absent(sentence: str, command: str) -> Html:
    """Why there is no figure, and the command that makes one."""
    return tag("p", sentence, " Measured by: ", tag("code", command), ".", class_="quiet runnable")


def figure(plot: Plot | None, sentence: str, command: str) -> Html:
    """A figure, or why there is none."""
    return plot.html() if plot else absent(sentence, command)
