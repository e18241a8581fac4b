"""Checkpoints on disk: written beside the old one and put in its place in one step, so a kill leaves one or the other.

A file of named tensors (`tensors.py`); what else a state holds, numbers, words, lists and dicts, is in its metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from . import tensors

KEY = "state"
SUFFIX = ".safetensors"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`, on disk when this returns. Raises TypeError for what a checkpoint cannot hold."""
    found: dict[str, Tensor] = {}
    told = json.dumps(_described(state, "", found))
    tensors.save(path, found, {KEY: told})


def load(path: Path) -> dict[str, Any]:
    """Read back what `save` wrote, tensors on the CPU. Raises ValueError for a file that is no checkpoint."""
    try:
        found, metadata = tensors.load(path)
        state: dict[str, Any] = _rebuilt(json.loads(metadata[KEY]), found)
    except (ValueError, KeyError, TypeError) as error:
        why = f"it holds no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no checkpoint: {why}; remove it to begin that model again") from error
    return state


def _described(value: Any, path: str, found: dict[str, Tensor]) -> Any:
    """JSON for a value; tensors go to `found` under their path."""
    if isinstance(value, Tensor):
        found[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _described(item, f"{path}.{key}".lstrip("."), found)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_described(item, f"{path}.{at}", found) for at, item in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": items}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold")


def _rebuilt(told: Any, found: dict[str, Tensor]) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, inner),) = told.items()
    if kind == "tensor":
        return found[inner]
    if kind == "dict":
        return {key: _rebuilt(item, found) for key, item in inner}
    return (tuple if kind == "tuple" else list)(_rebuilt(item, found) for item in inner)
