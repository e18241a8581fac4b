"""Which rank holds which expert: in order, or replicated and packed by load as EPLB does it.

Experts are loaded unevenly and the busiest rank decides how long a layer takes. EPLB gives busy experts more copies and
packs copies onto ranks so that their loads are even; it needs memory for the copies and the loads of the past. It wins
under skewed routing and at many ranks, where few experts a rank leave nothing to chance. It loses nothing but memory
under even routing, and cannot help when traffic turns away from what it was made for. The hierarchical policy keeps
each group of experts within a node, for routing that limits a token's nodes; the global one ignores nodes.

Source: the deployment of DeepSeek-V3 (arXiv 2412.19437, section 3.4) and EPLB, published by DeepSeek with it.
Shape suffixes: L layers, E logical experts, P physical experts (copies), C most copies of one, R ranks, I items,
G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """Physical experts in the order of ranks, P / `ranks` on each.

    expert_LP    int64: the logical expert of each physical one
    copies_LEC   int64: the physical experts of each logical one, -1 past the last
    count_LE     int64: how many there are
    """

    expert_LP: Tensor
    copies_LEC: Tensor
    count_LE: Tensor
    ranks: int

    @property
    def slots(self) -> int:
        """Physical experts of one rank."""
        return self.expert_LP.shape[1] // self.ranks


def contiguous(loads_LE: Tensor, ranks: int) -> Placement:
    """One copy each, in order, whatever the loads. Raises ValueError when `ranks` does not divide the experts."""
    _checked(loads_LE)
    layers, experts = loads_LE.shape
    _positive("ranks", ranks)
    if experts % ranks:
        raise ValueError(f"ranks is {ranks}, which does not divide the {experts} experts")
    return _placement(torch.arange(experts).repeat(layers, 1), experts, ranks)


def hierarchical(loads_LE: Tensor, replicas: int, groups: int, nodes: int, ranks: int) -> Placement:
    """Groups of experts packed onto nodes, copies added within each node, copies packed onto the node's ranks.

    `loads_LE` are tokens (or anything proportional) of each layer's logical experts; `replicas` counts all copies.
    Raises ValueError for loads that are no matrix, negative or not finite, for fewer replicas than experts, and where
    groups do not divide the experts, nodes the groups and the ranks, or ranks the replicas.
    """
    _checked(loads_LE)
    experts = loads_LE.shape[1]
    _check_sizes(experts, replicas, groups, nodes, ranks)
    rows = []
    for loads_E in loads_LE:
        loads_G = loads_E.view(groups, -1).sum(-1)
        node_G = balanced_packing(loads_G[None], nodes)[0]
        # A node's groups stand in the order they were packed, heaviest first: it decides between experts of equal load.
        group_G = _descending(loads_G)
        expert_GI = torch.arange(experts).view(groups, -1)[group_G[node_G[group_G].argsort(stable=True)]]
        parts = [
            _packed_copies(loads_E, expert_I, replicas // nodes, ranks // nodes)
            for expert_I in expert_GI.view(nodes, -1)
        ]
        rows.append(torch.cat(parts))
    return _placement(torch.stack(rows), experts, ranks)


def global_policy(loads_LE: Tensor, replicas: int, ranks: int) -> Placement:
    """Copies added where they help most and packed onto any rank: the hierarchical policy of one group and one node.

    Raises ValueError as `hierarchical` does.
    """
    return hierarchical(loads_LE, replicas, 1, 1, ranks)


def rebalance(loads_LE: Tensor, replicas: int, groups: int, nodes: int, ranks: int) -> Placement:
    """EPLB's choice: hierarchical where nodes divide the groups, global elsewhere. Raises ValueError as they do."""
    _positive("nodes", nodes)
    if groups % nodes == 0:
        return hierarchical(loads_LE, replicas, groups, nodes, ranks)
    return global_policy(loads_LE, replicas, ranks)


def balanced_packing(loads_LI: Tensor, packs: int) -> Tensor:
    """The pack, int64 [L, I], of each item: equally many items a pack, the heaviest first, each into the lightest pack
    with room. Raises ValueError when `packs` does not divide the items."""
    items = loads_LI.shape[1]
    _positive("packs", packs)
    if items % packs:
        raise ValueError(f"packs is {packs}, which does not divide the {items} items")
    pack_LI = torch.empty(loads_LI.shape, dtype=torch.int64)
    for loads_I, pack_I in zip(loads_LI.double(), pack_LI, strict=True):
        weights, room = [0.0] * packs, [items // packs] * packs
        for item in _descending(loads_I).tolist():
            pack = min((p for p in range(packs) if room[p]), key=weights.__getitem__)
            pack_I[item] = pack
            weights[pack] += float(loads_I[item])
            room[pack] -= 1
    return pack_LI


def replicate(loads_E: Tensor, replicas: int) -> Tensor:
    """The expert, int64 [P], of each of `replicas` copies: one of each, then one more of the expert with the largest
    load a copy, until there are enough. Raises ValueError for fewer replicas than experts."""
    experts = len(loads_E)
    if replicas < experts:
        raise ValueError(f"replicas is {replicas}, fewer than the {experts} experts: each needs at least one copy")
    count_E = torch.ones(experts, dtype=torch.float64)
    expert_P = list(range(experts))
    for _ in range(replicas - experts):
        busiest = int((loads_E.double() / count_E).argmax())
        expert_P.append(busiest)
        count_E[busiest] += 1
    return torch.tensor(expert_P)


def rank_loads(placement: Placement, loads_LE: Tensor) -> Tensor:
    """Load of each rank, FP64 [L, R], each expert's shared evenly by its copies."""
    copy_LE = loads_LE.double() / placement.count_LE
    return copy_LE.gather(1, placement.expert_LP).unflatten(1, (placement.ranks, -1)).sum(-1)


def imbalance(placement: Placement, loads_LE: Tensor) -> Tensor:
    """The busiest rank's load over the mean, FP64 [L]; 1 is even, and what it is without any load."""
    loads_LR = rank_loads(placement, loads_LE)
    mean_L = loads_LR.mean(1)
    return torch.where(mean_L > 0, loads_LR.amax(1) / mean_L, 1.0)


def _packed_copies(loads_E: Tensor, expert_I: Tensor, replicas: int, ranks: int) -> Tensor:
    """Logical experts [replicas] of one node: copies of `expert_I`, in the order of its ranks."""
    copy_P = replicate(loads_E[expert_I], replicas)
    count_I = copy_P.bincount(minlength=len(expert_I))
    loads_P = (loads_E[expert_I].double() / count_I)[copy_P]
    rank_P = balanced_packing(loads_P[None], ranks)[0]
    # A rank's copies stand in the order they were packed: heaviest first.
    order_P = _descending(loads_P)
    return expert_I[copy_P[order_P[rank_P[order_P].argsort(stable=True)]]]


def _placement(expert_LP: Tensor, experts: int, ranks: int) -> Placement:
    count_LE = torch.stack([row.bincount(minlength=experts) for row in expert_LP])
    copies_LEC = torch.full((*count_LE.shape, int(count_LE.max())), -1)
    for layer, row in enumerate(expert_LP.tolist()):
        used = [0] * experts
        for physical, expert in enumerate(row):
            copies_LEC[layer, expert, used[expert]] = physical
            used[expert] += 1
    return Placement(expert_LP, copies_LEC, count_LE, ranks)


def _descending(loads_I: Tensor) -> Tensor:
    return loads_I.sort(descending=True, stable=True).indices


def _checked(loads_LE: Tensor) -> None:
    if loads_LE.dim() != 2 or 0 in loads_LE.shape:
        raise ValueError(f"loads have the shape {list(loads_LE.shape)}, expected [layers, experts]")
    wrong = loads_LE[~(torch.isfinite(loads_LE) & (loads_LE >= 0))]
    if len(wrong):
        raise ValueError(f"a load is {wrong[0].item()}, expected a finite number of at least 0")


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")


def _check_sizes(experts: int, replicas: int, groups: int, nodes: int, ranks: int) -> None:
    for name, value in {"replicas": replicas, "groups": groups, "nodes": nodes, "ranks": ranks}.items():
        _positive(name, value)
    if replicas < experts:
        raise ValueError(f"replicas is {replicas}, fewer than the {experts} experts: each needs at least one copy")
    for name, value, what, whole in (
        ("groups", groups, "experts", experts),
        ("nodes", nodes, "groups", groups),
        ("nodes", nodes, "ranks", ranks),
        ("ranks", ranks, "replicas", replicas),
    ):
        if whole % value:
            raise ValueError(f"{name} is {value}, which does not divide the {whole} {what}")
