"""Descents towards a target, from zero."""

import torch

from harness import Course, implementation


class Walk(Course):
    """Plain gradient descent, or with momentum."""

    def __init__(self, target_N, momentum):
        self.target_N, self.momentum = target_N, momentum
        self.x_N, self.speed_N = torch.zeros_like(target_N), torch.zeros_like(target_N)
        self.noted = []

    def loss(self):
        return ((self.x_N - self.target_N) ** 2).mean().item()

    def advance(self):
        found = self.loss()
        self.speed_N = self.momentum * self.speed_N + self.x_N - self.target_N
        self.x_N = self.x_N - 0.02 * self.speed_N
        return found

    def note(self):
        self.noted.append(self.loss())

    def figures(self):
        return {"left": (self.loss() / (self.target_N**2).mean().item()) ** 0.5}

    def series(self):
        return {"step": list(range(1, len(self.noted) + 1)), "loss": self.noted}


@implementation("descent.walk", technique="plain", kind="reference")
def plain(weights, shape):
    """Gradient descent."""
    return Walk(weights.target_N, 0.0)


@implementation("descent.walk", technique="plain", kind="optimized")
def heavy(weights, shape):
    """Gradient descent with momentum."""
    return Walk(weights.target_N, 0.9)
