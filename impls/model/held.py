"""A dataclass of weights as a module: its tensors are the parameters, and layers get the dataclass back.

So the suite's forward functions, which take dataclasses, run on what an optimizer updates, and no layer is written
twice. Parameters are FP32; the dataclass is handed out in the dtype a layer computes in, and gradients come back
through that cast. A tensor named in `FIXED` is a buffer: saved, never trained, always FP32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

FIXED = ("bias_E",)
GATING = ("matrix_ED",)


class Held(nn.Module):
    """The tensors of one dataclass, those of dataclasses inside it included; anything else in it is kept as it is."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self._template = weights
        for field in dataclasses.fields(weights):
            value = getattr(weights, field.name)
            if isinstance(value, Tensor) and field.name in FIXED:
                self.register_buffer(field.name, value.detach().float().clone())
            elif isinstance(value, Tensor):
                self.register_parameter(field.name, nn.Parameter(value.detach().float().clone()))
            elif _has_tensors(value):
                self.add_module(field.name, Held(value))

    def weights(self, dtype: torch.dtype, masters: bool = False) -> Any:
        """The dataclass with the present values, in `dtype` but for the fixed ones; with `masters` also but for the
        matrices of linear layers, which FP8 is quantized from: they are handed out in FP32."""
        found: dict[str, Any] = {}
        for name, value in (*self._parameters.items(), *self._buffers.items()):
            master = masters and value is not None and value.ndim > 1 and name not in GATING
            found[name] = value if name in FIXED or value is None or master else value.to(dtype)
        for name, module in self._modules.items():
            found[name] = module.weights(dtype, masters)
        return dataclasses.replace(self._template, **found)


def _has_tensors(value: Any) -> bool:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    return any(isinstance(v := getattr(value, f.name), Tensor) or _has_tensors(v) for f in dataclasses.fields(value))
