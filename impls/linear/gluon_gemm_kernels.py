"""A Gluon kernel for Hopper: products of FP8 operands with fine-grained scales, warp specialized and persistent.

One warp copies operands and their scales to a ring of stages. Two warp groups take turns at the tensor core without
being told to: each multiplies its 64 rows by 128 columns over 128 elements, waits, and adds what came out, times both
scales, to sums in FP32, while the other's matrix instructions run. Whatever else there is to do is done while the own
product runs: waiting for the next stage, giving back the last one, fetching scales, half of the result's way out. What
is left between two products of a group must take less than one product of the other, and takes about half of that.
With two HALVES of 128 columns a stage serves twice the products: 85 multiply-adds a byte from L2 instead of 64. Results
leave through shared memory by asynchronous copies while the ring fills for the next block.

    scales of b   one a block of 128 x 128: forward and dgrad; or, TILES, one a row and tile: wgrad
    HALVINGS      rows belong to experts (blocks), or the summed axis does (TILES)

Both halves' products take turns in one array of registers: each begins in what the last one left, and does not use it.
Two arrays, or one that begins as zeros, would cost 64 registers a thread more, and the sums would be spilled.
Shape suffixes: M = 64 rows, N = 128 columns, K = 128 summed.
"""

from __future__ import annotations

from ..gluon_jit import gl, hopper, jit, mbarrier, tma


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
    group, begin = 0, 0
    if HALVINGS and TILES:
        each = row_blocks * column_blocks
        group, number = number // each, number % each
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
    matrices, ends_ptr, sizes, ring,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """The warp that fills the ring."""
    a, b, a_scale, b_scale = matrices
    a_ring, b_ring, a_scales, b_scales, full, free = ring
    size: gl.constexpr = a.block_type.nbytes + HALVES * b.block_type.nbytes + (1 + TILES) * a_scale.block_type.nbytes
    count = 0
    for number in range(gl.program_id(0), _blocks(sizes, HALVES, TILES), gl.num_programs(0)):
        row, column, group, begin, last = _block(number, sizes, ends_ptr, HALVES, TILES, HALVINGS, GROUP)
        down = column if TILES else column + group * sizes[1]
        for step in range(begin, last):
            stage, turn = count % STAGES, count // STAGES & 1
            mbarrier.wait(free.index(stage), turn ^ 1)
            filled = full.index(stage)
            mbarrier.expect(filled, size)
            tma.async_copy_global_to_shared(a, [row, step * 128], filled, a_ring.index(stage))
            tma.async_copy_global_to_shared(a_scale, [step, row], filled, a_scales.index(stage))
            for half in gl.static_range(HALVES):
                room = b_ring.index(stage * HALVES + half)
                tma.async_copy_global_to_shared(b, [down + half * 128, step * 128], filled, room)
            if TILES:
                tma.async_copy_global_to_shared(b_scale, [step, column], filled, b_scales.index(stage))
            count += 1


@jit
def _leave(out, row, column, total_MN, staging):
    """Send a block on its way; what was sent before has left the room."""
    tma.store_wait(0)
    staging.store(total_MN.to(out.dtype))
    hopper.fence_async_shared()
    tma.async_copy_shared_to_global(out, [row, column], staging)


@jit
def _product(ring, stage, HALF: gl.constexpr, part_MN, WHICH: gl.constexpr, HALVES: gl.constexpr):
    """Begin to multiply 64 rows of a by 128 of b, in the registers of `part_MN`, which is not added."""
    a_MK = ring[0].index(stage).slice(WHICH * 64, 64)
    b_KN = ring[1].index(stage * HALVES + HALF).permute((1, 0))
    return hopper.warpgroup_mma(a_MK, b_KN, part_MN, use_acc=False, is_async=True)


@jit
def _sums(
    ring, b_scale_ptr, block, sizes, stage, turn, way_out, WHICH: gl.constexpr,
    HALVES: gl.constexpr, TILES: gl.constexpr, STAGES: gl.constexpr, MMA: gl.constexpr,
):  # fmt: skip
    """Of a block, the sums of its first half, or of its last when the first are on their way out; then the stage and
    turn that come next."""
    of_rows: gl.constexpr = gl.SliceLayout(1, MMA)
    of_columns: gl.constexpr = gl.SliceLayout(0, MMA)
    _, _, a_scales, b_scales, full, free = ring
    column, group, begin, last = block
    out, down, room, inside = way_out
    columns, steps = sizes[1], gl.cdiv(sizes[2], 128)
    part_MN = gl.zeros([64, 128], gl.float32, MMA)
    first_MN = gl.zeros([64, 128], gl.float32, MMA)
    last_MN = gl.zeros([64, 128], gl.float32, MMA)
    if not TILES:
        # The scales of this block's columns, and how far it is to those of its second half, if there is one.
        at_ptr = b_scale_ptr + (group * gl.cdiv(columns, 128) + column // 128) * steps
        across = gl.where(column + 128 < columns, steps, 0)
        b_next, b_last = gl.load(at_ptr), gl.load(at_ptr + across)
    now = 0  # not `stage`: Triton 3.6 does not carry a name from step to step that begins as another one
    mbarrier.wait(full.index(stage), turn, pred=begin < last)
    for step in range(begin, last):
        part_MN = _product(ring, stage, 0, part_MN, WHICH, HALVES)
        if not TILES:
            mbarrier.arrive(free.index(now), count=1, pred=step > begin)
        now = stage
        turn = gl.where(stage == STAGES - 1, turn ^ 1, turn)
        stage = gl.where(stage == STAGES - 1, 0, stage + 1)
        a_scale = a_scales.index(now).reshape([128]).slice(WHICH * 64, 64).load(of_rows)
        if TILES:
            scale_MN = a_scale[:, None] * b_scales.index(now).reshape([128]).load(of_columns)[None, :]
        else:
            scale_MN, last_scale_MN = (a_scale * b_next)[:, None], (a_scale * b_last)[:, None]
            following = gl.minimum(step + 1, steps - 1)
            b_next, b_last = gl.load(at_ptr + following), gl.load(at_ptr + across + following)
        if HALVES == 1:
            mbarrier.wait(full.index(stage), turn, pred=step + 1 < last)
        part_MN = hopper.warpgroup_mma_wait(0, deps=(part_MN,))
        if TILES:  # a ring of few products: rather at once than while the next one runs
            mbarrier.arrive(free.index(now), count=1)
        first_MN += part_MN * scale_MN
        if HALVES == 2:
            part_MN = _product(ring, now, 1, part_MN, WHICH, HALVES)
            if inside & (step + 1 == last):
                _leave(out, down, column, first_MN, room)
            mbarrier.wait(full.index(stage), turn, pred=step + 1 < last)
            part_MN = hopper.warpgroup_mma_wait(0, deps=(part_MN,))
            last_MN += part_MN * last_scale_MN
    if not TILES:
        mbarrier.arrive(free.index(now), count=1, pred=begin < last)
    return first_MN, last_MN, stage, turn


@jit
def _multiply(
    out, b_scale_ptr, ends_ptr, sizes, ring, rooms, WHICH: gl.constexpr,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A warp group that multiplies: rows 0 to 63 or 64 to 127 of each block."""
    mma: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    rows, room, stage, turn = sizes[0], rooms.index(WHICH), 0, 0
    for number in range(gl.program_id(0), _blocks(sizes, HALVES, TILES), gl.num_programs(0)):
        row, column, group, begin, last = _block(number, sizes, ends_ptr, HALVES, TILES, HALVINGS, GROUP)
        row += WHICH * 64
        inside = row < rows
        down = group * rows + row if TILES else row
        block, way_out = (column, group, begin, last), (out, down, room, inside)
        first_MN, last_MN, stage, turn = _sums(
            ring, b_scale_ptr, block, sizes, stage, turn, way_out, WHICH, HALVES, TILES, STAGES, mma
        )
        if inside:
            if (HALVES == 1) | (begin >= last):
                _leave(out, down, column, first_MN, room)
            if HALVES == 2:
                _leave(out, down, column + 128, last_MN, room)
    tma.store_wait(0)


@jit
def block_scaled(
    a, b, out, a_scale, b_scale, ends_ptr, rows, columns, length, groups,
    HALVES: gl.constexpr, TILES: gl.constexpr, HALVINGS: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """out [R, S] = a b^T. `a` [R, L] and `b` [(E x) S, L] in tiles [128, 128], `out` [(E x) R, S] in tiles [64, 128];
    scales of tiles [L / 128, R or S] in tiles [1, 128], those of blocks as the Triton kernels take them. HALVES of 128
    columns: 1 or, not with TILES, 2. HALVINGS: more than log2 of the groups, or 0 for a product without groups."""
    a_ring = gl.allocate_shared_memory(a.dtype, [STAGES, a.block_shape[0], a.block_shape[1]], a.layout)
    b_ring = gl.allocate_shared_memory(b.dtype, [STAGES * HALVES, b.block_shape[0], b.block_shape[1]], b.layout)
    rooms = gl.allocate_shared_memory(out.dtype, [2, out.block_shape[0], out.block_shape[1]], out.layout)
    a_scales = gl.allocate_shared_memory(gl.float32, [STAGES, 1, 128], a_scale.layout)
    b_scales = gl.allocate_shared_memory(gl.float32, [STAGES if TILES else 1, 1, 128], a_scale.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(free.index(stage), count=2)
    hopper.fence_async_shared()
    sizes = (rows, columns, length, groups)
    ring = (a_ring, b_ring, a_scales, b_scales, full, free)
    matrices = (a, b, a_scale, b_scale)
    gl.warp_specialize(
        [
            (_multiply, (out, b_scale, ends_ptr, sizes, ring, rooms, 0, HALVES, TILES, HALVINGS, STAGES, GROUP)),
            (_multiply, (out, b_scale, ends_ptr, sizes, ring, rooms, 1, HALVES, TILES, HALVINGS, STAGES, GROUP)),
            (_copy, (matrices, ends_ptr, sizes, ring, HALVES, TILES, HALVINGS, STAGES, GROUP)),
        ],
        [4, 1],
        [240, 24],
    )
