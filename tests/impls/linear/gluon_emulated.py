"""The Gluon kernel's functions as plain Python: three threads a program, barriers, a ring of stages, copies, products.

Gluon has no interpreter. The functions that its warps run are written with so few operations that these can be had in
PyTorch: what is checked is which numbers meet in which product with which scales, where results go, and that the
barriers let everybody come to an end. What only a GPU has, layouts, asynchrony and memory order, is not.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from impls.linear import gluon_gemm_kernels as kernels
from impls.linear.quantize import Quantized

PATIENCE_S = 5.0
PLAIN = ("_group_of", "_block", "_blocks", "_leave", "_product", "_sums")


class Pointer:
    """A tensor's memory and a place in it."""

    def __init__(self, memory: Tensor, place: int = 0) -> None:
        self.memory, self.place = memory.reshape(-1), place

    def __add__(self, more: int) -> Pointer:
        return Pointer(self.memory, self.place + more)


def load(pointer: Pointer) -> Any:
    """A number; reading outside memory is an IndexError."""
    return pointer.memory[pointer.place].item()


class Barrier:
    """An mbarrier: a phase ends when all have arrived and all bytes have come."""

    def __init__(self, count: int) -> None:
        self.count = self.missing = count
        self.bytes = self.phase = 0
        self.changed = threading.Condition()

    def change(self, arrivals: int = 0, size: int = 0) -> None:
        with self.changed:
            self.missing, self.bytes = self.missing - arrivals, self.bytes + size
            assert self.missing >= 0, "more arrivals than are expected"
            if self.missing == 0 and self.bytes == 0:
                self.missing, self.phase = self.count, self.phase + 1
                self.changed.notify_all()

    def wait(self, parity: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.phase % 2 != parity, PATIENCE_S), "nobody arrives"


class Room:
    """Shared memory: a tensor, seen in parts."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def index(self, place: int) -> Room:
        return Room(self.data[place])

    def slice(self, start: int, length: int) -> Room:
        return Room(self.data[start : start + length])

    def permute(self, order: tuple[int, int]) -> Room:
        return Room(self.data.permute(order))

    def reshape(self, sizes: list[int]) -> Room:
        return Room(self.data.view(sizes))

    def store(self, value: Tensor) -> None:
        self.data.copy_(value)

    def load(self, layout: Any) -> Tensor:
        return self.data.clone()


class Ring(list):
    """Barriers by stage."""

    index = list.__getitem__


class Descriptor:
    """A matrix in tiles; zero outside, and nothing is written there."""

    def __init__(self, matrix: Tensor, rows: int) -> None:
        self.matrix, self.rows, self.dtype = matrix, rows, matrix.dtype
        self.block_type = SimpleNamespace(nbytes=rows * 128 * matrix.itemsize)

    def part(self, place: list[int]) -> Tensor:
        return self.matrix[place[0] : place[0] + self.rows, place[1] : place[1] + 128]

    def read(self, place: list[int], barrier: Barrier, room: Room) -> None:
        part = self.part(place).float()
        room.data.zero_()
        room.data[: part.shape[0], : part.shape[1]] = part
        barrier.change(size=-self.block_type.nbytes)

    def write(self, place: list[int], room: Room) -> None:
        part = self.part(place)
        assert part.isnan().all(), "written twice"
        part.copy_(room.data[: part.shape[0], : part.shape[1]])


class Launch(threading.local):
    """Which program of how many a thread is."""

    program, programs = 0, 1


def multiply(a: Quantized, b: Quantized, out: Tensor, ends: list[int] | None, halves: int, stages: int = 2) -> None:
    """Write a b^T to `out`, full of NaN, as the kernel would, by 3 programs in turn. Raises what a thread raises."""
    tiles, columns = b.grain == "tile", b.payload.shape[-2]
    sizes = (*a.payload.shape, len(ends) if ends else 1)
    sizes = (sizes[0], columns, sizes[1], sizes[2])
    halvings = len(ends).bit_length() if ends else 0
    given, found = Launch(), []
    with pytest.MonkeyPatch.context() as patch:
        emulate(patch, given)
        a_scale, b_scale = Descriptor(a.scale, 1), Descriptor(b.scale, 1) if tiles else Pointer(b.scale)
        ends_ptr = Pointer(torch.tensor(ends or [0]))
        for program in range(3):
            barriers = [Ring(Barrier(count) for _ in range(stages)) for count in (1, 2)]
            memory = torch.full((3, stages * halves, 128, 128), torch.nan)
            scales = (Room(torch.full((stages, 1, 128), torch.nan)) for _ in range(2))
            ring = (Room(memory[0]), Room(memory[1]), *scales, *barriers)
            rooms = Room(torch.full((2, 64, 128), torch.nan))
            constants = (halves, tiles, halvings, stages, 8)
            operands = (Descriptor(t.payload.reshape(-1, sizes[2]), 128) for t in (a, b))
            result = Descriptor(out.view(-1, columns), 64)
            work = [
                (kernels._multiply.fn, (result, b_scale, ends_ptr, sizes, ring, rooms, 0, *constants)),
                (kernels._multiply.fn, (result, b_scale, ends_ptr, sizes, ring, rooms, 1, *constants)),
                (kernels._copy.fn, ((*operands, a_scale, b_scale), ends_ptr, sizes, ring, *constants)),
            ]

            def run(function: Any, arguments: Any, program: int = program) -> None:
                given.program, given.programs = program, 3
                try:
                    function(*arguments)
                except BaseException as error:
                    found.append(error)

            threads = [threading.Thread(target=run, args=one) for one in work]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if found:
                raise found[0]


def emulate(patch: pytest.MonkeyPatch, given: Launch) -> None:
    """Python for what the kernel's functions call."""
    language = SimpleNamespace(
        cdiv=lambda a, b: -(-a // b),
        minimum=min,
        maximum=max,
        where=lambda condition, a, b: a if condition else b,
        load=load,
        static_range=range,
        constexpr=int,
        float32=torch.float32,
        arange=lambda start, end, layout: torch.arange(start, end),
        zeros=lambda shape, dtype, layout: torch.zeros(shape),
        program_id=lambda axis: given.program,
        num_programs=lambda axis: given.programs,
        SliceLayout=lambda *words: None,
        NVMMADistributedLayout=lambda *words: None,
    )
    warps = SimpleNamespace(
        warpgroup_mma=lambda a, b, acc, use_acc, is_async: a.data @ b.data,
        warpgroup_mma_wait=lambda outstanding, deps: deps[0],
        fence_async_shared=lambda: None,
    )
    barriers = SimpleNamespace(
        wait=lambda barrier, parity, pred=True: barrier.wait(parity) if pred else None,
        expect=lambda barrier, size: barrier.change(1, size),
        arrive=lambda barrier, count, pred=True: barrier.change(count) if pred else None,
    )
    copies = SimpleNamespace(
        async_copy_global_to_shared=lambda matrix, place, barrier, room: matrix.read(place, barrier, room),
        async_copy_shared_to_global=lambda matrix, place, room: matrix.write(place, room),
        store_wait=lambda pending: None,
    )
    for name, fake in (("gl", language), ("hopper", warps), ("mbarrier", barriers), ("tma", copies)):
        patch.setattr(kernels, name, fake)
    for name in PLAIN:
        patch.setattr(kernels, name, getattr(kernels, name).fn)
