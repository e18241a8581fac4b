"""Sizes of the linear operations: what a workload chooses, and all that an implementation may specialise on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TILE = 128
VALUES = ("gaussian", "uniform", "positive", "heavy", "outliers", "gradients")
FORMS = ("tiles", "transposed", "blocks", "silu", "rmsnorm")


DTYPES = ("float32", "bfloat16", "float16")


def as_dtype(name: str) -> torch.dtype:
    """torch's dtype of that name."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def require(known: dict[str, tuple[str, tuple[str, ...]]], **sizes: int) -> None:
    """Raises ValueError for a word that is none of those known, by name, and for sizes that are not 1 or more."""
    for name, (word, words) in known.items():
        if word not in words:
            raise ValueError(f"{name} is {word!r}, expected one of {', '.join(words)}")
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} is {size!r}, expected a whole number from 1 up")


@dataclass(frozen=True)
class LinearShape:
    """One linear layer y_MN = x_MK w_NK^T: `rows` M, `outs` N, `ins` K.

    dtype         of what is not FP8: activations, gradients of activations, outputs
    power_of_two  FP8 scales are powers of two
    values        how activations are distributed; weights are Gaussian, but "positive" with positive activations
    Raises ValueError for an unknown distribution or dtype, and for sizes below 1.
    """

    rows: int
    outs: int
    ins: int
    dtype: str = "bfloat16"
    power_of_two: bool = False
    values: str = "gaussian"

    def __post_init__(self) -> None:
        known = {"values": (self.values, VALUES), "dtype": (self.dtype, DTYPES)}
        require(known, rows=self.rows, outs=self.outs, ins=self.ins)

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        return as_dtype(self.dtype)


@dataclass(frozen=True)
class QuantizeShape:
    """Quantize what is, or becomes, [rows, columns].

    form  "tiles"       1 x 128 tiles, for the forward product and for dgrad; per row or tensor in those techniques
          "transposed"  128 x 1 tiles, written transposed, for wgrad
          "blocks"      128 x 128 blocks, for weights
          "silu"        1 x 128 tiles of silu(gate) * up; the input has 2 x columns, gate first
          "rmsnorm"     1 x 128 tiles of the RMSNorm
    Raises ValueError for an unknown form, distribution or dtype, and for sizes below 1.
    """

    rows: int
    columns: int
    form: str
    dtype: str = "bfloat16"
    power_of_two: bool = False
    values: str = "gaussian"

    def __post_init__(self) -> None:
        known = {"values": (self.values, VALUES), "dtype": (self.dtype, DTYPES), "form": (self.form, FORMS)}
        require(known, rows=self.rows, columns=self.columns)

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        return as_dtype(self.dtype)

    @property
    def fused(self) -> bool:
        """Whether something is computed before quantizing."""
        return self.form in ("silu", "rmsnorm")

    @property
    def width(self) -> int:
        """Columns of the input."""
        return 2 * self.columns if self.form == "silu" else self.columns


@dataclass(frozen=True)
class GroupedShape:
    """`groups` linear layers of [outs, ins], the experts, and `rows` rows sorted by group.

    Groups begin at multiples of 128 rows, to which training code pads them, and are filled in proportion to
    rank^-`skew`; some may be empty. Raises ValueError for an unknown dtype, sizes below 1, a negative skew, and rows
    that are no multiple of 128.
    """

    groups: int
    rows: int
    outs: int
    ins: int
    skew: float = 0.0
    dtype: str = "bfloat16"
    power_of_two: bool = False

    def __post_init__(self) -> None:
        require({"dtype": (self.dtype, DTYPES)}, groups=self.groups, rows=self.rows, outs=self.outs, ins=self.ins)
        if not 0 <= self.skew < math.inf:
            raise ValueError(f"skew is {self.skew!r}, expected 0 or more")
        if self.rows % TILE:
            raise ValueError(f"rows is {self.rows}, expected a multiple of {TILE}: groups begin at such rows")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        return as_dtype(self.dtype)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each group: whole tiles by largest remainder, the fullest group in the middle."""
        tiles = self.rows // TILE
        weights = [(rank + 1) ** -self.skew for rank in range(self.groups)]
        wanted = [tiles * weight / sum(weights) for weight in weights]
        counts = [int(share) for share in wanted]
        by_rest = sorted(range(self.groups), key=lambda group: counts[group] - wanted[group])
        for group in by_rest[: tiles - sum(counts)]:
            counts[group] += 1
        turned = counts[self.groups // 2 :] + counts[: self.groups // 2]
        return tuple(count * TILE for count in turned)
