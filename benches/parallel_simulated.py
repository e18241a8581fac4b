"""What placements would do at 8 to 320 ranks, computed from DeepSeek-V3's routing: loads, no times.

Tokens are routed as V3 routes, 8 of 256 experts in 4 of 8 groups, with experts wanted uniformly, by Zipf's law, or as
often as a trained router was recorded to, in random order; EPLB is given the loads it will meet. At least 32 experts
are redundant, as many as the ranks take: 288 physical experts on 32 and 144 ranks and 320 on 320, as DeepSeek deploys
V3 (arXiv 2412.19437, section 3.4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor

from benches.mixtures import Skew, ffn_shape, token_shape
from benches.parallel_plan import CONTIGUOUS, GLOBAL, HIERARCHICAL, OPERATION, PLACEMENTS, TECHNIQUE
from benches.parallel_records import expert_loads, spread
from harness.record import Figure, Record
from impls.ffn.inputs import loads
from impls.ffn.placement import Placement, contiguous, global_policy, hierarchical, imbalance, rank_loads
from impls.ffn.shape import TokenShape

PREFIX = "simulated-"
MODEL, TOKENS = "v3", 4096
RANKS = (8, 16, 32, 64, 128, 144, 256, 320)
NODE, REDUNDANT = 8, 32
SOURCE = "impls/ffn/placement.py"


def physical(experts: int, ranks: int) -> int:
    """Physical experts: the fewest that leave at least 32 redundant and divide among the ranks."""
    return -(-(experts + REDUNDANT) // ranks) * ranks


def placed(name: str, loads_LE: Tensor, ranks: int, groups: int) -> Placement:
    """A placement by name, 8 ranks a node. Raises ValueError where it is not possible."""
    replicas = physical(loads_LE.shape[1], ranks)
    known: dict[str, Callable[[], Placement]] = {
        CONTIGUOUS: lambda: contiguous(loads_LE, ranks),
        HIERARCHICAL: lambda: hierarchical(loads_LE, replicas, groups, ranks // NODE, ranks),
        GLOBAL: lambda: global_policy(loads_LE, replicas, ranks),
    }
    return known[name]()


def records(skews: Iterable[Skew]) -> Iterator[Record]:
    """One record a number of ranks, skew and placement."""
    _, model = ffn_shape(MODEL)
    for skew in skews:
        shape = token_shape(model, TOKENS, skew)
        loads_LE = loads(shape, TECHNIQUE)[None]
        for ranks in RANKS:
            sizes = "-".join(filter(None, (f"r{ranks}-t{TOKENS}", shape.routing)))
            for name in PLACEMENTS:
                yield _record(name, sizes, shape, loads_LE, ranks)


def _record(name: str, sizes: str, shape: TokenShape, loads_LE: Tensor, ranks: int) -> Record:
    same = {
        "case": f"{OPERATION}/{MODEL}/{sizes}",
        "study": OPERATION.split(".")[0],
        "operation": OPERATION,
        "model": MODEL,
        "sizes": sizes,
        "shape": {**dataclasses.asdict(shape), "ranks": ranks, "nodes": ranks // NODE},
        "technique": TECHNIQUE,
        "implementation": PREFIX + name,
        "kind": "reference",
        "source": {"file": SOURCE},
        "doc": "Computed from the loads that planted routing gives; nothing was timed.",
    }
    try:
        placement = placed(name, loads_LE, ranks, shape.model.router.groups)
    except ValueError as error:
        return Record(**same, status="unavailable", reason=str(error))
    return Record(
        **same,
        status="passed",
        baseline=f"{TECHNIQUE}/{PREFIX}{CONTIGUOUS}",
        figures={
            "token_max_over_mean": Figure(float(imbalance(placement, loads_LE)[0])),
            "replicas": Figure(float(placement.expert_LP.shape[1])),
            **spread(shape),
        },
        series={"tokens": rank_loads(placement, loads_LE)[0].tolist(), **expert_loads(shape)},
        layout=f"{placement.slots} experts a rank",
        timing={"pairing": "simulated"},
    )
