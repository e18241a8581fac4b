"""From lists of workloads by tier to one list, each workload once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness import Workload


def tiered(tiers: Mapping[str, Sequence[Workload]]) -> list[Workload]:
    """One workload an id, in every tier that lists it; what the GPU tier has belongs to the grid as well.

    Cases that compile come last, so that no other is left out for the time they take.
    """
    found: dict[str, Workload] = {}
    for tier, listed in {**tiers, "full": [*tiers["gpu"], *tiers["full"]]}.items():
        for workload in listed:
            known = found.setdefault(workload.id, workload)
            if tier not in known.tiers:
                found[workload.id] = replace(known, tiers=(*known.tiers, tier))
    return sorted(found.values(), key=lambda workload: bool(workload.compiled))
