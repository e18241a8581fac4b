"""Sizes of the feed-forward operations: what a workload chooses, and all that an implementation may specialise on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Router:
    """How a token chooses its experts (DeepSeekMoE §3, DeepSeek-V2 §2.2.2, DeepSeek-V3 §2.1.2).

    score       "softmax" over the experts (V1, V2) or "sigmoid" of each, with a bias that decides the choice but is
                not part of the gate value (V3)
    groups      devices or nodes the experts are divided among, of which a token may use `top_groups`: ranked by their
                best expert under softmax, by the sum of their two best under sigmoid
    normalise   gate values of a token's experts add up to `scale`; otherwise they are scores times `scale`
    Raises ValueError for numbers that do not fit together.
    """

    experts: int
    top_k: int
    score: str = "softmax"
    groups: int = 1
    top_groups: int = 1
    normalise: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.score not in ("softmax", "sigmoid"):
            raise ValueError(f"score is {self.score!r}, expected softmax or sigmoid")
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"top_k is {self.top_k}, expected 1 to {self.experts}, the number of experts")
        if self.groups < 1 or self.experts % self.groups:
            raise ValueError(f"groups is {self.groups}, expected a divisor of {self.experts}, the number of experts")
        if not 1 <= self.top_groups <= self.groups:
            raise ValueError(f"top_groups is {self.top_groups}, expected 1 to {self.groups}, the number of groups")
        if self.top_k > self.top_groups * (self.experts // self.groups):
            raise ValueError(
                f"top_k is {self.top_k}, but {self.top_groups} groups of {self.experts // self.groups} experts are "
                "all that a token may use"
            )

    @property
    def biased(self) -> bool:
        """Whether a bias takes part in the choice."""
        return self.score == "sigmoid"


@dataclass(frozen=True)
class FfnShape:
    """One feed-forward layer: a mixture of experts of `width`, and the dense layers it is compared with.

    `shared` experts take every token; they are one SwiGLU of `shared` times the width.
    """

    hidden: int
    width: int
    shared: int
    router: Router
    dtype: str = "bfloat16"

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def dense_width(self, technique: str) -> int:
        """Width of the dense SwiGLU with as many active ("dense") or as many total ("dense-total") parameters."""
        experts = self.router.experts if technique == "dense-total" else self.router.top_k
        return (experts + self.shared) * self.width

    def coarse(self) -> FfnShape:
        """The coarse mixture DeepSeekMoE improved on: top 2 by softmax, no shared experts, each so wide that active
        and, up to rounding to whole experts, total parameters are the same."""
        router = self.router
        active, total = router.top_k + self.shared, router.experts + self.shared
        experts = max(2, round(2 * total / active))
        return replace(self, width=active * self.width // 2, shared=0, router=Router(experts, 2))

    def of(self, technique: str) -> FfnShape:
        """The mixture a technique computes."""
        return self.coarse() if technique == "moe-coarse" else self

    def sliced(self, ranks: int, cuts: int = 1) -> FfnShape:
        """What one of `ranks` expert-parallel ranks computes for as many tokens as it has itself, with every expert
        cut in `cuts` by width: its own experts, chosen as often a token as in the whole layer.

        Raises ValueError where experts or width do not divide.
        """
        router = self.router
        if router.experts % ranks:
            raise ValueError(f"{router.experts} experts do not divide among {ranks} ranks")
        if self.width % cuts:
            raise ValueError(f"a width of {self.width} cannot be cut in {cuts}")
        experts = router.experts // ranks
        if ranks == 1:
            return replace(self, width=self.width // cuts)
        local = replace(router, experts=experts, top_k=min(router.top_k, experts), groups=1, top_groups=1)
        return replace(self, width=self.width // cuts, router=local)


@dataclass(frozen=True)
class TokenShape:
    """`tokens` through one layer; experts are wanted in proportion to rank^-`skew`: 0 is uniform, 1 is Zipf's law.

    recorded   digest of the recorded loads that they are wanted by instead (`recorded.py`); "" for none
    Raises ValueError for both.
    """

    model: FfnShape
    tokens: int
    skew: float = 0.0
    recorded: str = ""

    def __post_init__(self) -> None:
        if self.skew and self.recorded:
            raise ValueError(f"skew is {self.skew} and recorded is {self.recorded!r}, expected one of them")

    @property
    def routing(self) -> str:
        """The word of case ids: "zipf1", "recorded", "" for uniform."""
        return "recorded" if self.recorded else f"zipf{self.skew:g}" if self.skew else ""
