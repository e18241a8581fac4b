# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""Products divided along the summed axis: what is chosen, and that it compiles for Hopper as it was meant.

What they compute is checked by test_triton_split_interpreted.py, and on a GPU by triton_linear_oracle.py.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.binaries import compiling, resources
from harness.registry import load

load("impls")

from impls.linear import triton_gemm
from impls.linear.quantize import E4M3, Quantized
from impls.linear.triton_split import FEW, LONG, MOST_PARTS, SLICES, Plan, Slice, launch, plan_for
from tests.impls.child import require_passed_in_the_interpreter

REGISTERS, SHARED_MEMORY, RESERVED = 65_536, 233_472, 1024  # of a processor; of that a program loses the last
EVERY = [one for slices in SLICES.values() for one in slices]


def test_in_the_interpreter():
    pytest.importorskip("triton")
    require_passed_in_the_interpreter("tests/impls/linear/test_triton_split_interpreted.py")


@given(st.integers(1, 9000), st.integers(1, 40_000), st.integers(129, 20_000), st.sampled_from([4, 78, 114, 132]))
def test_parts_are_no_more_than_steps_and_are_resident_at_once(rows, columns, length, processors):
    plan = plan_for(rows, columns, length, processors)
    if plan is None:
        assert math.ceil(rows / 128) * math.ceil(columns / 128) > (FEW if length <= LONG else 1) * processors
        return
    programs = plan.slice.blocks(rows, columns) * plan.parts
    assert 1 <= plan.parts <= min(MOST_PARTS, math.ceil(length / 128))
    assert plan.parts == 1 or programs <= plan.slice.programs * processors
    assert 128 % plan.slice.columns == 0 and plan.slice in EVERY


@pytest.mark.parametrize("rows", [1, 16, 64, 128])
@pytest.mark.parametrize(("outs", "ins"), [(2112, 7168), (576, 7168), (4096, 7168), (7168, 16384)])
def test_few_blocks_of_many_steps_are_divided_over_most_of_the_machine(rows, outs, ins):
    plan = plan_for(rows, outs, ins, 132)
    assert plan is not None and plan.parts > 1
    assert plan.slice.blocks(rows, outs) * plan.parts >= 0.5 * 132


def test_one_step_and_plenty_of_blocks_are_left_to_the_others():
    assert plan_for(0, 128, 256, 132) is plan_for(64, 0, 256, 132) is plan_for(64, 128, 128, 132) is None
    assert plan_for(8192, 7168, 2048, 132) is plan_for(1024, 7168, 16384, 132) is None


@pytest.fixture
def compiled():
    """The kernels that a test launches on tensors without memory, compiled for sm_90 and not run."""
    pytest.importorskip("triton")
    with compiling() as kernels:
        yield kernels


def operand(rows: int, length: int, grain: str) -> Quantized:
    tiles = -(-length // 128)
    scales = (tiles, rows) if grain == "tile" else (-(-rows // 128), tiles)
    payload = torch.empty(rows, length, dtype=E4M3, device="meta")
    return Quantized(payload, torch.empty(scales, device="meta"), grain)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: f"{one.rows}x{one.columns}")
def test_slices_compile_and_are_resident_as_often_as_they_say(one: Slice, compiled):
    a, b = operand(one.rows, 7168, "tile"), operand(2112, 7168, "block")
    for out, parts in ((torch.bfloat16, 1), (torch.bfloat16, 4), (torch.float32, 7)):
        launch(a, b, torch.empty(one.rows, 2112, dtype=out, device="meta"), Plan(one, parts))
    assert [kernel.name for kernel in compiled] == ["split", "split", "add_parts", "split", "add_parts"]
    for kernel in compiled:
        found = resources(kernel)
        assert found["spilled"] == 0
        if kernel.name == "split":
            assert one.programs * (found["shared"] + RESERVED) <= SHARED_MEMORY
            assert one.programs * found["registers"] * 32 * one.warps <= REGISTERS
            text = kernel.asm["ttgir"]
            loop = text[text.rindex("scf.for") :].split("scf.yield")[0]
            assert loop.count("warp_group_dot ") == 1 and "async_tma_copy" in loop
            assert f"memdesc<{one.stages}x" in text, "the loop is not pipelined"
            assert not re.search(r"convert_layout .* : tensor<\d+x\d+x", loop), "a block changes hands in each step"
            side = one.rows if one.turned else one.columns
            assert f"m64n{side}k32" in kernel.asm["ptx"]


def test_both_launches_overlap_where_there_are_parts(compiled):
    launch(*_small(), torch.empty(16, 256, device="meta"), Plan(EVERY[0], 2))
    split, add = compiled
    assert "griddepcontrol.launch_dependents" in split.asm["ptx"] and "griddepcontrol.wait" in add.asm["ptx"]
    assert add.metadata.launch_pdl
    launch(*_small(), torch.empty(16, 256, device="meta"), Plan(EVERY[0], 1))
    assert "griddepcontrol" not in compiled[-1].asm["ptx"]


def _small() -> tuple[Quantized, Quantized]:
    return operand(16, 512, "tile"), operand(256, 512, "block")


def test_what_is_multiplied_apart(compiled):
    triton_gemm.multiply(operand(64, 7168, "tile"), operand(2112, 7168, "block"), torch.bfloat16)
    triton_gemm.multiply(operand(1, 7167, "tile"), operand(2111, 7167, "block"), torch.float32)
    triton_gemm.multiply(operand(1024, 2048, "tile"), operand(2112, 2048, "block"), torch.bfloat16)
    assert {kernel.name for kernel in compiled} == {"split", "add_parts"}
    compiled.clear()
    triton_gemm.multiply(operand(64, 7168, "tile"), operand(2112, 7168, "block"), torch.bfloat16, triton_gemm.FEW[0])
    triton_gemm.multiply(operand(8192, 7168, "tile"), operand(7168, 7168, "block"), torch.bfloat16)
    triton_gemm.multiply(operand(64, 7168, "tile"), operand(2112, 7168, "tile"), torch.float32)
    assert [kernel.name for kernel in compiled] == ["by_blocks", "by_blocks", "by_tiles"]
