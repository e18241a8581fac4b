"""The attention study's own figures: cache bytes, latency against length, crossover, capacity, prefill and training."""

from .story import QUESTION, answer, limits, sections

__all__ = ["QUESTION", "answer", "limits", "sections"]
