"""The Gluon decode kernel as plain Python: a thread for each task of its warps, barriers, rings, copies, products.

Gluon has no interpreter. The kernel calls few operations, which are had in PyTorch: `attend` runs as it is, with shared
memory full of NaN, and its products are made where they are waited for, not where they begin, so a room that is given
back too early is seen. What only a GPU has, layouts, proxies and memory order, is not checked. The plan and the merge,
which are Triton, run the same way.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from impls.attention import gluon_latent_decode, gluon_latent_kernels, gluon_latent_pages, gluon_latent_plan
from impls.attention.gluon_latent_plan import Plan
from tests.impls.linear.gluon_emulated import Barrier, Launch

PAGES = ("sequences", "piece", "room", "copy", "scaled", "convert")
PLAIN = (
    *("barriers", "rings", "post", "score", "weigh", "lowered", "half", "fetch", "product", "products"),
    *("soften", "announce", "told", "send", "sum", "leave"),
)


class Number(int):
    """A scalar of the kernel."""

    def to(self, dtype: Any) -> Number:
        return self

    def __mul__(self, other: Any) -> Any:
        return Number(int(self) * other) if isinstance(other, int) else int(self) * other

    def __add__(self, other: Any) -> Any:
        return Number(int(self) + other) if isinstance(other, int) else int(self) + other


class Pointer:
    """A tensor's memory and a place, or places, in it."""

    def __init__(self, memory: Tensor, place: Any = 0) -> None:
        self.memory, self.place = memory, place
        self.dtype = SimpleNamespace(element_ty=memory.dtype)

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.memory, self.place + more)


def load(pointer: Pointer, mask: Any = None, other: Any = None) -> Any:
    """A number, or a tensor; reading outside memory is an IndexError."""
    if not isinstance(pointer.place, Tensor):
        return Number(pointer.memory.view(-1)[pointer.place])
    mask = torch.tensor(True) if mask is None else mask
    found = pointer.memory.view(-1)[torch.where(mask, pointer.place, 0)]
    return torch.where(mask, found, torch.tensor(0 if other is None else other, dtype=found.dtype))


def store(pointer: Pointer, value: Any, mask: Any = None) -> None:
    """Write where `mask` is."""
    place, value = torch.broadcast_tensors(pointer.place, torch.as_tensor(value))
    mask = torch.ones_like(place, dtype=torch.bool) if mask is None else mask.expand_as(place)
    assert len(set(place[mask].tolist())) == int(mask.sum()), "written twice at once"
    pointer.memory.view(-1)[place[mask]] = value[mask].to(pointer.memory.dtype)


class Room:
    """Shared memory: a tensor, seen in parts."""

    def __init__(self, data: Tensor) -> None:
        self.data, self.dtype, self.shape = data, data.dtype, data.shape

    def index(self, place: int) -> Room:
        return Room(self.data[place])

    def slice(self, start: int, length: int, dim: int = 0) -> Room:
        return Room(self.data.narrow(dim, start, length))

    def permute(self, order: tuple[int, int]) -> Room:
        return Room(self.data.permute(order))

    def _reinterpret(self, dtype: Any, sizes: list[int], layout: Any) -> Room:
        flat = self.data.flatten().view(dtype) if self.data.is_contiguous() else None
        assert flat is not None and flat.data_ptr() == self.data.data_ptr()
        return Room(flat[: sizes[0] * sizes[1]].view(sizes))

    def store(self, value: Tensor) -> None:
        assert value.shape == self.data.shape and value.dtype == self.data.dtype
        self.data.copy_(value)

    def load(self, layout: Any) -> Tensor:
        return self.data.clone()


class Barriers:
    """Barriers by stage, until they are made ready."""

    def __init__(self, count: int) -> None:
        self.made: list[Any] = [None] * count

    def index(self, place: int) -> Any:
        return self.made[place] or SimpleNamespace(make=lambda count: self.made.__setitem__(place, Barrier(count)))


class Descriptor:
    """A matrix in tiles; zero outside."""

    def __init__(self, matrix: Tensor, rows: int, columns: int) -> None:
        self.matrix, self.sizes, self.dtype, self.layout = matrix, (rows, columns), matrix.dtype, None
        self.block_type = SimpleNamespace(nbytes=rows * columns * matrix.itemsize)

    def read(self, place: list[int], barrier: Barrier, room: Room) -> None:
        part = self.matrix[place[0] : place[0] + self.sizes[0], place[1] : place[1] + self.sizes[1]]
        assert room.data.shape == self.sizes and part.shape[1] == self.sizes[1]
        room.data.view(torch.uint8).zero_()
        room.data[: len(part)] = part
        barrier.change(size=-self.block_type.nbytes)


class Product:
    """A product under way: operands are read when it is waited for."""

    def __init__(self, a: Room, b: Room, sum_: Any, add: bool) -> None:
        self.a, self.b, self.sum, self.add = a, b, sum_, add

    def result(self) -> Tensor:
        before = self.sum.result() if isinstance(self.sum, Product) else self.sum
        product = self.a.data.float() @ self.b.data.float()
        assert product.shape == before.shape
        return before + product if self.add else product


def _waited(outstanding: int, deps: tuple[Product, ...]) -> Any:
    found = tuple(one.result() for one in deps)
    return found if len(found) > 1 else found[0]


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, Tensor):
        return torch.where(condition, torch.as_tensor(a), torch.as_tensor(b))
    return a if condition else b


def _pairwise(tensors: Any, numbers: Any) -> Any:
    def apply(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return tensors(torch.as_tensor(a), torch.as_tensor(b))
        return numbers(a, b)

    return apply


def _together(work: list[tuple[Any, Any]], warps: Any, registers: Any) -> None:
    """Run tasks in threads; raises what one of them raises."""
    found: list[BaseException] = []

    def run(function: Any, arguments: Any) -> None:
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


def _memory(dtype: Any, sizes: list[int], layout: Any) -> Any:
    if dtype == torch.int64:
        return Barriers(sizes[0])
    return Room(torch.full(sizes, torch.nan).to(dtype))


def words(given: Launch) -> SimpleNamespace:
    """What Gluon's and Triton's languages share, in PyTorch."""
    return SimpleNamespace(
        cdiv=lambda a, b: -(-a // b),
        minimum=_pairwise(torch.minimum, lambda a, b: Number(min(a, b))),
        maximum=_pairwise(torch.maximum, max),
        where=_where,
        load=load,
        store=store,
        static_range=range,
        constexpr=int,
        int32=torch.int32,
        int64=torch.int64,
        float16=torch.float16,
        float32=torch.float32,
        arange=lambda start, end, layout=None: torch.arange(start, end),
        zeros=lambda sizes, dtype, layout=None: torch.zeros(sizes),
        full=lambda sizes, value, dtype, layout=None: torch.full(sizes, value),
        expand_dims=torch.unsqueeze,
        exp2=lambda x: torch.exp2(torch.as_tensor(x)),
        log2=torch.log2,
        max=lambda x, axis: x.amax(axis),
        sum=lambda x, axis: x.sum(axis),
        cumsum=torch.cumsum,
        program_id=lambda axis: Number(given.program if axis == 0 else given.second),
    )


def _assembled(text: str, constraints: str, arguments: list[Tensor], dtype: Any, is_pure: bool, pack: int) -> Tensor:
    """What the kernel's only inline instructions do."""
    assert "cvt.rn.f16x2.e4m3x2" in text and "mul.rn.f16x2" in text and pack == 4
    values, factor = arguments
    assert values.dtype == torch.float8_e4m3fn and factor.dtype == dtype == torch.float16
    return values.to(dtype) * factor


def emulate(patch: pytest.MonkeyPatch, given: Launch) -> None:
    """Python for what the kernels call."""
    language = words(given)
    for name in ("SliceLayout", "NVMMADistributedLayout", "SwizzledSharedLayout", "BlockedLayout"):
        setattr(language, name, lambda *words: None)
    language.NVMMASharedLayout = SimpleNamespace(get_default_for=lambda sizes, dtype: None)
    language.allocate_shared_memory, language.warp_specialize = _memory, _together
    language.thread_barrier = lambda: None
    language.inline_asm_elementwise = _assembled
    products = SimpleNamespace(
        warpgroup_mma=lambda a, b, acc, use_acc=True, is_async=False: Product(a, b, acc, use_acc),
        warpgroup_mma_wait=_waited,
        fence_async_shared=lambda: None,
    )
    barriers = SimpleNamespace(
        MBarrierLayout=lambda: None,
        init=lambda barrier, count: barrier.make(count),
        wait=lambda barrier, parity: barrier.wait(parity),
        expect=lambda barrier, size: barrier.change(1, size),
        arrive=lambda barrier, count, pred=True: barrier.change(count) if pred else None,
    )
    copies = SimpleNamespace(
        async_copy_global_to_shared=lambda matrix, place, full, room: matrix.read(place, full, room)
    )
    for module in (gluon_latent_pages, gluon_latent_kernels):
        for name, fake in (("gl", language), ("hopper", products), ("mbarrier", barriers), ("tma", copies)):
            patch.setattr(module, name, fake)
    patch.setattr(gluon_latent_plan, "tl", words(given))
    for module in (gluon_latent_pages, gluon_latent_kernels, gluon_latent_plan):
        patch.setattr(module, "range", lambda *ends: (Number(n) for n in range(*ends)), raising=False)
    for name in PAGES:
        plain = getattr(gluon_latent_pages, f"_{name}").fn
        for module in (gluon_latent_pages, gluon_latent_kernels):
            patch.setattr(module, f"_{name}", plain, raising=False)
    for name in PLAIN:
        patch.setattr(gluon_latent_kernels, f"_{name}", getattr(gluon_latent_kernels, f"_{name}").fn)


class Kernel:
    """A kernel that is launched as on a GPU, its programs one after the other."""

    def __init__(self, function: Any, given: Launch) -> None:
        self.function, self.given = function.fn, given

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, num_warps: int = 4, maxnreg: int = 0, **constants: Any) -> None:
            given = [Pointer(one) if isinstance(one, Tensor) else one for one in arguments]
            for second in range(grid[1] if len(grid) > 1 else 1):
                for program in range(grid[0]):
                    self.given.program, self.given.second = program, second
                    self.function(*given, **constants)

        return launch


def emulating(patch: pytest.MonkeyPatch) -> None:
    """Make this process run the launches of `latent_decode` and `planned` in Python; new tensors are full of NaN."""
    given = Launch()
    emulate(patch, given)
    patch.setattr(gluon_latent_kernels, "attend", Kernel(gluon_latent_kernels.attend, given))
    for name in ("plan_parts", "merge_pieces"):
        patch.setattr(gluon_latent_plan, name, Kernel(getattr(gluon_latent_plan, name), given))
    patch.setattr(gluon_latent_decode, "copies", Descriptor)
    empty = torch.empty

    def unknown(*sizes: int, dtype: torch.dtype, **words: Any) -> Tensor:
        return empty(*sizes, dtype=dtype, **words).fill_(-1 if dtype == torch.int32 else torch.nan)

    for module in (gluon_latent_decode, gluon_latent_plan):
        patch.setattr(module.torch, "empty", unknown)


def pieces_of(plan: Plan, pages: list[int]) -> list[list[tuple[int, int, int]]]:
    """By part, (sequence, first page, page after the last) as the kernel goes through them."""
    found = []
    for begin, end in zip(plan.starts[:-1].tolist(), plan.starts[1:].tolist(), strict=True):
        part = []
        for sequence in range(begin[0], end[0] + (end[1] > 0)):
            first = begin[1] if sequence == begin[0] else 0
            last = min(end[1], pages[sequence]) if sequence == end[0] else pages[sequence]
            part += [(sequence, first, last)] * (first < last)
        found.append(part)
    return found
