"""The combinations of four choices, each what DeepSeek replaced or what it replaced that with; a technique is one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from ..model.shape import ModelShape

AXES = {
    "attention": ("mha", "mla"),
    "ffn": ("dense", "moe"),
    "linear": ("bf16", "fp8"),
    "objective": ("ntp", "mtp"),
}


@dataclass(frozen=True)
class Combination:
    """One choice an axis. Raises ValueError for a choice that its axis does not have."""

    attention: str
    ffn: str
    linear: str
    objective: str

    def __post_init__(self) -> None:
        for (axis, known), choice in zip(AXES.items(), self.choices, strict=True):
            if choice not in known:
                raise ValueError(f"{axis} is {choice!r}, expected {' or '.join(known)}")

    @classmethod
    def named(cls, name: str) -> Combination:
        """The inverse of `name`. Raises ValueError for another word."""
        choices = name.split("-")
        if len(choices) != len(AXES):
            raise ValueError(f"{name!r} is no combination; one is {PLAINEST.name!r}")
        return cls(*choices)

    @property
    def name(self) -> str:
        """`mla-moe-fp8-mtp`."""
        return "-".join(self.choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """In the order of `AXES`."""
        return (self.attention, self.ffn, self.linear, self.objective)

    @property
    def settings(self) -> tuple[bool, ...]:
        """Whether each axis has DeepSeek's choice."""
        return tuple(choice == two for choice, (_, two) in zip(self.choices, AXES.values(), strict=True))

    @property
    def told(self) -> str:
        """`attention mla, ffn moe, linear fp8, objective mtp`."""
        return ", ".join(map(" ".join, zip(AXES, self.choices, strict=True)))

    def of(self, model: ModelShape) -> ModelShape:
        """The model with these choices."""
        return replace(model, technique=self.attention, feed=self.ffn, linear=self.linear, objective=self.objective)


def combinations() -> list[Combination]:
    """All sixteen, the plainest first."""
    return [Combination(*choices) for choices in itertools.product(*AXES.values())]


PLAINEST, *_, ALL = combinations()
ALONE = tuple(one for one in combinations() if sum(one.settings) == 1)
FEW = tuple(one.name for one in (PLAINEST, *ALONE, ALL))
