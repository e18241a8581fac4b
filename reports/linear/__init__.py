"""The linear study's own figures: speed by product, the price of quantizing, errors, bytes, and what a loss does."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
