"""The Triton kernels in Triton's interpreter, which must be chosen before Triton is imported.

So these tests run in a process of their own, started by test_triton_layer.py; anywhere else the file is skipped. The
interpreter has no BF16, so queries are FP16, or FP32 where a tight bound is wanted. triton_oracle.py has a list of odd
shapes; here are any shapes, what must not matter, and the layer as the harness judges it.
"""

# ruff: noqa: E402 - a registry must be loading when the modules are first imported
from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs in its own process, with TRITON_INTERPRET=1", allow_module_level=True)

import triton.language as tl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from triton.runtime import interpreter

from harness.registry import load

load("impls")

from impls.attention import triton_mla
from impls.attention.cache import FP8_LATENT, FP8_SCALES
from impls.attention.shape import AttentionShape, DecodeShape, Yarn
from impls.attention.triton_latent_decode import PAGE, Launch, latent_decode
from tests.impls.attention.triton_oracle import SCALE, compare, drawn, expected

LAUNCHES = {
    False: (Launch(16, 4, 2, 1), Launch(32, 4, 2, 3), Launch(64, 8, 2, 2)),
    True: (Launch(16, 4, 2, 3), Launch(32, 8, 2, 1), Launch(64, 8, 2, 2)),
}
MODEL = AttentionShape(
    hidden=40,
    heads=3,
    kv_heads=3,
    layers=2,
    latent=512,
    query_latent=24,
    nope_dim=12,
    rope_dim=64,
    value_dim=10,
    dtype="float16",
)


@pytest.mark.parametrize("launch", LAUNCHES[False])
def test_float32_is_exact_to_its_rounding(launch):
    assert compare(launch, [1, 70, 129], 1, 5, False, torch.float32, "cpu") < 2e-6


def test_more_splits_than_pages_leave_empty_shares():
    for fp8 in (False, True):
        assert compare(Launch(16, 4, 2, 9), [1, 65], 1, 3, fp8, torch.float16, "cpu") < 2e-3


@settings(max_examples=8, phases=[Phase.generate], deadline=None, derandomize=True, database=None)  # shrinking is slow
@given(
    st.lists(st.integers(0, 140), min_size=1, max_size=2),
    st.integers(1, 2),
    st.integers(1, 24),
    st.booleans(),
    st.integers(1, 7),
    st.integers(0, 2),
)
def test_any_shape(before, tokens, heads, fp8, splits, which):
    launch = replace(LAUNCHES[fp8][which], splits=splits)
    lengths = [length + tokens for length in before]
    assert compare(launch, lengths, tokens, heads, fp8, torch.float16, "cpu") < 2e-3


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_lies_past_the_length_does_not_matter(fp8, which):
    lengths = [1, 63, 70]
    q, cache, lengths_B = drawn(lengths, 1, 3, fp8, torch.float16, "cpu")
    clean = latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, LAUNCHES[fp8][which])
    for sequence, length in enumerate(lengths):
        rows = cache.pages[cache.table_BN[sequence]].flatten(0, 1)
        if fp8:
            rows[length:, :FP8_LATENT] = torch.tensor(448.0).to(torch.float8_e4m3fn).view(torch.uint8)
            rows[length:, FP8_LATENT:FP8_SCALES] = torch.full((4,), 100.0).view(torch.uint8)
            rows[length:, FP8_SCALES:] = torch.full((64,), 3e4, dtype=torch.bfloat16).view(torch.uint8)
        else:
            rows[length:] = 6e4
        cache.pages[cache.table_BN[sequence]] = rows.unflatten(0, (-1, PAGE))
    dirty = latent_decode(q, cache.pages, cache.table_BN, lengths_B, SCALE, LAUNCHES[fp8][which])
    torch.testing.assert_close(dirty, clean, rtol=0, atol=0)


def test_where_pages_lie_does_not_matter():
    q, cache, lengths_B = drawn([190, 100], 2, 4, False, torch.float16, "cpu")
    launch = Launch(16, 4, 2, 2)
    moved = torch.randperm(len(cache.pages), generator=torch.Generator().manual_seed(1))
    pages, table_BN = cache.pages[moved], moved.argsort()[cache.table_BN].to(torch.int32)
    assert not torch.equal(table_BN, cache.table_BN)
    results = [
        latent_decode(q, *paged, lengths_B, SCALE, launch)
        for paged in ((cache.pages, cache.table_BN), (pages, table_BN))
    ]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_queries_of_any_magnitude_over_fp8():
    q, cache, lengths_B = drawn([100], 1, 3, True, torch.float16, "cpu")
    for factor in (1e-3, 30.0):
        scaled = (q * factor).to(torch.float16)
        truth = expected(scaled, cache, lengths_B)
        result = latent_decode(scaled, cache.pages, cache.table_BN, lengths_B, SCALE, LAUNCHES[True][0])
        assert (result.double() - truth).norm() < 5e-3 * truth.norm()


SHAPES = {
    "one": DecodeShape(MODEL, batch=2, length=70),
    "two-ragged": DecodeShape(MODEL, batch=3, length=90, new_tokens=2, ragged=True),
    "crosses-a-page": DecodeShape(MODEL, batch=2, length=63, new_tokens=2),
    "direct-yarn": DecodeShape(replace(MODEL, query_latent=None, yarn=Yarn(original_length=16)), batch=2, length=40),
    "many-heads": DecodeShape(replace(MODEL, heads=20), batch=1, length=5),
    "fp8": DecodeShape(MODEL, batch=2, length=70, cache="fp8"),
    "fp8-two-ragged": DecodeShape(MODEL, batch=3, length=90, new_tokens=2, ragged=True, cache="fp8"),
    "first-token": DecodeShape(MODEL, batch=2, length=0),
}


@pytest.fixture
def e4m3_rounds(monkeypatch):
    """Triton 3.6.0's interpreter loses the carry when it rounds 1.111... up to E4M3; the GPU and PyTorch do not."""
    original = interpreter._convert_float

    def convert(values, source, target, mode):
        if target != tl.float8e4nv:
            return original(values, source, target, mode)
        return torch.from_numpy(values.astype("float32")).to(torch.float8_e4m3fn).view(torch.uint8).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", convert)


@pytest.mark.usefixtures("e4m3_rounds")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("operation", ["attention.decode", "attention.decode_kernel"])
def test_contender_is_judged_correct(operation, name, judge, monkeypatch):
    assert triton_mla.no_pages(SHAPES[name]) is None
    judge(operation, "mla/triton", SHAPES[name])
