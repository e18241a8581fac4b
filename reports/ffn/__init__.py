"""The ffn study's own figures: dense against mixture, loads, skew, inner operations, training and ranks."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
