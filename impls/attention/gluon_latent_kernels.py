"""A Gluon kernel for Hopper: MLA decode over pages of a latent cache, warp specialized and persistent.

A program takes a block of query rows (new tokens x heads) and a part of all pages, which may begin and end inside a
sequence (gluon_latent_plan.py); what lies between is a piece. Its warps have one task each and meet at barriers:

    _copy     one warp: pages into a ring of rooms, each half of the latents of 64 tokens; rotated keys in a ring of
              their own. Of an FP8 cache, whole pages as they are stored, with their scales
    _convert  a warp group, FP8 only: latents times scales, in FP16, into the rooms
    _score    a warp group: scores, online softmax in base 2; hands on weights and the factor that sums shrink by
    _weigh    two warp groups: half of the latents each, weighted sums in registers, written where a piece ends

So products of the next page's scores run beside those of this page's sums, and a page is read from shared memory twice.
An E4M3 value is exact in FP16, one instruction makes two, and one more multiplies them; BF16 would take a way over FP32,
three times as many. FP16 holds latents times RAISED; queries are divided by it, and sums in the end. Rotated keys stay as they are.
Hopper's matrix instruction has 64 rows. TURNED, for 16 or 32 query rows: tokens or latents are there, S^T = K q^T and
O^T = K^T P^T, and nothing is wasted. Else 64 query rows are there.

Shape suffixes: M = ROWS query rows of the block, N = 64 tokens of a page, H = 256 latents (a half), R = 64 rotated; S
and O end in NM or HM where TURNED, in MN or MH else.
"""

from __future__ import annotations

from ..gluon_jit import gl, hopper, jit, mbarrier, tma

RUNTIME = ["rows", "heads", "table_stride"]


@jit
def _sequences(places):
    """The first sequence that a part has pages of, and the one after the last."""
    at_ptr = places[0] + 2 * places[5]
    return gl.load(at_ptr), gl.load(at_ptr + 2) + gl.where(gl.load(at_ptr + 3) > 0, 1, 0)


@jit
def _piece(places, sequence):
    """Of a sequence: its length, its pages, the first page of the part and the page after its last. Registers are
    scarce: the part's ends are read each time, at addresses that cannot be computed once (no sequence is 2^30)."""
    at_ptr = places[0] + (2 * places[5] + (sequence >> 30))
    length = gl.load(places[1] + sequence)
    pages = gl.cdiv(length, 64)
    begin = gl.where(sequence == gl.load(at_ptr), gl.load(at_ptr + 1), 0)
    stop = gl.where(sequence == gl.load(at_ptr + 2), gl.minimum(gl.load(at_ptr + 3), pages), pages)
    return length, pages, begin, stop


@jit
def _room(half, ROOMS: gl.constexpr):
    """Where a half page goes, and its turn there. With two rooms the place never changes, which the compiler must not
    see (no half is that far): it would keep the addresses of all products in registers."""
    return half % ROOMS + (half >> 30), half // ROOMS & 1


@jit
def _copy(cache, places, ring, ROOMS: gl.constexpr, STORED: gl.constexpr, FP8: gl.constexpr):
    """The warp that fills the rings."""
    latents, scales, rope = cache
    table_ptr, table_stride = places[2], places[3]
    rooms, stored, factors, ropes, full, free, rope_full, rope_free = ring
    first, after = _sequences(places)
    count = 0
    for sequence in range(first, after):
        _length, pages, begin, stop = _piece(places, sequence)
        row_ptr = table_ptr + sequence.to(gl.int64) * table_stride
        following = gl.load(row_ptr + gl.minimum(begin, pages - 1))
        for page in range(begin, stop):
            slot = following * 64
            following = gl.load(row_ptr + gl.minimum(page + 1, pages - 1))
            stage, turn = count % STORED, count // STORED & 1
            filled = rope_full.index(stage)
            mbarrier.wait(rope_free.index(stage), turn ^ 1)
            if FP8:
                mbarrier.expect(filled, rope.block_type.nbytes + latents.block_type.nbytes + scales.block_type.nbytes)
                tma.async_copy_global_to_shared(latents, [slot, 0], filled, stored.index(stage))
                tma.async_copy_global_to_shared(scales, [slot, 0], filled, factors.index(stage))
                tma.async_copy_global_to_shared(rope, [slot, 0], filled, ropes.index(stage))
            else:
                mbarrier.expect(filled, rope.block_type.nbytes)
                tma.async_copy_global_to_shared(rope, [slot, 512], filled, ropes.index(stage))
                for half in gl.static_range(2):
                    room, turn = _room(2 * count + half, ROOMS)
                    mbarrier.wait(free.index(room), turn ^ 1)
                    mbarrier.expect(full.index(room), latents.block_type.nbytes)
                    tma.async_copy_global_to_shared(latents, [slot, half * 256], full.index(room), rooms.index(room))
            count += 1


@jit
def _scaled(values, factor):
    """FP16 of E4M3 values times `factor` in FP16, four neighbours at a time."""
    return gl.inline_asm_elementwise(
        """{
        .reg .b16 low, high;
        .reg .b32 first, second;
        mov.b32 {low, high}, $2;
        cvt.rn.f16x2.e4m3x2 first, low;
        cvt.rn.f16x2.e4m3x2 second, high;
        mul.rn.f16x2 $0, first, $3;
        mul.rn.f16x2 $1, second, $4;
        }""",
        "=r,=r,r,r,r",
        [values, factor],
        dtype=gl.float16,
        is_pure=True,
        pack=4,
    )


@jit
def _convert(places, ring, ROOMS: gl.constexpr, STORED: gl.constexpr, RAISED: gl.constexpr):
    """The warps that write E4M3 latents times their scales and RAISED to the rooms."""
    spread: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    rooms, stored, factors, _ropes, full, free, rope_full, rope_free = ring
    first, after = _sequences(places)
    count = 0
    for sequence in range(first, after):
        _length, _pages, begin, stop = _piece(places, sequence)
        for _page in range(begin, stop):
            stage = count % STORED
            mbarrier.wait(rope_full.index(stage), count // STORED & 1)
            for half in gl.static_range(2):
                room, turn = _room(2 * count + half, ROOMS)
                mbarrier.wait(free.index(room), turn ^ 1)
                for group in gl.static_range(2):
                    values = stored.index(stage).slice((2 * half + group) * 128, 128, dim=1).load(spread)
                    factor = factors.index(stage).slice(2 * half + group, 1, dim=1).load(spread)
                    factor = gl.minimum(factor * RAISED, 65504.0 / 448).to(gl.float16)
                    rooms.index(room).slice(group * 128, 128, dim=1).store(_scaled(values, factor))
                hopper.fence_async_shared()
                gl.thread_barrier()
                mbarrier.arrive(full.index(room), count=1)
            mbarrier.arrive(rope_free.index(stage), count=1)
            count += 1


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
    q_turned, rooms, ropes, full = queries[3], ring[0], ring[3], ring[4]
    stage = count % STORED
    low, low_turn = _room(2 * count, ROOMS)
    high, high_turn = _room(2 * count + 1, ROOMS)
    mbarrier.wait(ring[6].index(stage), count // STORED & 1)
    s = _product(ropes.index(stage), q_turned.index(0), s, TURNED, False)
    mbarrier.wait(full.index(low), low_turn)
    s = _product(rooms.index(low), _half(queries[2], 0, FP8), s, TURNED, True)
    mbarrier.wait(full.index(high), high_turn)
    s = _product(rooms.index(high), _half(queries[2], 1, FP8), s, TURNED, True)
    s = hopper.warpgroup_mma_wait(0, deps=(s,))
    mbarrier.arrive(ring[7].index(stage), count=1)
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
def _score(
    queries, lse_ptr, places, ring, post, scale,
    ROWS: gl.constexpr, TURNED: gl.constexpr, ROOMS: gl.constexpr, STORED: gl.constexpr, SLOTS: gl.constexpr,
    FP8: gl.constexpr, RAISED: gl.constexpr,
):  # fmt: skip
    """The warps that make weights of scores. For each page they send weights and what to shrink the sums by, and at a
    piece's end the factor that the sums must have. `scale` includes log2(e)."""
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
            total_M = gl.zeros([ROWS], gl.float32, of_rows)
            sums = gl.zeros(shape, gl.float32, mma)
            s = gl.zeros(shape, gl.float32, mma)
            for page in range(begin, stop):
                s = _products(queries, ring, s, count, TURNED, ROOMS, STORED, FP8)
                seen = gl.expand_dims(page * 64 + token_N, 1 - TOKENS) < gl.expand_dims(limit_M, TOKENS)
                s = gl.where(seen, s, float("-inf"))
                new_M = gl.maximum(gl.maximum(top_M, gl.max(s, TOKENS) * scale), -1e30)
                shrink_M = gl.exp2(top_M - new_M)
                _announce(post, count + pieces, shrink_M, SLOTS)
                p = gl.exp2(s * scale - gl.expand_dims(new_M, TOKENS))
                top_M = new_M
                if TURNED:
                    sums = sums * gl.expand_dims(shrink_M, TOKENS) + p
                else:
                    total_M = total_M * shrink_M + gl.sum(p, TOKENS)
                _send(post, count + pieces, p, True, TURNED, SLOTS)
                count += 1
            if TURNED:
                total_M = gl.sum(sums, TOKENS)
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
    ROWS: gl.constexpr, TURNED: gl.constexpr, ROOMS: gl.constexpr, SLOTS: gl.constexpr,
):  # fmt: skip
    """The warps that sum half of the latents by their weights, and write the sums of each piece: to `o` where it is a
    whole sequence, else to the part's first place, or to its second when the sequence begins in this part."""
    LATENTS: gl.constexpr = 0 if TURNED else 1
    shape: gl.constexpr = [128, ROWS] if TURNED else [ROWS, 128]
    mma: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, shape[1], 16])
    of_rows: gl.constexpr = gl.SliceLayout(LATENTS, mma)
    rows, part, block = places[4][0], places[5], places[6]
    rooms, free = ring[0], ring[5]
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
                mbarrier.arrive(free.index(room), count=1, pred=page + 1 < stop)
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
            mbarrier.arrive(free.index(last), count=1)


@jit
def _barriers(number: gl.constexpr, count: gl.constexpr):
    """So many barriers that each wait for `count` arrivals."""
    made = gl.allocate_shared_memory(gl.int64, [number, 1], mbarrier.MBarrierLayout())
    for index in gl.static_range(number):
        mbarrier.init(made.index(index), count=count)
    return made


@jit(do_not_specialize=RUNTIME)
def attend(
    q_latent, q_rope, latents, scales, rope, table_ptr, lengths_ptr, starts_ptr, o_ptr, parts_ptr, lse_ptr,
    scale, rows, heads, table_stride, blocks,
    ROWS: gl.constexpr, FP8: gl.constexpr, RAISED: gl.constexpr,
    ROOMS: gl.constexpr, STORED: gl.constexpr, SLOTS: gl.constexpr,
    SUM_REGISTERS: gl.constexpr, CONVERT_REGISTERS: gl.constexpr, COPY_REGISTERS: gl.constexpr,
):  # fmt: skip
    """Programs (part x block of rows). `q` [B x M, 576] and the pages' slots as asynchronous copies of [ROWS or 64, 256
    (512 of E4M3)] and of [.., 64], scales [slots, 4] of [64, 4]; `o` [B, M, 512], `parts` [parts, 2, M, 512] and `lse`
    [parts, 2, M] in FP32. ROOMS hold half a page's latents each, STORED pages' rotated keys are kept, and in FP8 what
    is stored of them; SLOTS messages may be under way."""
    TURNED: gl.constexpr = ROWS < 64
    part, block = gl.program_id(0) // blocks, gl.program_id(0) % blocks
    dtype: gl.constexpr = q_latent.dtype
    summed: gl.constexpr = gl.float16 if FP8 else dtype
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 256], summed)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 64], dtype)
    plain: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    q_rooms = gl.allocate_shared_memory(dtype, [2, ROWS, 256], q_latent.layout)
    q_turned = gl.allocate_shared_memory(dtype, [1, ROWS, 64], q_rope.layout)
    rooms = gl.allocate_shared_memory(summed, [ROOMS, 64, 256], wide)
    ropes = gl.allocate_shared_memory(dtype, [STORED, 64, 64], narrow)
    weights = gl.allocate_shared_memory(summed, [SLOTS, ROWS, 64], q_rope.layout)
    factors = gl.allocate_shared_memory(gl.float32, [SLOTS + 1, ROWS], plain)
    full, free = _barriers(ROOMS, 1), _barriers(ROOMS, 1)
    rope_full, rope_free = _barriers(STORED, 1), _barriers(STORED, 2 if FP8 else 1)
    sent_full, sent_free = _barriers(SLOTS, 1), _barriers(SLOTS, 2)
    told, q_full = _barriers(SLOTS + 1, 1), _barriers(1, 1)
    if FP8:
        stored = gl.allocate_shared_memory(latents.dtype, [STORED, 64, 512], latents.layout)
        scaling = gl.allocate_shared_memory(gl.float32, [STORED, 64, 4], scales.layout)
    else:
        stored, scaling = rooms, factors
    hopper.fence_async_shared()
    queries = (q_latent, q_rope, q_rooms, q_turned, q_full)
    places = (starts_ptr, lengths_ptr, table_ptr, table_stride, (rows, heads), part, block)
    ring = (rooms, stored, scaling, ropes, full, free, rope_full, rope_free)
    post = (weights, factors, sent_full, sent_free, told)
    cache = (latents, scales, rope)
    if FP8:
        gl.warp_specialize(
            [
                (_score, (queries, lse_ptr, places, ring, post, scale, ROWS, TURNED, ROOMS, STORED, SLOTS, FP8, RAISED)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 0, ROWS, TURNED, ROOMS, SLOTS)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 1, ROWS, TURNED, ROOMS, SLOTS)),
                (_convert, (places, ring, ROOMS, STORED, RAISED)),
                (_copy, (cache, places, ring, ROOMS, STORED, FP8)),
            ],
            [4, 4, 4, 1],
            [SUM_REGISTERS, SUM_REGISTERS, CONVERT_REGISTERS, COPY_REGISTERS],
        )
    else:
        gl.warp_specialize(
            [
                (_score, (queries, lse_ptr, places, ring, post, scale, ROWS, TURNED, ROOMS, STORED, SLOTS, FP8, RAISED)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 0, ROWS, TURNED, ROOMS, SLOTS)),
                (_weigh, (o_ptr, parts_ptr, places, ring, post, 1, ROWS, TURNED, ROOMS, SLOTS)),
                (_copy, (cache, places, ring, ROOMS, STORED, FP8)),
            ],
            [4, 4, 1],
            [SUM_REGISTERS, SUM_REGISTERS, COPY_REGISTERS],
        )
