"""The Gluon decode kernel's supply for Hopper: which pages a program has, their copies, and FP8 latents made FP16.

The warps here fill the rings that gluon_latent_kernels.py empties; that module's head says how both meet. An E4M3 value
is exact in FP16: one instruction makes two of them and one more multiplies both. BF16 would take a way over FP32, three
times as many conversions, of which a processor makes 64 a clock. FP16 holds latents times RAISED; queries are divided
by it, and sums in the end. Rotated keys stay as they are.

A ring comes with its gates, barriers: which of its rooms are full, then which are free; `ring[0]`: rooms and rotated
keys, whose gates follow one another, `ring[1]`: FP8 latents as stored, and scales, which come with rotated keys.
"""

from __future__ import annotations

from ..gluon_jit import gl, hopper, jit, mbarrier, tma


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
def _copy(
    cache, places, ring,
    ROOMS: gl.constexpr, STORED: gl.constexpr, HALVES: gl.constexpr, FP8: gl.constexpr,
):  # fmt: skip
    """The warp that fills the rings: of rotated keys (FP8: and scales), and of halves of latents as they are stored."""
    latents, scales, rope = cache
    table_ptr, table_stride = places[2], places[3]
    rooms, ropes, gates = ring[0]
    stored, factors, stored_gates = ring[1]
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
            filled = gates.index(2 * ROOMS + stage)
            mbarrier.wait(gates.index(2 * ROOMS + STORED + stage), turn ^ 1)
            if FP8:
                mbarrier.expect(filled, rope.block_type.nbytes + scales.block_type.nbytes)
                tma.async_copy_global_to_shared(scales, [slot, 0], filled, factors.index(stage))
                tma.async_copy_global_to_shared(rope, [slot, 0], filled, ropes.index(stage))
            else:
                mbarrier.expect(filled, rope.block_type.nbytes)
                tma.async_copy_global_to_shared(rope, [slot, 512], filled, ropes.index(stage))
            for half in gl.static_range(2):
                if FP8:
                    room, turn = _room(2 * count + half, HALVES)
                    there, left = stored_gates.index(room), stored_gates.index(HALVES + room)
                    target = stored.index(room)
                else:
                    room, turn = _room(2 * count + half, ROOMS)
                    there, left, target = gates.index(room), gates.index(ROOMS + room), rooms.index(room)
                mbarrier.wait(left, turn ^ 1)
                mbarrier.expect(there, latents.block_type.nbytes)
                tma.async_copy_global_to_shared(latents, [slot, half * 256], there, target)
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
def _convert(places, ring, ROOMS: gl.constexpr, STORED: gl.constexpr, HALVES: gl.constexpr, RAISED: gl.constexpr):
    """The warps that write E4M3 latents times their scales and RAISED to the rooms."""
    spread: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    rooms, _ropes, gates = ring[0]
    stored, factors, stored_gates = ring[1]
    first, after = _sequences(places)
    count = 0
    for sequence in range(first, after):
        _length, _pages, begin, stop = _piece(places, sequence)
        for _page in range(begin, stop):
            stage = count % STORED
            mbarrier.wait(gates.index(2 * ROOMS + stage), count // STORED & 1)
            for half in gl.static_range(2):
                source, came = _room(2 * count + half, HALVES)
                room, turn = _room(2 * count + half, ROOMS)
                mbarrier.wait(stored_gates.index(source), came)
                mbarrier.wait(gates.index(ROOMS + room), turn ^ 1)
                for group in gl.static_range(2):
                    values = stored.index(source).slice(group * 128, 128, dim=1).load(spread)
                    factor = factors.index(stage).slice(2 * half + group, 1, dim=1).load(spread)
                    factor = gl.minimum(factor * RAISED, 65504.0 / 448).to(gl.float16)
                    rooms.index(room).slice(group * 128, 128, dim=1).store(_scaled(values, factor))
                hopper.fence_async_shared()
                gl.thread_barrier()
                mbarrier.arrive(gates.index(room), count=1)
                mbarrier.arrive(stored_gates.index(HALVES + source), count=1)
            mbarrier.arrive(gates.index(2 * ROOMS + STORED + stage), count=1)
            count += 1
