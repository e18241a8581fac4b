"""Plots over length: the best of each technique, and every implementation."""

from __future__ import annotations

from .. import lines
from ..figure import Plot
from ..lines import grid
from .sweep import Sweep

__all__ = ["axis_title", "grid", "implementations_plot", "latency_plot"]
AXES = {"attention.decode": "KV length, tokens", "attention.decode_kernel": "KV length, tokens"}


def axis_title(sweep: Sweep) -> str:
    """What length means for the operation."""
    return AXES.get(sweep.operation, "Sequence length, tokens")


def latency_plot(sweep: Sweep, name: str, word: str = "Decode") -> Plot:
    """The fastest implementation of each technique over length, with the technique's floor."""
    scope = "inner kernel" if sweep.operation.endswith("_kernel") else "layer"
    return lines.latency_plot(sweep, name, f"{word} {scope}, {sweep.title}", axis_title(sweep))


def implementations_plot(sweep: Sweep, name: str) -> Plot:
    """Contenders of MLA and MHA first, then the others."""
    return lines.implementations_plot(sweep, name, axis_title(sweep), ("mla", "mha"))
