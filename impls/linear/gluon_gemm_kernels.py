"""A Gluon kernel for Hopper: products of FP8 operands with fine-grained scales, warp specialized and persistent.

One warp copies operands to a ring of stages. Two warp groups take turns at the tensor core without being told to: each
multiplies its 64 rows by 128 columns over 128 elements, waits, and adds what came out, times both scales, to sums in
FP32, while the other's matrix instructions run. With two HALVES of 128 columns a stage serves twice the products: 85
multiply-adds a byte from L2 instead of 64. Results leave through shared memory by asynchronous copies while the ring
fills for the next block.

    scales of b   one a block of 128 x 128: forward and dgrad; or, TILES, one a row and tile: wgrad
    HALVINGS      rows belong to experts (blocks), or the summed axis does (TILES)

The halves are products of one loop, and a branch chooses the sums: two matrix instructions one behind the other would
each get registers for what comes out, 64 a thread, and the sums would be spilled.
Shape suffixes: M = 64 rows, N = 128 columns, K = 128 summed.
"""

from __future__ import annotations

from typing import Any

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia import hopper
    from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma

    jit: Any = gluon.jit
except ImportError:
    gl = hopper = mbarrier = tma = None

    def jit(function: Any) -> Any:
        """The function itself: nobody may call it here."""
        return function


@jit
def _group_of(ends_ptr, groups, row, HALVINGS: gl.constexpr):
    """The group of a row, or `groups` for none, by halving."""
    low, high = 0, groups
    for _ in gl.static_range(HALVINGS):
        middle = (low + high) // 2
        passed = (low < high) & (gl.load(ends_ptr + gl.minimum(middle, groups - 1)) <= row)
        low = gl.where(passed, middle + 1, low)
        high = gl.where(passed, high, middle)
    return low


@jit
def _block(
    number, sizes, ends_ptr,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """Of a block: first row, column, group, first step, step after the last."""
    rows, columns, length, groups = sizes
    W: gl.constexpr = 128 * HALVES
    row_blocks, column_blocks, last = gl.cdiv(rows, 128), gl.cdiv(columns, W), gl.cdiv(length, 128)
    each = row_blocks * column_blocks
    group, begin, number = number // each, 0, number % each
    strip = GROUP * column_blocks
    above = number // strip * GROUP
    size = gl.minimum(row_blocks - above, GROUP)
    row, column = (above + number % strip % size) * 128, number % strip // size * W
    if HALVINGS:
        if TILES:
            end = gl.load(ends_ptr + group)
            begin = gl.where(group > 0, gl.load(ends_ptr + gl.maximum(group - 1, 0)), 0) // 128
            last = gl.cdiv(end, 128)
        else:
            group = _group_of(ends_ptr, groups, row, HALVINGS)
            last = gl.where(group < groups, last, 0)
            group = gl.minimum(group, groups - 1)
    return row, column, group, begin, last


@jit
def _blocks(sizes, HALVES: gl.constexpr, TILES: gl.constexpr):
    """How many blocks there are."""
    rows, columns, _, groups = sizes
    count = gl.cdiv(rows, 128) * gl.cdiv(columns, 128 * HALVES)
    return count * groups if TILES else count


@jit
def _copy(
    a, b, ends_ptr, sizes, ring,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring."""
    a_ring, b_ring, full, free = ring
    count = 0
    for number in range(gl.program_id(0), _blocks(sizes, HALVES, TILES), gl.num_programs(0)):
        row, column, group, begin, last = _block(number, sizes, ends_ptr, HALVES, TILES, HALVINGS, GROUP)
        if not TILES:
            column += group * sizes[1]
        for step in range(begin, last):
            stage, turn = count % STAGES, count // STAGES & 1
            mbarrier.wait(free.index(stage), turn ^ 1)
            mbarrier.expect(full.index(stage), a.block_type.nbytes + HALVES * b.block_type.nbytes)
            tma.async_copy_global_to_shared(a, [row, step * 128], full.index(stage), a_ring.index(stage))
            for half in gl.static_range(HALVES):
                room = b_ring.index(stage * HALVES + half)
                tma.async_copy_global_to_shared(b, [column + half * 128, step * 128], full.index(stage), room)
            count += 1


@jit
def _leave(out, row, column, total_MN, staging):
    """Send a block on its way; what was sent before has left the room."""
    tma.store_wait(0)
    staging.store(total_MN.to(out.dtype))
    hopper.fence_async_shared()
    tma.async_copy_shared_to_global(out, [row, column], staging)


@jit
def _next_scale(tile_ptr, block_ptr, c, columns, TILES: gl.constexpr):
    """Of b: of each column in a tile, or of a block."""
    return gl.load(tile_ptr + c, mask=c < columns, other=0.0) if TILES else gl.load(block_ptr)


@jit
def _multiply(
    out, scales, ends_ptr, sizes, ring, rooms, WHICH: gl.constexpr,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A warp group that multiplies: rows 0 to 63 or 64 to 127 of each block."""
    mma: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    a_scale_ptr, b_scale_ptr = scales
    a_ring, b_ring, full, free = ring
    rows, columns, length, _ = sizes
    steps = gl.cdiv(length, 128)
    zeros = gl.zeros([64, 128], gl.float32, mma)
    count = 0
    for number in range(gl.program_id(0), _blocks(sizes, HALVES, TILES), gl.num_programs(0)):
        row, column, group, begin, last = _block(number, sizes, ends_ptr, HALVES, TILES, HALVINGS, GROUP)
        row += WHICH * 64
        r = row + gl.arange(0, 64, gl.SliceLayout(1, mma))
        c = column + gl.arange(0, 128, gl.SliceLayout(0, mma))
        # The scales of this block's columns, and how far it is to those of its second half, if there is one.
        at_ptr = b_scale_ptr + (group * gl.cdiv(columns, 128) + column // 128) * steps
        across = gl.where(column + 128 < columns, steps, 0)
        first_MN = gl.zeros([64, 128], gl.float32, mma)
        last_MN = gl.zeros([64, 128], gl.float32, mma)
        start = gl.minimum(begin, steps - 1)
        a_next = gl.load(a_scale_ptr + start * rows + r, mask=r < rows, other=0.0)
        b_next = _next_scale(b_scale_ptr + start * columns, at_ptr, c, columns, TILES)
        for product in range(begin * HALVES, last * HALVES):
            half, stage, turn = product % HALVES, count // HALVES % STAGES, count // (HALVES * STAGES) & 1
            a_scale, b_scale = a_next, b_next
            following = gl.minimum((product + 1) // HALVES, steps - 1)
            a_next = gl.load(a_scale_ptr + following * rows + r, mask=r < rows, other=0.0)
            place_ptr = at_ptr + (product + 1) % HALVES * across + following
            b_next = _next_scale(b_scale_ptr + following * columns, place_ptr, c, columns, TILES)
            mbarrier.wait(full.index(stage), turn)
            a_MK = a_ring.index(stage).slice(WHICH * 64, 64)
            b_KN = b_ring.index(stage * HALVES + half).permute((1, 0))
            part_MN = hopper.warpgroup_mma(a_MK, b_KN, zeros, use_acc=False, is_async=True)
            part_MN = hopper.warpgroup_mma_wait(0, deps=(part_MN,))
            if TILES:
                mbarrier.arrive(free.index(stage), count=1)
                first_MN += part_MN * a_scale[:, None] * b_scale[None, :]
            elif half == HALVES - 1:  # a barrier in one arm: without, both become predicated additions, all issued
                mbarrier.arrive(free.index(stage), count=1)
                last_MN += part_MN * (a_scale * b_scale)[:, None]
            else:
                first_MN += part_MN * (a_scale * b_scale)[:, None]
            count += 1
        if row < rows:
            down = group * rows + row if TILES else row
            if HALVES == 2 or TILES:
                _leave(out, down, column, first_MN, rooms.index(WHICH))
            if not TILES:
                _leave(out, down, column + (HALVES - 1) * 128, last_MN, rooms.index(WHICH))
    tma.store_wait(0)


@jit
def block_scaled(
    a, b, out, a_scale_ptr, b_scale_ptr, ends_ptr, rows, columns, length, groups,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """out [R, S] = a b^T. `a` [R, L] and `b` [(E x) S, L] in tiles [128, 128], `out` [(E x) R, S] in tiles [64, 128];
    scales as those of the Triton kernels. HALVES of 128 columns: 1 or, not with TILES, 2. HALVINGS: more than log2 of
    the groups, or 0 for a product without groups."""
    a_ring = gl.allocate_shared_memory(a.dtype, [STAGES, a.block_shape[0], a.block_shape[1]], a.layout)
    b_ring = gl.allocate_shared_memory(b.dtype, [STAGES * HALVES, b.block_shape[0], b.block_shape[1]], b.layout)
    rooms = gl.allocate_shared_memory(out.dtype, [2, out.block_shape[0], out.block_shape[1]], out.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(free.index(stage), count=2)
    hopper.fence_async_shared()
    sizes = (rows, columns, length, groups)
    ring = (a_ring, b_ring, full, free)
    scales = (a_scale_ptr, b_scale_ptr)
    gl.warp_specialize(
        [
            (_multiply, (out, scales, ends_ptr, sizes, ring, rooms, 0, HALVES, TILES, HALVINGS, STAGES, GROUP)),
            (_multiply, (out, scales, ends_ptr, sizes, ring, rooms, 1, HALVES, TILES, HALVINGS, STAGES, GROUP)),
            (_copy, (a, b, ends_ptr, sizes, ring, HALVES, TILES, HALVINGS, STAGES, GROUP)),
        ],
        [4, 1],
        [240, 24],
    )
