"""A trivial trial: how far does a descent come in a number of steps?"""

from dataclasses import dataclass

import torch

from harness import Metric, Operation, Trial, operation


@dataclass(frozen=True)
class Slope:
    size: int
    steps: int


@dataclass(frozen=True)
class Target:
    target_N: torch.Tensor


def draw(shape, technique, generator):
    return Target(torch.randn(shape.size, generator=generator, device=generator.device))


operation(
    Operation(
        name="descent.walk",
        weights=draw,
        tokens=lambda shape: shape.size,
        baseline=("plain/reference",),
        metrics=(Metric("left", "ratio", "lower", "Distance from the target over the distance at the start."),),
        trial=Trial(steps=lambda shape: shape.steps, data=lambda weights: f"{len(weights.target_N)} numbers"),
    )
)
