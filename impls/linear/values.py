"""Distributions that matrices are drawn from, gentle to hostile.

    gaussian   standard normal
    uniform    -1 to 1
    positive   0 to 1: sums grow with their length, and so does what a short accumulator loses
    heavy      Student's t with 2 degrees of freedom, whose variance is infinite
    outliers   Gaussian; one column in 256 is larger by a factor up to 1e5, as channels of activations are
    gradients  Gaussian; each row has a size of its own, 1e-4 to 1e-10

Shape suffixes: R rows, L columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTLIER_EVERY = 256
OUTLIER_DECADES = 5.0


def draw(values: str, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """[rows, columns] in FP32 on the generator's device. Raises KeyError for an unknown distribution."""
    return DRAWS[values](rows, columns, generator)


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, device=generator.device)


def _positive(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.rand(rows, columns, generator=generator, device=generator.device)


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return 2 * _positive(rows, columns, generator) - 1


def _heavy(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    u_RL = _positive(rows, columns, generator).clamp(1e-7, 1 - 1e-7)
    return (2 * u_RL - 1) / (2 * u_RL * (1 - u_RL)).sqrt()


def _outliers(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    size_L = torch.ones(columns, device=generator.device)
    count = max(1, columns // OUTLIER_EVERY)
    where = torch.randperm(columns, generator=generator, device=generator.device)[:count]
    decades = OUTLIER_DECADES * torch.rand(count, generator=generator, device=generator.device)
    decades[0] = OUTLIER_DECADES
    return _normal(rows, columns, generator) * size_L.index_copy(0, where, 10**decades)


def _gradients(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    decades_R1 = -4 - 6 * _positive(rows, 1, generator)
    return _normal(rows, columns, generator) * 10**decades_R1


DRAWS = {
    "gaussian": _normal,
    "uniform": _uniform,
    "positive": _positive,
    "heavy": _heavy,
    "outliers": _outliers,
    "gradients": _gradients,
}
