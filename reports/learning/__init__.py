"""The learning study's own figures: who holds the memory, where a step's time goes, and what a policy learns."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
