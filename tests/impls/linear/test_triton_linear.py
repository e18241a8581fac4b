# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""FP8 kernels of ours: compiled for Hopper at DeepSeek's sizes and within its limits, without a word to the host.

What they compute is checked by triton_linear_oracle.py and test_triton_linear_interpreted.py, in processes started from
here, for Triton decides when it is imported whether it interprets.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.binaries import Absent, compiling, resources
from harness.registry import load

load("impls")

from impls.linear import triton_gemm, triton_quantize
from impls.linear.inputs import TrainInputs
from impls.linear.quantize import E4M3, Quantized
from impls.linear.shape import LinearShape
from impls.linear.triton_gemm import BLOCKS, FILLED, Block, block_for, number
from impls.linear.triton_train import train
from tests.impls.child import require_passed_in_the_interpreter, run

SHARED_MEMORY = 232_448


def test_everything_equals_the_definition():
    pytest.importorskip("triton")
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    told = run("-m", "tests.impls.linear.triton_linear_oracle", **interpret)
    assert re.search(r"^\d\d+ tried, 0 wrong$", told, re.MULTILINE), told


def test_in_the_interpreter():
    pytest.importorskip("triton")
    require_passed_in_the_interpreter("tests/impls/linear/test_triton_linear_interpreted.py")


def test_is_listed_where_triton_is_missing():
    run(
        "-c",
        """
import sys
sys.modules["triton"] = None
from harness.registry import load
known = load("impls").implementations
for name in ("fprop", "dgrad", "wgrad", "quantize", "layer_train", "grouped", "grouped_dgrad", "grouped_wgrad"):
    assert known[f"linear.{name}"]["fp8/triton"].needs == ("cuda", "sm_90", "triton")
""",
    )


@given(st.integers(1, 20_000), st.integers(1, 40_000), st.sampled_from([4, 78, 114, 132]))
def test_blocks_are_as_wide_as_fills_the_machine(rows, columns, processors):
    block = block_for(rows, columns, processors)
    wider = [one for one in BLOCKS[: BLOCKS.index(block)] if rows > 64 or one.rows == 64]
    assert all(number(rows, columns, one) < FILLED * processors for one in wider)
    assert number(rows, columns, block) >= FILLED * processors or block is BLOCKS[-1]
    assert 128 % block.columns == 0 and 128 % block.rows == 0


@pytest.fixture
def compiled():
    """The kernels that a test launches on tensors without memory, compiled for sm_90 and not run."""
    pytest.importorskip("triton")
    with compiling() as kernels:
        yield kernels


def empty(*sizes: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without memory: whoever asks for one of its values fails."""
    return torch.empty(*sizes, dtype=dtype, device="meta")


def operand(rows: int, length: int, grain: str, *groups: int) -> Quantized:
    tiles = -(-length // 128)
    scales = (tiles, rows) if grain == "tile" else (*groups, -(-rows // 128), tiles)
    return Quantized(empty(*groups, rows, length, dtype=E4M3), empty(*scales, dtype=torch.float32), grain)


def check(kernels: list, spilled: int = 0) -> None:
    """Limits of every kernel; one matrix instruction of the tensor core a step, and operands by asynchronous copies."""
    assert kernels
    for kernel in kernels:
        found = resources(kernel)
        assert found["shared"] <= SHARED_MEMORY and found["spilled"] <= spilled, (kernel.name, found)
        if kernel.name.startswith("by_"):
            text = kernel.asm["ttgir"]
            loop = text[text.rindex("scf.for") :].split("scf.yield")[0]
            assert "m64n" in kernel.asm["ptx"] and "e4m3.e4m3" in kernel.asm["ptx"]
            assert loop.count("warp_group_dot ") == 1
            assert not re.search(r"convert_layout .* : tensor<\d+x\d+x", loop), "a block changes hands in each step"
            assert "async_tma_copy" in loop, kernel.name


@pytest.mark.parametrize("block", BLOCKS)
def test_products_compile_for_every_block(block: Block, compiled):
    x = operand(4096, 7168, "tile")
    for out in (torch.bfloat16, torch.float32):
        assert triton_gemm.multiply(x, operand(2112, 7168, "block"), out, block).dtype == out
    assert triton_gemm.multiply(x, operand(2112, 7168, "tile"), torch.float32, block).shape == (4096, 2112)
    check(compiled)


def test_sizes_that_are_not_aligned_are_copied_too(compiled):
    for grain in ("block", "tile"):
        triton_gemm.multiply(operand(4095, 7167, "tile"), operand(2111, 7167, grain), torch.float32)
    triton_gemm.multiply_between(operand(63, 512, "tile"), operand(2048, 512, "tile"), empty(4, dtype=torch.int32))
    assert "async_tma_copy_local_to_global" not in compiled[-1].asm["ttgir"], "rows of the next group are overwritten"
    check(compiled, spilled=64)  # at the end, where a result of odd width is stored element by element


@pytest.mark.parametrize("groups", [4, 32, 200])
def test_grouped_products_compile_and_read_nothing_back(groups, compiled):
    ends_E = empty(groups, dtype=torch.int32)
    x, w = operand(8192, 7168, "tile"), operand(4096, 7168, "block", groups)
    assert triton_gemm.multiply_grouped(x, w, ends_E, torch.bfloat16).shape == (8192, 4096)
    dy, turned = operand(4096, 8192, "tile"), operand(7168, 8192, "tile")
    assert triton_gemm.multiply_between(dy, turned, ends_E).shape == (groups, 4096, 7168)
    check(compiled)


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32], ids=str)
def quantizers(request, compiled):
    """Every form of quantizing, compiled for inputs of one dtype."""
    x, dtype = empty(4096, 7168, dtype=request.param), request.param
    triton_quantize.tiles(x, False)
    triton_quantize.tiles(empty(4096, 14336, dtype=dtype), True, silu=True)
    triton_quantize.normed(x, empty(7168, dtype=dtype), False)
    triton_quantize.blocks(x, False)
    triton_quantize.transposed(x, False)
    triton_quantize.transposed(empty(4096, 7168, dtype=E4M3), False, empty(56, 4096, dtype=torch.float32))
    for block in (True, False):
        triton_quantize.squares(x, False, block=block, straight=not block, turned=True)
    return compiled


def test_quantizers_write_sixteen_bytes_at_once_and_read_words(quantizers):
    check(quantizers)
    for kernel in quantizers:
        assert "st.global.v4" in kernel.asm["ptx"] and not re.search(r"ld\.global\.[bsu](8|16)", kernel.asm["ptx"])


def test_no_byte_is_taken_from_a_register_that_holds_none(quantizers, tmp_path):
    """ptxas 12.8 makes one instruction of two conversions that fill a word, and has whoever else uses the first of them
    read R1, the stack pointer: a payload that was stored in two layouts was wrong in one, with no word of warning."""
    from triton import knobs

    for kernel in quantizers:
        (tmp_path / "cubin").write_bytes(kernel.asm["cubin"])
        words = [knobs.nvidia.nvdisasm.path, "-c", str(tmp_path / "cubin")]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "F2FP" in text and not re.search(r"(LOP3\.LUT|PRMT) R\d+, R1\b", text), kernel.name


def test_training_launches_seven_kernels(compiled):
    shape = LinearShape(8192, 7168, 2048)
    call = train(empty(7168, 2048, dtype=torch.float32), shape)
    made = call(TrainInputs(empty(8192, 2048), empty(8192, 7168)))
    assert made.dw_NK.dtype == torch.float32 and made.dx_MK.dtype == torch.bfloat16
    names = ["tiles", "squares", "by_blocks", "squares", "by_blocks", "squares", "by_tiles"]
    assert [kernel.name for kernel in compiled] == names
    check(compiled)


@pytest.mark.parametrize("section", ["fprop", "wgrad", "quantize", "grouped", "train"])
def test_what_is_timed_can_be_launched(section, compiled, monkeypatch):
    """Lines of the timing script, on tensors without memory: no GPU is needed to see that they are not broken."""
    from tests.impls.linear import triton_linear_times as times

    monkeypatch.setattr(times, "generator", lambda seed: Absent())
    monkeypatch.setattr(times, "LAYERS", ((2112, 7168), (576, 7168)))
    launched = 0
    for line in times.lines(section):
        if line.who in ("triton", "gluon"):
            line.call()
            launched += 1
    assert launched and len(compiled) >= launched


def test_the_summary_of_times_takes_what_was_measured_on_the_device():
    from tests.impls.linear import triton_linear_times as times

    told = [
        "fprop m4096 n1 k1 | triton | 10.0 us 1.0 TFLOP/s",
        "fprop m4096 n1 k1 | cublas-block | 20.0 us 1.0 TFLOP/s",
        "fprop m8192 n1 k1 | triton | -10.0 us 1.0 TFLOP/s",
        "fprop m64 n1 k1 | triton | 1.0 us 1.0 TFLOP/s",
        "fprop m64 n1 k1 | cublas-block | 9.0 us 1.0 TFLOP/s",
        "CRASHED at 7 fprop: segmentation fault",
    ]
    found = times.microseconds(told)
    assert found["fprop m4096 n1 k1"] == {"triton": 10.0, "cublas-block": 20.0} and "fprop m8192 n1 k1" not in found
    assert list(times.summary(found)) == ["fprop: triton 2.000 times cublas-block on the geometric mean of 1 sizes"]


def test_a_process_that_hangs_or_crashes_costs_one_case(monkeypatch):
    from tests.impls.linear import triton_linear_oracle as oracle

    program = """
import sys, time
for index in range(int(sys.argv[1]), 4):
    print("at", index, flush=True)
    if index == 1: time.sleep(60)
    if index == 2: sys.exit("broken")
    print("made 3", flush=True)
"""

    def started(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", program, words[0]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)

    for name, value in (("started", started), ("CASES", 4), ("PROCESSES", 1), ("CASE_SECONDS", 2.0)):
        monkeypatch.setattr(oracle, name, value)
    made, wrong = oracle.watched(0)
    assert made == 3 + 1 + 1 + 3
    assert [line.split(":")[0] for line in wrong] == ["CRASHED at case 1", "CRASHED at case 2"]
    assert "silent" in wrong[0] and "broken" in wrong[1]
