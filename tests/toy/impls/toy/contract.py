"""A second, trivial operation: everything it takes to be measured, verified and shown."""

from dataclasses import dataclass

import torch

from harness import Cost, Operation, operation


@dataclass(frozen=True)
class Square:
    size: int
    dtype: str = "float32"


def draw(shape, technique, generator):
    return torch.randn(shape.size, shape.size, generator=generator, device=generator.device)


def cost(shape, technique):
    n = shape.size
    return Cost(flops=2 * n**3, read_bytes=8 * n * n, write_bytes=4 * n * n, dtype=shape.dtype)


operation(
    Operation(
        name="toy.product",
        weights=draw,
        inputs=draw,
        cost=cost,
        tokens=lambda shape: shape.size,
        baseline=("plain/reference",),
    )
)
