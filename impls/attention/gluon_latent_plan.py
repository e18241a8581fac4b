"""Which program of a persistent decode kernel takes which pages, planned on the device, and the merge of its pieces.

All sequences' pages lie on one line, each followed by what starting and ending a sequence costs, in pages; the line is
cut into equal parts. So ragged lengths load all programs alike, and nothing is read back on the host: a CUDA graph may
hold the plan, and one plan serves all layers of a step. Where whole sequences load the programs nearly as evenly, no
sequence is cut and nothing is merged.

Shape suffixes: B sequences, P parts, M query rows (new tokens x heads), C = 512 latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..triton_jit import jit, tl

OVERHEAD = 3  # what a sequence costs besides its pages, in pages
LEAST = 2  # pages of a part
SLACK = 0.06  # by how much whole sequences may load a program more than equal parts do
MANY = 10  # pieces of a sequence, above which a program of the merge takes some columns of them
MERGE_MANY, MERGE_FEW = (64, 64), (4, 512)  # pieces at a time and columns
ROWS, EACH = 4096, 4  # of all sequences, above which a program of the merge takes several: most end at once


@dataclass(frozen=True)
class Plan:
    """Parts of the work.

    starts  int32 [P + 1, 2]: sequence and page that a part begins with; (B, 0) where nothing is left
    spans   int32 [B, 2]: the first part that has pages of a sequence, and how many parts have some
    """

    starts: Tensor
    spans: Tensor

    @property
    def parts(self) -> int:
        """How many parts there are, some of which may be empty."""
        return len(self.starts) - 1


@jit(do_not_specialize=["batch", "parts"])
def plan_parts(
    lengths_ptr, starts_ptr, spans_ptr, batch, parts, slack,
    PAGE: tl.constexpr, OVERHEAD: tl.constexpr, LEAST: tl.constexpr, BATCH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One program; BATCH and PARTS are powers of two, not less than `batch` and more than `parts`."""
    sequence = tl.arange(0, BATCH)
    known = sequence < batch
    pages = tl.cdiv(tl.load(lengths_ptr + sequence, mask=known, other=0), PAGE)
    cost = tl.where(known, pages + OVERHEAD, 0)
    share = tl.maximum(tl.cdiv(tl.sum(cost, 0), parts), LEAST)
    tallest = tl.max(cost, 0)
    turns = tl.cdiv(batch, parts)
    if tallest * turns <= share * (1 + slack):
        cost = tl.where(known, tallest, 0)
        share = tallest * turns
    end = tl.cumsum(cost, 0)
    start = end - cost
    first, last = start // share, (start + pages - 1) // share
    tl.store(spans_ptr + 2 * sequence, first, mask=known)
    tl.store(spans_ptr + 2 * sequence + 1, last - first + 1, mask=known)

    part = tl.arange(0, PARTS)
    beyond = (part <= parts) & (part * share >= tl.sum(cost, 0))
    tl.store(starts_ptr + 2 * part, batch, mask=beyond)
    tl.store(starts_ptr + 2 * part + 1, 0, mask=beyond)
    begun = tl.cdiv(start, share)
    for more in range(tl.cdiv(tl.max(cost, 0), share) + 1):
        number = begun + more
        page = number * share - start
        within = known & (number * share < end)
        inside = page < pages
        tl.store(starts_ptr + 2 * number, tl.where(inside, sequence, sequence + 1), mask=within)
        tl.store(starts_ptr + 2 * number + 1, tl.where(inside, page, 0), mask=within)


@jit(do_not_specialize=["rows"])
def merge_pieces(
    parts_ptr, lse_ptr, spans_ptr, o_ptr, rows,
    EACH: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """o [B, M, C] of sequences in several parts, from [P, 2, M, C] weighted by 2^lse; each program COLUMNS of EACH
    rows, CHUNK pieces at a time."""
    sequence = tl.program_id(1)
    first = tl.load(spans_ptr + 2 * sequence)
    count = tl.load(spans_ptr + 2 * sequence + 1)
    if count > 1:
        split: tl.constexpr = C // COLUMNS
        column = tl.program_id(0) % split * COLUMNS + tl.arange(0, COLUMNS)
        begun = tl.program_id(0) // split * EACH
        for row in range(begun, tl.minimum(begun + EACH, rows)):
            top, total = -1e30, 0.0
            merged = tl.zeros([COLUMNS], tl.float32)
            for begin in range(0, count, CHUNK):
                piece = begin + tl.arange(0, CHUNK)
                kept = 2 * (first + piece) + tl.where(piece == 0, 1, 0)
                place = kept.to(tl.int64) * rows + row
                lse = tl.load(lse_ptr + place, mask=piece < count, other=float("-inf"))
                part = tl.load(
                    parts_ptr + place[:, None] * C + column[None, :], mask=(piece < count)[:, None], other=0.0
                )
                new = tl.maximum(top, tl.max(lse, 0))
                weight, shrink = tl.exp2(lse - new), tl.exp2(top - new)
                merged = merged * shrink + tl.sum(part * weight[:, None], 0)
                total = total * shrink + tl.sum(weight, 0)
                top = new
            place = (sequence * rows + row).to(tl.int64) * C + column
            tl.store(o_ptr + place, (merged / total).to(o_ptr.dtype.element_ty))


def planned(lengths_B: Tensor, parts: int, page: int = 64) -> Plan:
    """A plan for `parts` programs and sequences of `lengths` (int32, at least 1) tokens in pages of `page`."""
    batch = len(lengths_B)
    starts = torch.empty(parts + 1, 2, dtype=torch.int32, device=lengths_B.device)
    spans = torch.empty(batch, 2, dtype=torch.int32, device=lengths_B.device)
    plan_parts[(1,)](
        lengths_B, starts, spans, batch, parts, SLACK,
        PAGE=page, OVERHEAD=OVERHEAD, LEAST=LEAST, BATCH=1 << (batch - 1).bit_length(), PARTS=1 << parts.bit_length(),
    )  # fmt: skip
    return Plan(starts, spans)


def merge(parts: Tensor, lse: Tensor, plan: Plan, o_BMC: Tensor) -> None:
    """Write to `o` what sequences in several parts come to; the others are there already."""
    batch, rows, latent = o_BMC.shape
    each = EACH if batch * rows > ROWS else 1
    chunk, columns = MERGE_MANY if plan.parts > MANY * batch else MERGE_FEW
    merge_pieces[(-(-rows // each) * (latent // columns), batch)](
        parts, lse, plan.spans, o_BMC, rows, EACH=each, CHUNK=chunk, COLUMNS=columns, C=latent
    )
