# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""The Gluon decode kernel: right as plain Python on small shapes, its plan fair, compiled for Hopper without spills.

Gluon is not interpreted. On a GPU gluon_latent_oracle.py checks what the kernel computes; here its functions run as
plain Python (gluon_latent_emulated.py).
"""

from __future__ import annotations

import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from harness.binaries import PROCESSORS, rehearse, resources
from harness.registry import load

load("impls")

from impls.attention.gluon_latent_decode import LAUNCHES, latent_decode, launch_for, parts_for
from impls.attention.gluon_latent_mla import unfit
from impls.attention.gluon_latent_plan import LEAST, OVERHEAD, SLACK, planned
from impls.attention.shape import AttentionShape, DecodeShape
from tests.impls.attention.gluon_latent_emulated import emulating, pieces_of
from tests.impls.attention.triton_oracle import SCALE, drawn, expected

pytest.importorskip("triton.experimental.gluon")
nvidia = pytest.importorskip("triton.knobs").nvidia

SHARED_MEMORY = 232_448
SPILLED = {(64, False): 20, (128, False): 24, (32, True): 12, (64, True): 116, (128, True): 160}  # bytes, between pages
MODEL = AttentionShape(7168, 16, 16, 61, query_latent=1536)


def distance(lengths: list[int], tokens: int, heads: int, fp8: bool, parts: int, seed: int = 0) -> float:
    """Relative Frobenius error of the emulated kernel."""
    q, cache, lengths_B = drawn(lengths, tokens, heads, fp8, torch.bfloat16, "cpu", seed)
    with pytest.MonkeyPatch.context() as patch:
        emulating(patch)
        result = latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, planned(lengths_B, parts)).double()
    truth = expected(q, cache, lengths_B)
    return float((result - truth).norm() / truth.norm())


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize(
    ("lengths", "tokens", "heads", "parts"),
    [
        ([1], 1, 1, 1),
        ([2, 64], 2, 8, 3),  # one block of 16 rows, and the first query sees one token
        ([130, 1, 700], 1, 17, 4),  # 32 rows, a sequence in several parts
        ([65, 500], 2, 16, 5),
        ([300, 64], 1, 64, 3),  # 64 rows
        ([64, 257, 3], 1, 70, 2),  # two blocks, the second mostly empty
        ([450], 2, 64, 3),  # two full blocks
    ],
)
def test_emulated_attention_is_attention(lengths, tokens, heads, parts, fp8):
    assert distance(lengths, tokens, heads, fp8, parts) < 5e-3


@settings(max_examples=16, phases=[Phase.generate], deadline=None, derandomize=True, database=None)  # shrinking is slow
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=4),
    st.integers(1, 2),
    st.sampled_from([1, 3, 8, 16, 24, 33]),
    st.booleans(),
    st.integers(1, 9),
)
def test_any_shape(before, tokens, heads, fp8, parts):
    assert distance([length + tokens for length in before], tokens, heads, fp8, parts, seed=len(before)) < 5e-3


@pytest.mark.parametrize("fp8", [False, True])
def test_what_lies_past_the_length_does_not_matter(fp8):
    lengths = [1, 63, 200]
    q, cache, lengths_B = drawn(lengths, 1, 3, fp8, torch.bfloat16, "cpu")
    results = []
    for garbage in (0, 119):  # bytes of 0x77: large and finite in every format
        for sequence, length in enumerate(lengths):
            rows = cache.pages[cache.table_BN[sequence]].flatten(0, 1)
            rows[length:].view(torch.uint8)[:] = garbage
            cache.pages[cache.table_BN[sequence]] = rows.unflatten(0, (-1, 64))
        with pytest.MonkeyPatch.context() as patch:
            emulating(patch)
            results.append(latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, planned(lengths_B, 2)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("cache", ["native", "fp8"])
def test_contender_is_judged_correct(cache, judge, monkeypatch):
    emulating(monkeypatch)
    model = replace(MODEL, hidden=40, heads=9, kv_heads=9, query_latent=24)
    judge("attention.decode_kernel", "mla/gluon", DecodeShape(model, 3, 300, 2, ragged=True, cache=cache))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20), st.integers(1, 40))
def test_plans_cover_each_page_once_and_load_parts_alike(lengths, parts):
    with pytest.MonkeyPatch.context() as patch:
        emulating(patch)
        plan = planned(torch.tensor(lengths, dtype=torch.int32), parts)
    pages = [math.ceil(length / 64) for length in lengths]
    pieces = pieces_of(plan, pages)
    covered = [(one, page) for part in pieces for one, first, last in part for page in range(first, last)]
    assert covered == [(sequence, page) for sequence, count in enumerate(pages) for page in range(count)]
    for sequence, (first, count) in enumerate(plan.spans.tolist()):
        holders = [number for number, part in enumerate(pieces) if any(one == sequence for one, *_ in part)]
        assert holders == list(range(first, first + count))
    share = max(LEAST, math.ceil(sum(count + OVERHEAD for count in pages) / parts))
    assert max(sum(last - first for _, first, last in part) for part in pieces) <= share * (1 + SLACK)


def test_equal_sequences_stay_whole_where_that_is_as_fair():
    for batch, parts, whole in ((128, 132, True), (128, 66, True), (200, 132, False), (1, 132, False)):
        with pytest.MonkeyPatch.context() as patch:
            emulating(patch)
            plan = planned(torch.full((batch,), 4096, dtype=torch.int32), parts)
        assert (plan.spans[:, 1] == 1).all() == whole, (batch, parts)


@pytest.mark.parametrize("heads", [1, 16, 17, 32, 33, 64, 65, 128, 256])
def test_blocks_of_rows_and_parts_fill_the_processors(heads):
    launch = launch_for(heads, False)
    blocks = math.ceil(heads / launch.rows)
    assert launch.rows in (16, 32, 64) and launch.rows * blocks >= heads
    assert PROCESSORS - blocks < parts_for(heads, launch, PROCESSORS) * blocks <= PROCESSORS


@pytest.fixture(scope="module")
def rehearsed():
    registry = load("impls")
    operation = registry.operations["attention.decode_kernel"]
    contender = registry.implementations[operation.name]["mla/gluon"]
    return lambda shape: rehearse(operation, contender, shape)


def page_loops(kernel, folder: Path) -> list[list[str]]:
    """The innermost loops that have matrix instructions, as lines of nvdisasm."""
    binary = folder / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    told = subprocess.run([nvidia.nvdisasm.path, "-c", binary], capture_output=True, text=True, check=True).stdout
    lines = [line for line in told.splitlines() if re.match(r"\.L_x_\d+:|\s+/\*[0-9a-f]+\*/", line)]
    labels = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    jumps = [(number, re.search(r"BRA\b.*(\.L_x_\d+)", line)) for number, line in enumerate(lines)]
    loops = [(labels[to[1]], number) for number, to in jumps if to and labels[to[1]] < number]
    found: list[tuple[int, int]] = []
    for begin, end in sorted(loops, key=lambda loop: loop[1] - loop[0]):
        inside = any("HGMMA" in line for line in lines[begin:end])
        if inside and not any(begin <= other[1] and other[0] <= end for other in found):
            found.append((begin, end))
    return [lines[begin:end] for begin, end in found]


@pytest.mark.parametrize("cache", ["native", "fp8"])
@pytest.mark.parametrize("heads", [16, 32, 64, 128])
def test_compiles_for_hopper(rehearsed, heads, cache, tmp_path):
    """Within shared memory and the registers of a processor, nothing spilled while pages last, and products as many as
    are meant: 36 of scores and 32 of sums, or half as many of sums where rows are 64."""
    model, fp8, rows = replace(MODEL, heads=heads, kv_heads=heads), cache == "fp8", min(heads, 64)
    found = rehearsed(DecodeShape(model, 128, 4096, cache=cache))
    assert [kernel.name for kernel in found.kernels] == ["plan_parts", "attend", "merge_pieces"]
    for kernel in found.kernels:
        taken = resources(kernel)
        assert taken["shared"] <= SHARED_MEMORY, taken
        assert taken["spilled"] <= (SPILLED.get((heads, fp8), 0) if kernel.name == "attend" else 0), taken
    launch, attend = LAUNCHES[rows, fp8], found.kernels[1]
    text, loops = attend.asm["ptx"], page_loops(attend, tmp_path)
    sums = 16 if rows < 64 else 8
    assert sorted(sum("HGMMA" in line for line in loop) for loop in loops) == [sums, sums, 36]
    assert not any(re.search("LDL|STL", line) for loop in loops for line in loop)
    made = {
        kind: text.count(f"wgmma.mma_async.sync.aligned.m64n{rows}k16.f32.{kind}.{kind}") for kind in ("bf16", "f16")
    }
    every = 36 + (32 if rows < 64 else 0)
    assert made == ({"bf16": 4, "f16": every - 4} if fp8 else {"bf16": every, "f16": 0})
    asked = {int(number) for number in re.findall(r"setmaxnreg\.(?:inc|dec)\.sync\.aligned\.u32\s+(\d+)", text)}
    assert asked >= {launch.summing, launch.copying}
    groups = 5 if fp8 else 4
    assert groups * 128 * launch.registers <= 65_536
    scores = groups * launch.registers - 2 * launch.summing - launch.copying - fp8 * launch.converting
    assert scores >= 72 and scores in asked


def test_two_query_tokens_of_many_heads_are_one_launch(rehearsed):
    model = replace(MODEL, heads=128, kv_heads=128)
    found = rehearsed(DecodeShape(model, 8, 4096, 2, ragged=True, cache="fp8"))
    assert [kernel.name for kernel in found.kernels] == ["plan_parts", "attend", "merge_pieces"]
    assert found.operators["operators"] <= 20


def test_refuses_what_the_kernel_is_not_made_for(monkeypatch):
    import triton

    assert unfit(DecodeShape(MODEL, 1, 8)) is None
    for changed in ({"latent": 256}, {"rope_dim": 32}, {"dtype": "float16"}):
        assert unfit(DecodeShape(replace(MODEL, **changed), 1, 8)) is not None
    monkeypatch.setattr(triton, "__version__", "3.8.1")
    assert "this is 3.8.1" in str(unfit(DecodeShape(MODEL, 1, 8)))
