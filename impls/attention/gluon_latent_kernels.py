"""A Gluon kernel for Hopper: MLA decode over pages of a latent cache, warp specialized and persistent.

A program takes a block of query rows (new tokens x heads) and a part of all pages, which may begin and end inside a
sequence (gluon_latent_plan.py); what lies between is a piece. Its warps have one task each and meet at barriers:

    _copy     one warp: pages into a ring of rooms, each half of the latents of 64 tokens; rotated keys in a ring of
              their own. Of an FP8 cache, halves as they are stored into a third ring
    _convert  a warp group, FP8 only: latents times scales, in FP16, into the rooms
    _score    a warp group: scores, online softmax in base 2; hands on weights and the factor that sums shrink by
    _weigh    two warp groups: half of the latents each, weighted sums in registers, written where a piece ends

So products of the next page's scores run beside those of this page's sums, and a page is read from shared memory twice.
To begin them before the softmax cost a third more time at 128 heads: its page comes later than the softmax could begin.
Hopper's matrix instruction has 64 rows. TURNED, for 16 or 32 query rows: tokens or latents are there, S^T = K q^T and
O^T = K^T P^T, and nothing is wasted. Else 64 query rows are there.

Shape suffixes: M = ROWS query rows of the block, N = 64 tokens of a page, H = 256 latents (a half), R = 64 rotated; S
and O end in NM or HM where TURNED, in MN or MH else.
"""

from __future__ import annotations

from ..gluon_jit import gl, hopper, jit, mbarrier, tma
from .gluon_latent_pages import _convert, _copy, _piece, _room, _sequences

RUNTIME = ["rows", "heads", "table_stride"]


@jit
def _product(keys, queries, s, TURNED: gl.constexpr, ADD: gl.constexpr):
    """Begin to multiply 64 tokens' keys and the block's queries."""
    if TURNED:
        s = hopper.warpgroup_mma(keys, queries.permute((1, 0)), s, use_acc=ADD, is_async=True)
    else:
        s = hopper.warpgroup_mma(queries, keys.permute((1, 0)), s, use_acc=ADD, is_async=True)
    return s


@jit
def _lowered(q_rooms, RAISED: gl.constexpr):
    """Queries in BF16, in their place, in FP16 by RAISED."""
    spread: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    for half in gl.static_range(2):
        for part in gl.static_range(4):
            columns = q_rooms.index(half).slice(part * 64, 64, dim=1)
            lowered = columns.load(spread).to(gl.float32) * (1.0 / RAISED)
            _half(q_rooms, half, True).slice(part * 64, 64, dim=1).store(lowered.to(gl.float16))
    hopper.fence_async_shared()
    gl.thread_barrier()


@jit
def _half(q_rooms, half: gl.constexpr, FP8: gl.constexpr):
    """A half of the queries, as what is in there."""
    room = q_rooms.index(half)
    if FP8:
        sizes: gl.constexpr = [q_rooms.shape[1], 256]
        room = room._reinterpret(gl.float16, sizes, gl.NVMMASharedLayout.get_default_for(sizes, gl.float16))
    return room


@jit
def _fetch(queries, row, turn, FP8: gl.constexpr, RAISED: gl.constexpr):
    """The block's queries, once they are here; those before are not read any more."""
    q_latent, q_rope, q_rooms, q_turned, q_full = queries
    filled = q_full.index(0)
    mbarrier.expect(filled, 2 * q_latent.block_type.nbytes + q_rope.block_type.nbytes)
    tma.async_copy_global_to_shared(q_latent, [row, 0], filled, q_rooms.index(0))
    tma.async_copy_global_to_shared(q_latent, [row, 256], filled, q_rooms.index(1))
    tma.async_copy_global_to_shared(q_rope, [row, 512], filled, q_turned.index(0))
    mbarrier.wait(filled, turn)
    if FP8:
        _lowered(q_rooms, RAISED)


@jit
def _products(
    queries, ring, s, count, TURNED: gl.constexpr, ROOMS: gl.constexpr, STORED: gl.constexpr, FP8: gl.constexpr
):
    """Scores of the page that is next, unscaled, in the registers of `s`; each part as soon as it is here."""
    rooms, ropes, gates = ring[0]
    stage = count % STORED
    mbarrier.wait(gates.index(2 * ROOMS + stage), count // STORED & 1)
    s = _product(ropes.index(stage), queries[3].index(0), s, TURNED, False)
    for half in gl.static_range(2):
        room, turn = _room(2 * count + half, ROOMS)
        mbarrier.wait(gates.index(room), turn)
        s = _product(rooms.index(room), _half(queries[2], half, FP8), s, TURNED, True)
    s = hopper.warpgroup_mma_wait(0, deps=(s,))
    mbarrier.arrive(gates.index(2 * ROOMS + STORED + stage), count=1)
    return s


@jit
def _announce(post, number, factor_M, SLOTS: gl.constexpr):
    """The factor of message `number`. Its place is free: the message that was there has been answered, or the last one
    could not have been sent."""
    factors, told = post[1], post[4]
    place = number % (SLOTS + 1)
    factors.index(place).store(factor_M)
    gl.thread_barrier()
    mbarrier.arrive(told.index(place), count=1)


@jit
def _told(post, number, of_rows: gl.constexpr, SLOTS: gl.constexpr):
    """The factor of message `number`, by rows."""
    factors, told = post[1], post[4]
    place = number % (SLOTS + 1)
    mbarrier.wait(told.index(place), number // (SLOTS + 1) & 1)
    return factors.index(place).load(of_rows)


@jit
def _send(post, number, p, WEIGHTS: gl.constexpr, TURNED: gl.constexpr, SLOTS: gl.constexpr):
    """The rest of message `number`, WEIGHTS or nothing, once both that read messages are done with its slot."""
    weights, sent_full, sent_free = post[0], post[2], post[3]
    slot = number % SLOTS
    mbarrier.wait(sent_free.index(slot), number // SLOTS & 1 ^ 1)
    if WEIGHTS:
        if TURNED:
            weights.index(slot).permute((1, 0)).store(p.to(weights.dtype))
        else:
            weights.index(slot).store(p.to(weights.dtype))
        hopper.fence_async_shared()
        gl.thread_barrier()
    mbarrier.arrive(sent_full.index(slot), count=1)


@jit
def _soften(s, softmax, post, number, scale, TOKENS: gl.constexpr, TURNED: gl.constexpr, SLOTS: gl.constexpr):
    """One page's step of the online softmax over scores: sends weights, and what to shrink the sums by. `softmax`: the
    largest score so far and the sum of weights, by query row (TURNED: by place in `s`)."""
    top_M, total = softmax
    new_M = gl.maximum(gl.maximum(top_M, gl.max(s, TOKENS) * scale), -1e30)
    shrink_M = gl.exp2(top_M - new_M)
    _announce(post, number, shrink_M, SLOTS)
    p = gl.exp2(s * scale - gl.expand_dims(new_M, TOKENS))
    total = total * gl.expand_dims(shrink_M, TOKENS) + p if TURNED else total * shrink_M + gl.sum(p, TOKENS)
    _send(post, number, p, True, TURNED, SLOTS)
    return new_M, total


@jit
def _score(
    queries, lse_ptr, places, ring, post, scale,
    ROWS: gl.constexpr, ROOMS: gl.constexpr, STORED: gl.constexpr, SLOTS: gl.constexpr,
    FP8: gl.constexpr, RAISED: gl.constexpr,
):  # fmt: skip
    """The warps that make weights of scores. For each page they send weights and what to shrink the sums by, and at a
    piece's end the factor that the sums must have. `scale` includes log2(e)."""
    TURNED: gl.constexpr = ROWS < 64
    TOKENS: gl.constexpr = 0 if TURNED else 1
    shape: gl.constexpr = [64, ROWS] if TURNED else [ROWS, 64]
    mma: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, shape[1], 16])
    of_rows: gl.constexpr = gl.SliceLayout(TOKENS, mma)
    rows, heads, part, block = places[4][0], places[4][1], places[5], places[6]
    row_M = block * ROWS + gl.arange(0, ROWS, of_rows)
    token_N = gl.arange(0, 64, gl.SliceLayout(1 - TOKENS, mma))
    first, after = _sequences(places)
    count, pieces = 0, 0
    for sequence in range(first, after):
        length, pages, begin, stop = _piece(places, sequence)
        if begin < stop:
            _fetch(queries, sequence * rows + block * ROWS, pieces & 1, FP8, RAISED)
            limit_M = length + gl.minimum(row_M // heads + 1, rows // heads) - rows // heads
            top_M = gl.full([ROWS], float("-inf"), gl.float32, of_rows)
            total = gl.zeros(shape, gl.float32, mma) if TURNED else gl.zeros([ROWS], gl.float32, of_rows)
            s = gl.zeros(shape, gl.float32, mma)
            for page in range(begin, stop):
                s = _products(queries, ring, s, count, TURNED, ROOMS, STORED, FP8)
                seen = gl.expand_dims(page * 64 + token_N, 1 - TOKENS) < gl.expand_dims(limit_M, TOKENS)
                s = gl.where(seen, s, float("-inf"))
                top_M, total = _soften(s, (top_M, total), post, count + pieces, scale, TOKENS, TURNED, SLOTS)
                count += 1
            total_M = gl.sum(total, TOKENS) if TURNED else total
            factor_M = (1.0 / RAISED) / gl.maximum(total_M, 1e-30)
            _announce(post, count + pieces, factor_M, SLOTS)
            _send(post, count + pieces, s, False, TURNED, SLOTS)
            pieces += 1
            if (begin > 0) | (stop < pages):
                kept = 2 * part + gl.where(begin == 0, 1, 0)
                gl.store(lse_ptr + kept * rows + row_M, top_M + gl.log2(total_M), mask=row_M < rows)


@jit
def _sum(p, values, o, TURNED: gl.constexpr):
    """Begin to add 64 tokens' weighted values, 128 latents of them."""
    if TURNED:
        o = hopper.warpgroup_mma(values.permute((1, 0)), p.permute((1, 0)), o, is_async=True)
    else:
        o = hopper.warpgroup_mma(p, values, o, is_async=True)
    return o


@jit
def _leave(room, o, whole_ptr, piece_ptr, cut, rows, ROWS: gl.constexpr, TURNED: gl.constexpr):
    """Write sums of 128 latents to `rows` rows of 512, through shared memory, so that a row leaves as a whole."""
    spread: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [4, 1], [1, 0])
    tile = room._reinterpret(gl.float32, [ROWS, 128], gl.NVMMASharedLayout.get_default_for([ROWS, 128], gl.float32))
    gl.thread_barrier()
    if TURNED:
        tile.permute((1, 0)).store(o)
    else:
        tile.store(o)
    gl.thread_barrier()
    column_H = gl.arange(0, 128, gl.SliceLayout(0, spread))
    for strip in gl.static_range(ROWS // 16):
        row_M = strip * 16 + gl.arange(0, 16, gl.SliceLayout(1, spread))
        values = tile.slice(strip * 16, 16).load(spread)
        at = gl.expand_dims(row_M * 512, 1) + gl.expand_dims(column_H, 0)
        inside = gl.expand_dims(row_M < rows, 1)
        if cut:
            gl.store(piece_ptr + at, values, mask=inside)
        else:
            gl.store(whole_ptr + at, values.to(whole_ptr.dtype.element_ty), mask=inside)


@jit
def _weigh(
    o_ptr, parts_ptr, places, ring, post, HALF: gl.constexpr,
    ROWS: gl.constexpr, ROOMS: gl.constexpr, SLOTS: gl.constexpr,
):  # fmt: skip
    """The warps that sum half of the latents by their weights, and write the sums of each piece: to `o` where it is a
    whole sequence, else to the part's first place, or to its second when the sequence begins in this part."""
    TURNED: gl.constexpr = ROWS < 64
    LATENTS: gl.constexpr = 0 if TURNED else 1
    shape: gl.constexpr = [128, ROWS] if TURNED else [ROWS, 128]
    mma: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, shape[1], 16])
    of_rows: gl.constexpr = gl.SliceLayout(LATENTS, mma)
    rows, part, block = places[4][0], places[5], places[6]
    rooms, _ropes, gates = ring[0]
    weights, sent_full, sent_free = post[0], post[2], post[3]
    first, after = _sequences(places)
    count, got = 0, 0
    for sequence in range(first, after):
        _length, pages, begin, stop = _piece(places, sequence)
        if begin < stop:
            low = gl.zeros(shape, gl.float32, mma)
            high = gl.zeros(shape, gl.float32, mma)
            for page in range(begin, stop):
                slot = got % SLOTS
                room, _turn = _room(2 * count + HALF, ROOMS)
                shrink = gl.expand_dims(_told(post, got, of_rows, SLOTS), LATENTS)
                low, high = low * shrink, high * shrink
                mbarrier.wait(sent_full.index(slot), got // SLOTS & 1)
                low = _sum(weights.index(slot), rooms.index(room).slice(0, 128, dim=1), low, TURNED)
                high = _sum(weights.index(slot), rooms.index(room).slice(128, 128, dim=1), high, TURNED)
                low, high = hopper.warpgroup_mma_wait(0, deps=(low, high))
                mbarrier.arrive(gates.index(ROOMS + room), count=1, pred=page + 1 < stop)
                mbarrier.arrive(sent_free.index(slot), count=1)
                count += 1
                got += 1
            last, _turn = _room(2 * count - 2 + HALF, ROOMS)
            factor = gl.expand_dims(_told(post, got, of_rows, SLOTS), LATENTS)
            low, high = low * factor, high * factor
            mbarrier.wait(sent_full.index(got % SLOTS), got // SLOTS & 1)  # no answer before it is expected
            mbarrier.arrive(sent_free.index(got % SLOTS), count=1)
            got += 1
            room = rooms.index(last)
            cut = (begin > 0) | (stop < pages)
            kept = 2 * part + gl.where(begin == 0, 1, 0)
            # The last term is 0, and keeps the compiler from computing all addresses once, into registers.
            row = block * ROWS + (stop >> 30)
            whole_ptr = o_ptr + ((sequence.to(gl.int64) * rows + row) * 512 + HALF * 256)
            piece_ptr = parts_ptr + ((kept * rows + row) * 512 + HALF * 256)
            _leave(room, low, whole_ptr, piece_ptr, cut, rows - row, ROWS, TURNED)
            _leave(room, high, whole_ptr + 128, piece_ptr + 128, cut, rows - row, ROWS, TURNED)
            hopper.fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(gates.index(ROOMS + last), count=1)


@jit
def _barriers(number: gl.constexpr, count: gl.constexpr, others: gl.constexpr = 0, of_others: gl.constexpr = 1):
    """So many barriers that each wait for `count` arrivals, and then others."""
    made = gl.allocate_shared_memory(gl.int64, [number + others, 1], mbarrier.MBarrierLayout())
    for index in gl.static_range(number + others):
        mbarrier.init(made.index(index), count=count if index < number else of_others)
    return made


@jit
def _rings(
    dtype: gl.constexpr, summed: gl.constexpr, latents, scales,
    ROOMS: gl.constexpr, STORED: gl.constexpr, HALVES: gl.constexpr, FP8: gl.constexpr,
):  # fmt: skip
    """Rooms, rotated keys and their gates; and of an FP8 cache what is stored, its scales and gates."""
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 256], summed)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 64], dtype)
    rooms = gl.allocate_shared_memory(summed, [ROOMS, 64, 256], wide)
    ropes = gl.allocate_shared_memory(dtype, [STORED, 64, 64], narrow)
    gates = _barriers(2 * ROOMS + STORED, 1, STORED, 2 if FP8 else 1)
    if FP8:
        stored = gl.allocate_shared_memory(latents.dtype, [HALVES, 64, 256], latents.layout)
        scaling = gl.allocate_shared_memory(gl.float32, [STORED, 64, 4], scales.layout)
        stored_gates = _barriers(2 * HALVES, 1)
    else:
        stored, scaling, stored_gates = rooms, ropes, gates
    return (rooms, ropes, gates), (stored, scaling, stored_gates)


@jit
def _post(summed: gl.constexpr, q_rope, ROWS: gl.constexpr, SLOTS: gl.constexpr):
    """Weights and factors under way, and their barriers."""
    plain: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    weights = gl.allocate_shared_memory(summed, [SLOTS, ROWS, 64], q_rope.layout)
    factors = gl.allocate_shared_memory(gl.float32, [SLOTS + 1, ROWS], plain)
    return weights, factors, _barriers(SLOTS, 1), _barriers(SLOTS, 2), _barriers(SLOTS + 1, 1)


@jit(do_not_specialize=RUNTIME)
def attend(
    q_latent, q_rope, latents, scales, rope, table_ptr, lengths_ptr, starts_ptr, o_ptr, parts_ptr, lse_ptr,
    scale, rows, heads, table_stride, blocks,
    ROWS: gl.constexpr, FP8: gl.constexpr, RAISED: gl.constexpr,
    ROOMS: gl.constexpr, STORED: gl.constexpr, HALVES: gl.constexpr, SLOTS: gl.constexpr,
    SUM_REGISTERS: gl.constexpr, CONVERT_REGISTERS: gl.constexpr, COPY_REGISTERS: gl.constexpr,
):  # fmt: skip
    """Programs (part x block of rows). `q` [B x M, 576] and the pages' slots as asynchronous copies of [ROWS or 64,
    256] and of [.., 64], scales [slots, 4] of [64, 4]; `o` [B, M, 512], `parts` [parts, 2, M, 512] and `lse` [parts, 2,
    M] in FP32. ROOMS hold half a page's latents each, STORED pages' rotated keys (FP8: and scales) are kept, and HALVES
    of the FP8 latents that are RAISED; SLOTS messages may be under way."""
    part, block = gl.program_id(0) // blocks, gl.program_id(0) % blocks
    summed: gl.constexpr = gl.float16 if FP8 else q_latent.dtype
    q_rooms = gl.allocate_shared_memory(q_latent.dtype, [2, ROWS, 256], q_latent.layout)
    q_turned = gl.allocate_shared_memory(q_latent.dtype, [1, ROWS, 64], q_rope.layout)
    ring = _rings(q_latent.dtype, summed, latents, scales, ROOMS, STORED, HALVES, FP8)
    post = _post(summed, q_rope, ROWS, SLOTS)
    queries = (q_latent, q_rope, q_rooms, q_turned, _barriers(1, 1))
    hopper.fence_async_shared()
    places = (starts_ptr, lengths_ptr, table_ptr, table_stride, (rows, heads), part, block)
    cache = (latents, scales, rope)
    if FP8:
        gl.warp_specialize(
            [
                (_score, (queries, lse_ptr, places, ring, post, scale, ROWS, ROOMS, STORED, SLOTS, FP8, RAISED)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 0, ROWS, ROOMS, SLOTS)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 1, ROWS, ROOMS, SLOTS)),
                (_convert, (places, ring, ROOMS, STORED, HALVES, RAISED)),
                (_copy, (cache, places, ring, ROOMS, STORED, HALVES, FP8)),
            ],
            [4, 4, 4, 1],
            [SUM_REGISTERS, SUM_REGISTERS, CONVERT_REGISTERS, COPY_REGISTERS],
        )
    else:
        gl.warp_specialize(
            [
                (_score, (queries, lse_ptr, places, ring, post, scale, ROWS, ROOMS, STORED, SLOTS, FP8, RAISED)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 0, ROWS, ROOMS, SLOTS)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 1, ROWS, ROOMS, SLOTS)),
                (_copy, (cache, places, ring, ROOMS, STORED, HALVES, FP8)),
            ],
            [4, 4, 1],
            [SUM_REGISTERS, SUM_REGISTERS, COPY_REGISTERS],
        )
