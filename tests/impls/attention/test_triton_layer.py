# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""The paged MLA layer: its cache layout anywhere, every kernel it launches compiled for sm_90 with the very arguments.

Compiled kernels are the harness's rehearsal of the contenders, as the exact gate has them.

What the kernels compute is checked by test_triton_interpreted.py, in a process started from here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.binaries import PROCESSORS, rehearse, resources
from harness.registry import load

load("impls")

from impls.attention.cache import Fp8LatentCache, LatentCache, quantize
from impls.attention.shape import AttentionShape, DecodeShape
from impls.attention.triton_latent_decode import PAGE, launch_for
from impls.attention.triton_mla import contiguous, no_pages, paged
from tests.impls.child import require_passed_in_the_interpreter, run

SHARED_MEMORY = 232_448
MODEL = AttentionShape(hidden=64, heads=16, kv_heads=16, layers=1, query_latent=1536)


def test_in_the_interpreter():
    pytest.importorskip("triton")
    require_passed_in_the_interpreter("tests/impls/attention/test_triton_interpreted.py")


def test_is_listed_where_triton_is_missing():
    run(
        "-c",
        """
import sys
sys.modules["triton"] = None
from harness.registry import load
for operation in ("attention.decode", "attention.decode_kernel"):
    assert load("impls").implementations[operation]["mla/triton"].needs == ("cuda", "triton")
""",
    )


@pytest.mark.parametrize("slots", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("fp8", [False, True])
def test_pages_hold_the_cache(slots, fp8):
    generator = torch.Generator().manual_seed(slots)
    c = torch.randn(3, slots, 512, generator=generator).to(torch.bfloat16)
    r = torch.randn(3, slots, 64, generator=generator).to(torch.bfloat16)
    cache = Fp8LatentCache(quantize(c, r)) if fp8 else LatentCache(c, r)
    packed = paged(cache)
    assert packed.pages.shape[1] == PAGE and packed.pages.is_contiguous() and packed.table_BN.dtype == torch.int32
    assert sorted(packed.table_BN.flatten().tolist()) == list(range(len(packed.pages)))
    for name, tensor in vars(contiguous(packed, slots)).items():
        assert torch.equal(tensor, vars(cache)[name]), name


def test_pages_are_shuffled():
    table = paged(LatentCache(torch.zeros(4, 640, 512), torch.zeros(4, 640, 64))).table_BN.flatten()
    assert not torch.equal(table, torch.arange(len(table), dtype=torch.int32))


def test_refuses_what_the_kernels_are_not_made_for():
    assert no_pages(DecodeShape(MODEL, 1, 8)) is None
    for changed in ({"latent": 256}, {"rope_dim": 32}, {"dtype": "float32"}):
        assert no_pages(DecodeShape(replace(MODEL, **changed), 1, 8)) is not None


@pytest.fixture(scope="module")
def rehearsed():
    """What a contender launches, compiled for sm_90 and not run."""
    pytest.importorskip("triton")
    registry = load("impls")

    def made(name, shape):
        return rehearse(registry.operations[name], registry.implementations[name]["mla/triton"], shape)

    return made


def check(kernel) -> None:
    """Limits of every kernel; matrix instructions and a pipeline in attention, which computed wrongly without.

    Attention over FP8 spills a little, which the exact gate keeps from growing.
    """
    found = resources(kernel)
    assert found["shared"] <= SHARED_MEMORY, (kernel.name, found)
    assert found["spilled"] == 0 or kernel.name.endswith("_fp8"), (kernel.name, found)
    if kernel.name.startswith("attend"):
        assert "wgmma.mma_async" in kernel.asm["ptx"], kernel.name
        text = kernel.asm["ttgir"]
        loop = text[text.index("scf.for") :].split("scf.yield")[0]
        # a copy that is waited for where it is issued takes its barrier down in the loop
        assert "async_tma_copy" in loop and "inval_barrier" not in loop, kernel.name


@pytest.mark.parametrize("query_latent", [None, 1536])
@pytest.mark.parametrize(
    ("cache", "batch", "tokens", "heads", "length", "attend"),
    [
        ("native", 128, 1, 16, 4096, "attend_turned"),
        ("native", 128, 2, 16, 4096, "attend_turned"),
        ("native", 1, 1, 128, 8192, "attend_direct"),
        ("native", 1, 1, 16, 32768, "attend_turned"),
        ("fp8", 128, 1, 16, 4096, "attend_turned_fp8"),
        ("fp8", 2, 1, 128, 100, "attend_direct_fp8"),
    ],
)
def test_the_layer_compiles_as_it_is_launched(rehearsed, cache, batch, tokens, heads, length, attend, query_latent):
    model = replace(MODEL, hidden=2048, heads=heads, kv_heads=heads, query_latent=query_latent)
    shape = DecodeShape(model, batch, length, tokens, cache=cache)
    kernels = rehearsed("attention.decode", shape).kernels
    splits = launch_for(batch, tokens * heads, shape.slots, cache == "fp8", PROCESSORS).splits
    assert [kernel.name for kernel in kernels] == ["settle", "turn", attend] + ["merge"] * (splits > 1)
    assert ("e4m3x2" in kernels[0].asm["ptx"]) == (cache == "fp8")
    for kernel in kernels:
        check(kernel)


def test_the_kernel_alone_is_one_launch_or_two(rehearsed):
    for length, names in ((4096, ["attend_turned"]), (64 * 132 * 4, ["attend_turned", "merge"])):
        shape = DecodeShape(MODEL, 132 if len(names) == 1 else 1, length)
        rehearsal = rehearsed("attention.decode_kernel", shape)
        assert [kernel.name for kernel in rehearsal.kernels] == names
        assert rehearsal.operators["operators"] <= 12
