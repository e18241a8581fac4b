"""The objective study's own figures: what MTP costs in training, what drafting buys in generation, what a loss does."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
