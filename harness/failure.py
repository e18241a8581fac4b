"""Exceptions in words, whoever raised them: a contender's own exception may not even be able to say what it is."""

from __future__ import annotations

import torch


def describe(error: BaseException) -> str:
    """Type and first line of an exception, without a traceback."""
    if isinstance(error, SystemExit):
        return f"called exit({error.code})"
    lines = _text(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation did not fit."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = _text(error)
    return "can't allocate memory" in text or "out of memory" in text


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
