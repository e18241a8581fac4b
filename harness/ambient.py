"""Settings of the process that every contender computes under: threads, precision, gradients, streams.

A contender that changes one changes what all after it measure; this notices and sets it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]
SETTINGS: Mapping[str, Setting] = {
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, torch.set_default_device),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "precision of FP32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "determinism": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
}
ON_GPU: Mapping[str, Setting] = {
    "current stream": (torch.cuda.current_stream, torch.cuda.set_stream),
    "current device": (torch.cuda.current_device, torch.cuda.set_device),
}


class Ambient:
    """The settings when it was made."""

    def __init__(self, device: str) -> None:
        self._settings = {**SETTINGS, **(ON_GPU if device == "cuda" else {})}
        self._values = {name: get() for name, (get, _) in self._settings.items()}

    def changed(self) -> str | None:
        """The first setting that is another now, set back with all others; None when nothing changed."""
        found = None
        for name, (get, set_back) in self._settings.items():
            value = get()
            if value != self._values[name]:
                found = found or f"{name} ({self._values[name]} became {value})"
                set_back(self._values[name])
        return found
