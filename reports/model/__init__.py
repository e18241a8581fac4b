"""Whole models: what each of four ideas buys alone and together, from all sixteen combinations."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
