"""What each idea buys, what it costs and how sure that is, in a few sentences worked out from all runs at hand."""

from .section import section

__all__ = ["section"]
