"""A mixture of experts over several ranks, each with a share of the experts: dispatch, compute, combine.

Each rank routes its own tokens, sends every hidden state to the ranks of its experts, computes what it was sent, and
adds up what comes back. Wins where one device cannot hold the experts, or where more ranks mean more tokens an expert:
each weight is read once for the tokens of all ranks. Loses by two exchanges a layer, and by waiting for the rank with
most to do, which is what a placement (`placement.py`) is for. Experts with copies share their tokens in turn.
torch.distributed moves everything: gloo between CPU processes, NCCL between GPUs. The host must know how many rows
arrive before it can ask for them, which stops a GPU's queue once a layer; fused exchanges avoid it.

Source: DeepSeek-V3 (arXiv 2412.19437, sections 3.2.2 and 3.4), without its limit of nodes a token.
Shape suffixes: M tokens, D hidden, E logical experts, C copies, K chosen, P = M x K pairs, R ranks, S experts (slots)
of one rank, N rows that arrived, W width, U = 2 W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from . import grouped_mm, stretches
from .placement import Placement
from .reference import dense_forward
from .routing import Order, by_expert, route
from .weights import DenseWeights, MoeWeights, RouterWeights


@dataclass(frozen=True)
class Share:
    """What one rank holds: all of the router and of the shared experts, its own routed experts, and who has which."""

    rank: int
    router: RouterWeights
    shared: DenseWeights | None
    w_in_SUD: Tensor
    w_out_SDW: Tensor
    copies_EC: Tensor
    count_E: Tensor


@dataclass(frozen=True)
class Outgoing:
    """A rank's own tokens, ready to be sent.

    rows_PD     a hidden state for each chosen expert, sorted by physical expert
    counts_RS   int64: how many go to each rank's slots
    shared_MD   output of the shared experts, None without
    """

    rows_PD: Tensor
    counts_RS: Tensor
    order: Order
    gates_MK: Tensor
    shared_MD: Tensor | None


@dataclass(frozen=True)
class Arrived:
    """Rows from rank 0, 1, ..., each rank's sorted by slot; how many of each, int64 [R, S]; and rows by rank as the
    host knows them."""

    rows_ND: Tensor
    counts_RS: Tensor
    sent: list[int]
    received: list[int]


def share(w: MoeWeights, placement: Placement, rank: int) -> Share:
    """The share of `rank` in a layer whose placement has one layer; copies of an expert are equal.

    Raises ValueError for a placement of several layers or of another number of experts.
    """
    layers, experts = placement.count_LE.shape
    if layers != 1 or experts != w.router.rule.experts:
        raise ValueError(
            f"the placement is of {layers} layers of {experts} experts, expected 1 of {w.router.rule.experts}"
        )
    device = w.w_in_EUD.device
    expert_S = placement.expert_LP[0].view(placement.ranks, -1)[rank].to(device)
    return Share(
        rank,
        w.router,
        w.shared,
        w.w_in_EUD[expert_S],
        w.w_out_EDW[expert_S],
        placement.copies_LEC[0].to(device),
        placement.count_LE[0].to(device),
    )


def physical(experts_MK: Tensor, w: Share) -> Tensor:
    """The copy, int64 [M, K], that each token goes to: an expert's tokens take its copies in turn.

    Each rank begins with another copy, so that the remainders of few tokens do not meet on the first.
    """
    order = by_expert(experts_MK, len(w.count_E))
    expert_P = experts_MK.flatten()[order.pair_P]
    begin_E = torch.cat([order.ends_E.new_zeros(1), order.ends_E[:-1]])
    turn_P = torch.arange(len(expert_P), device=expert_P.device) - begin_E[expert_P] + w.rank
    copy_P = w.copies_EC[expert_P, turn_P % w.count_E[expert_P]]
    return torch.empty_like(copy_P).index_copy_(0, order.pair_P, copy_P).view_as(experts_MK)


def prepare(w: Share, x_MD: Tensor, ranks: int) -> Outgoing:
    """All that a rank does with its own tokens alone: routing, the rows in sending order, the shared experts."""
    routed = route(x_MD, w.router)
    slots = len(w.w_in_SUD)
    order = by_expert(physical(routed.experts_MK, w), ranks * slots)
    counts_RS = order.ends_E.long().diff(prepend=order.ends_E.new_zeros(1).long()).view(ranks, slots)
    rows_PD = x_MD[order.pair_P // routed.experts_MK.shape[1]]
    shared_MD = None if w.shared is None else dense_forward(w.shared, x_MD)
    return Outgoing(rows_PD, counts_RS, order, routed.gates_MK, shared_MD)


def dispatch(out: Outgoing) -> Arrived:
    """Counts first, then the rows, to every rank of the default process group."""
    counts_RS = torch.empty_like(out.counts_RS)
    dist.all_to_all_single(counts_RS, out.counts_RS.contiguous())
    sent, received = torch.stack([out.counts_RS.sum(1), counts_RS.sum(1)]).tolist()
    rows_ND = out.rows_PD.new_empty(sum(received), out.rows_PD.shape[1])
    dist.all_to_all_single(rows_ND, out.rows_PD, received, sent)
    return Arrived(rows_ND, counts_RS, sent, received)


def compute(w: Share, arrived: Arrived) -> Tensor:
    """The rank's experts on what arrived, [N, D] in the order of arrival."""
    ranks, slots = arrived.counts_RS.shape
    if not len(arrived.rows_ND):
        return arrived.rows_ND
    device = arrived.rows_ND.device
    slot_N = torch.arange(slots, device=device).repeat(ranks)
    slot_N = slot_N.repeat_interleave(arrived.counts_RS.flatten(), output_size=len(arrived.rows_ND))
    row_N = slot_N.argsort(stable=True)
    ends_S = arrived.counts_RS.sum(0).cumsum(0, dtype=torch.int32)
    rows = grouped_mm.expert_rows if device.type == "cuda" else stretches.expert_rows
    sorted_ND = rows(arrived.rows_ND[row_N], ends_S, w.w_in_SUD, w.w_out_SDW)
    return torch.empty_like(sorted_ND).index_copy_(0, row_N, sorted_ND)


def combine(out: Outgoing, arrived: Arrived, rows_ND: Tensor) -> Tensor:
    """Results back to their tokens' ranks, and each token's sum, [M, D]."""
    rows_PD = torch.empty_like(out.rows_PD)
    dist.all_to_all_single(rows_PD, rows_ND, arrived.sent, arrived.received)
    return finish(out, rows_PD)


def finish(out: Outgoing, rows_PD: Tensor) -> Tensor:
    """The sum of each token's results by its gate values, and of the shared experts', [M, D]."""
    y_MD = grouped_mm.combine(rows_PD, out.order, out.gates_MK)
    return y_MD if out.shared_MD is None else y_MD + out.shared_MD


def layer(w: Share, x_MD: Tensor) -> Tensor:
    """The whole layer of this rank's tokens, [M, D]; every rank of the default process group must call it."""
    out = prepare(w, x_MD, dist.get_world_size())
    arrived = dispatch(out)
    return combine(out, arrived, compute(w, arrived))


def dispatch_here(outs: Sequence[Outgoing]) -> list[Arrived]:
    """What `dispatch` brings each rank when all ranks' tokens are in this process: for one device playing them all."""
    sent_RR = [out.counts_RS.sum(1).tolist() for out in outs]
    rows = _exchanged([out.rows_PD for out in outs], sent_RR)
    return [
        Arrived(rows[rank], torch.stack([out.counts_RS[rank] for out in outs]), sent_RR[rank], list(received))
        for rank, received in enumerate(zip(*sent_RR, strict=True))
    ]


def combine_here(outs: Sequence[Outgoing], arrived: Sequence[Arrived], rows: Sequence[Tensor]) -> list[Tensor]:
    """What `combine` returns on each rank when all are in this process."""
    back = _exchanged(rows, [one.received for one in arrived])
    return [finish(out, rows_PD) for out, rows_PD in zip(outs, back, strict=True)]


def sent_bytes(arrived: Arrived, rank: int) -> int:
    """Bytes that `rank` sends to other ranks in one layer: hidden states out, and results for what it received."""
    rows = sum(arrived.sent) - arrived.sent[rank] + sum(arrived.received) - arrived.received[rank]
    return rows * arrived.rows_ND.shape[1] * arrived.rows_ND.element_size()


def _exchanged(rows: Sequence[Tensor], splits: Sequence[Sequence[int]]) -> list[Tensor]:
    """Part d of rank r's rows becomes part r of rank d's."""
    parts = [one.split(list(split)) for one, split in zip(rows, splits, strict=True)]
    return [torch.cat(column) for column in zip(*parts, strict=True)]
