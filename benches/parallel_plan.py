"""What `python -m benches.parallel` measures: sizes, cases and placements, alike for the parent and for every rank."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.bench_ffn import LAYER_BYTES, Model
from benches.mixtures import Skew, experts_field, ffn_shape, token_shape
from impls.ffn.inputs import loads
from impls.ffn.placement import Placement, contiguous, global_policy, hierarchical
from impls.ffn.shape import FfnShape, Router, TokenShape

OPERATION, TECHNIQUE = "ffn.parallel", "moe"
CONTIGUOUS, HIERARCHICAL, GLOBAL = "contiguous", "eplb-hierarchical", "eplb-global"
PLACEMENTS = (CONTIGUOUS, HIERARCHICAL, GLOBAL)
CPU_BYTES, CPU_TOKENS, GPU_TOKENS = 100e6, 128, 1024
CPU_EXPERTS, GPU_EXPERTS = 32, 64
GROUPS = (8, 4, 2, 1)
DEFAULTS = {"cpu": "v2-lite", "cuda": "v3"}
MOST_ROUNDS = 400
PLAN = "plan.json"


@dataclass(frozen=True)
class Case:
    """Tokens of each rank through one layer."""

    id: str
    sizes: str
    shape: TokenShape


@dataclass(frozen=True)
class Plan:
    """A run.

    ranks     among which the experts are divided
    apart     one device plays all ranks, one after another: nothing is exchanged, only shares are measured
    nodes     what EPLB's hierarchical policy is told; the ranks are all on this host
    replicas  of experts under EPLB, one more a rank than in order
    tokens    of each rank
    until     `time.monotonic()` at which measuring ends
    field     what the model's configuration calls the number of experts; a slice has a part of them
    Raises ValueError where the numbers do not fit together, naming what was asked for.
    """

    model: str
    shape: FfnShape
    ranks: int
    device: str
    apart: bool
    nodes: int
    tokens: int
    skews: tuple[Skew, ...]
    until: float
    field: str = "experts"

    def __post_init__(self) -> None:
        experts, ranks = self.shape.router.experts, self.ranks
        if ranks < 1:
            raise ValueError(f"RANKS={ranks}: at least one rank is needed")
        if ranks > experts:
            raise ValueError(f"RANKS={ranks}: {self.field} of {self.model} is {experts}, fewer than one a rank")
        if experts % ranks:
            raise ValueError(f"RANKS={ranks} does not divide {self.field} of {self.model}, {experts}")
        if self.nodes < 1 or ranks % self.nodes:
            raise ValueError(f"--nodes {self.nodes} does not divide the {ranks} ranks")
        if not any(self._fits(groups) for groups in GROUPS):
            raise ValueError(f"--nodes {self.nodes}: none of {GROUPS} groups divides {experts} experts and its nodes")
        if self.tokens < 1:
            raise ValueError(f"--tokens {self.tokens}: each rank needs at least one")

    def _fits(self, groups: int) -> bool:
        return self.shape.router.experts % groups == 0 and groups % self.nodes == 0

    @property
    def groups(self) -> int:
        """Of experts, kept within a node by the hierarchical policy."""
        return next(groups for groups in GROUPS if self._fits(groups))

    @property
    def replicas(self) -> int:
        """Physical experts under EPLB."""
        return self.shape.router.experts + self.ranks

    def cases(self) -> Iterator[Case]:
        """One a skew."""
        for skew in self.skews:
            shape = token_shape(self.shape, self.tokens, skew)
            sizes = "-".join(filter(None, (f"r{self.ranks}-t{self.tokens}", shape.routing)))
            yield Case(f"{OPERATION}/{self.model}/{sizes}", sizes, shape)

    def placement(self, name: str, case: Case) -> Placement:
        """One layer's placement, made for the loads that the case's tokens will bring: the past that EPLB is given is
        the present here. Every rank's tokens want the same experts equally often."""
        loads_LE = loads(case.shape, TECHNIQUE)[None]
        if name == CONTIGUOUS:
            return contiguous(loads_LE, self.ranks)
        if name == HIERARCHICAL:
            return hierarchical(loads_LE, self.replicas, self.groups, self.nodes, self.ranks)
        return global_policy(loads_LE, self.replicas, self.ranks)

    def write(self, folder: Path) -> None:
        """For the ranks."""
        (folder / PLAN).write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The inverse of `write`."""
        fields = json.loads((folder / PLAN).read_text())
        shape = fields["shape"]
        shape = FfnShape(**{**shape, "router": Router(**shape["router"])})
        return cls(**{**fields, "shape": shape, "skews": tuple(fields["skews"])})


def counted(model: str | None, device: str) -> str:
    """What the configuration of `sized`'s model calls the number of experts."""
    return experts_field(model or DEFAULTS[device]) or "experts"


def sized(model: str | None, device: str) -> Model:
    """The slice that is measured: of V2-Lite in FP32 on a CPU, of V3 in BF16 on GPUs, or of `model`.

    Raises ValueError for a model that is unknown or whose configuration is wrong.
    """
    if device == "cuda":
        large = Model(*ffn_shape(model or DEFAULTS[device]))
        return large.at_most(LAYER_BYTES, least_experts=min(GPU_EXPERTS, large.shape.router.experts))
    small = Model(*ffn_shape(model or DEFAULTS[device])).single()
    return small.at_most(CPU_BYTES, least_experts=min(CPU_EXPERTS, small.shape.router.experts))
