# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""The Gluon kernel: compiled for Hopper without spills, and its blocks cover each result once.

Gluon is not interpreted. On a GPU triton_linear_oracle.py checks what the kernel computes; here its functions run as
plain Python (gluon_emulated.py).
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.binaries import compiling, resources
from harness.registry import load

load("impls")

from impls.linear import gluon_gemm
from impls.linear import gluon_gemm_kernels as kernels
from impls.linear.quantize import E4M3, Quantized, dequantize, quantize
from impls.linear.reference import product
from impls.linear.shape import GroupedShape, LinearShape
from tests.impls.linear.gluon_emulated import Launch, Pointer, emulate, multiply

SHARED_MEMORY = 232_448

pytest.importorskip("triton.experimental.gluon")


def every_block(sizes, ends, halves: int, tiles: bool):
    halvings = len(ends).bit_length() if ends else 0
    pointer = Pointer(torch.tensor(ends))
    return [
        kernels._block(number, sizes, pointer, halves, tiles, halvings, 8)
        for number in range(kernels._blocks(sizes, halves, tiles))
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_of_rows_cover_each_group_with_its_own_weight(data):
    with pytest.MonkeyPatch.context() as patch:
        emulate(patch, Launch())
        loads = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
        ends = [128 * sum(loads[: group + 1]) for group in range(len(loads))]
        after, halves = data.draw(st.integers(0, 2)), data.draw(st.sampled_from([1, 2]))
        rows, columns, length = ends[-1] + 128 * after, data.draw(st.integers(1, 900)), data.draw(st.integers(1, 900))
        found = every_block((rows, columns, length, len(loads)), ends, halves, False)
        wanted = {(row, column) for row in range(0, rows, 128) for column in range(0, columns, 128 * halves)}
        assert len(found) == len(wanted) and {(row, column) for row, column, *_ in found} == wanted
        for row, _, group, begin, last in found:
            inside = row < ends[-1]
            assert begin == 0 and last == (math.ceil(length / 128) if inside else 0) and group < len(loads)
            if inside:
                assert ends[group] - 128 * loads[group] <= row < ends[group]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_blocks_over_the_summed_axis_take_each_group_s_part(data):
    with pytest.MonkeyPatch.context() as patch:
        emulate(patch, Launch())
        loads = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=9))
        ends = [128 * sum(loads[: group + 1]) for group in range(len(loads))]
        rows, columns = data.draw(st.integers(1, 500)), data.draw(st.integers(1, 500))
        found = every_block((rows, columns, max(ends[-1], 1), len(loads)), ends, 1, True)
        assert len(set(found)) == len(found) == len(loads) * math.ceil(rows / 128) * math.ceil(columns / 128)
        for _, _, group, begin, last in found:
            assert (begin * 128, last * 128) == (ends[group] - 128 * loads[group], ends[group])


@pytest.mark.parametrize(("grain", "halves"), [("block", 1), ("block", 2), ("tile", 1)])
@pytest.mark.parametrize(("rows", "outs", "ins"), [(70, 40, 96), (300, 520, 400), (129, 385, 640)])
def test_emulated_products_are_those_of_what_operands_stand_for(rows, outs, ins, grain, halves):
    a, b = quantize(torch.randn(rows, ins), "tile"), quantize(torch.randn(outs, ins), grain)
    out = torch.full((rows, outs), torch.nan)
    multiply(a, b, out, None, halves)
    torch.testing.assert_close(out, product(a, b), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("halves", [1, 2])
def test_emulated_products_of_groups_take_their_own_weights(halves):
    sizes, ends = (128, 0, 256), [128, 128, 384]
    x = quantize(torch.randn(512, 300), "tile")
    experts = [quantize(torch.randn(200, 300), "block") for _ in sizes]
    w = Quantized(torch.stack([e.payload for e in experts]), torch.stack([e.scale for e in experts]), "block")
    out = torch.full((512, 200), torch.nan)
    multiply(x, w, out, ends, halves)
    exact = dequantize(x)
    wanted = [exact[end - size : end] @ dequantize(e).T for end, size, e in zip(ends, sizes, experts, strict=True)]
    torch.testing.assert_close(out, torch.cat([*wanted, torch.zeros(128, 200)]), rtol=1e-4, atol=1e-3)


def test_emulated_products_over_parts_of_the_summed_axis():
    sizes, ends = (128, 0, 256), [128, 128, 384]
    dy, x = quantize(torch.randn(192, 384), "tile"), quantize(torch.randn(150, 384), "tile")
    out = torch.full((3, 192, 150), torch.nan)
    multiply(dy, x, out, ends, 1)
    left, right = dequantize(dy), dequantize(x)
    wanted = [left[:, end - size : end] @ right[:, end - size : end].T for end, size in zip(ends, sizes, strict=True)]
    torch.testing.assert_close(out, torch.stack(wanted), rtol=1e-4, atol=1e-3)


def empty(*sizes: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(*sizes, dtype=dtype, device="meta")


def operand(rows: int, length: int, grain: str, *groups: int) -> Quantized:
    tiles = -(-length // 128)
    scales = (tiles, rows) if grain == "tile" else (*groups, -(-rows // 128), tiles)
    return Quantized(empty(*groups, rows, length, dtype=E4M3), empty(*scales, dtype=torch.float32), grain)


def check(kernel, halves: int, tiles: bool) -> None:
    """No spills within the registers that warp groups take, a chain of matrix instructions for each half in both, no
    more registers asked for than there are, and every stage given back."""
    found, text = resources(kernel), kernel.asm["ptx"]
    assert found["shared"] <= SHARED_MEMORY and found["spilled"] == found["stack"] == 0, found
    assert text.count("wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3") == 2 * 4 * halves
    assert {int(n) for n in re.findall(r"setmaxnreg.inc.sync.aligned.u32\s+(\d+)", text)} >= {240}
    arrivals = list(re.finditer(r"mbarrier\.arrive\.shared::cta\.b64 _, \[(%r\d+)\]", text))
    for given_back in arrivals[0], arrivals[len(arrivals) // 2]:
        # In the loop over steps, and so another stage each time: not what was one name for two values before the loop.
        before = text[: given_back.start()]
        assert before.rindex(f"\t{given_back[1]}, ") > before.rindex("\n$L__BB")
    assert 128 * (240 + 240 + 24) <= 65_536 and text.count("cp.async.bulk.tensor.2d.shared") == halves + 2 + tiles


@pytest.mark.parametrize("out", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("grain", ["block", "tile"])
def test_products_compile_without_spills(grain, out):
    wide = grain == "block" and out.itemsize == 2
    for halves in (1, 2) if wide else (1,):
        with compiling() as compiled:
            made = gluon_gemm.multiply(operand(4096, 7168, "tile"), operand(2112, 7168, grain), out, halves)
        assert made.shape == (4096, 2112)
        check(compiled[-1], halves, grain == "tile")


@pytest.mark.parametrize("groups", [1, 32])
def test_grouped_products_compile_and_read_nothing_back(groups):
    ends_E = empty(groups, dtype=torch.int32)
    with compiling() as compiled:
        x, w = operand(8192, 7168, "tile"), operand(4096, 7168, "block", groups)
        assert gluon_gemm.multiply_grouped(x, w, ends_E, torch.bfloat16).shape == (8192, 4096)
        dy, turned = operand(4096, 8192, "tile"), operand(7168, 8192, "tile")
        assert gluon_gemm.multiply_between(dy, turned, ends_E).shape == (groups, 4096, 7168)
    check(compiled[0], 2, False)
    check(compiled[1], 1, True)


def test_wider_blocks_are_taken_where_they_fill_turns():
    assert gluon_gemm.halves_for(4096, 7168, 132) == 2
    assert gluon_gemm.halves_for(4096, 2112, 132) == 1  # 5 turns, or 3
    assert gluon_gemm.halves_for(128, 4096, 132) == 1  # 32 blocks, or 16


def test_says_what_it_is_not_made_for(monkeypatch):
    import triton

    assert gluon_gemm.unfit(LinearShape(70, 144, 400)) is None
    assert "whole 16 bytes" in str(gluon_gemm.unfit(LinearShape(70, 140, 400)))
    assert "64 rows at once" in str(gluon_gemm.unfit_apart(GroupedShape(2, 256, 144, 400)))
    monkeypatch.setattr(triton, "__version__", "3.8.1")
    assert "this is 3.8.1" in str(gluon_gemm.unfit(LinearShape(70, 144, 400)))
