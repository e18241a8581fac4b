# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""The mixture in Triton: compiled for Hopper at the sizes it is for and within its limits, without a word to the host.

What the kernels compute is checked by triton_moe_oracle.py and test_triton_moe_interpreted.py, in processes started
from here, for Triton decides when it is imported whether it interprets.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.binaries import compiling, resources
from harness.registry import load

load("impls")

from impls.ffn import triton_grouped, triton_moe, triton_train
from impls.ffn.inputs import Permuted, PermuteInputs, SelectInputs, TokenInputs, TrainInputs
from impls.ffn.layers import train_with
from impls.ffn.shape import FfnShape, Router, TokenShape
from impls.ffn.triton_order import most_blocks
from impls.ffn.triton_routing import COLUMNS, logits_launch
from impls.ffn.weights import ChoiceWeights, DenseWeights, MoeWeights, RouterWeights
from tests.impls.child import require_passed_in_the_interpreter, run

SHARED_MEMORY = 232_448
V3 = FfnShape(7168, 2048, 1, Router(32, 8, "sigmoid", normalise=True, scale=2.5))
WHOLE_V3 = replace(V3, router=Router(256, 8, "sigmoid", 8, 4, True, 2.5))
LITE = FfnShape(2048, 1408, 2, Router(64, 6))
PRODUCTS = ("gate_up", "down", "logits", "hidden_grad", "input_grad", "weight_grad")


def test_everything_equals_the_plain_reference():
    pytest.importorskip("triton")
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    told = run("-m", "tests.impls.ffn.triton_moe_oracle", **interpret)
    assert re.search(r"^\d\d+ tried, 0 wrong$", told, re.MULTILINE), told


def test_in_the_interpreter():
    pytest.importorskip("triton")
    require_passed_in_the_interpreter("tests/impls/ffn/test_triton_moe_interpreted.py")


def test_is_listed_where_triton_is_missing():
    run(
        "-c",
        """
import sys
sys.modules["triton"] = None
from harness.registry import load
known = load("impls").implementations
for name in ("prefill", "decode", "train"):
    for technique in ("moe", "moe-coarse"):
        assert known[f"ffn.{name}"][f"{technique}/triton"].needs == ("cuda", "triton")
for name in ("route", "select", "permute", "experts"):
    assert known[f"ffn.{name}"]["moe/triton"].needs == ("cuda", "triton")
""",
    )


def test_refuses_what_the_kernels_are_not_made_for():
    assert triton_moe.unfit(TokenShape(V3, 1)) is None
    assert triton_moe.unfit_coarse(TokenShape(V3, 1)) is None
    for changed in ({"hidden": 7176}, {"width": 2040}, {"dtype": "float32"}, {"router": Router(1024, 8)}):
        assert triton_moe.unfit(TokenShape(replace(V3, **changed), 1)) is not None


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40).filter(any), st.sampled_from([16, 64, 128]))
def test_blocks_are_enough_for_any_loads(loads, block):
    needed = sum(-(-load // block) for load in loads)
    assert needed <= most_blocks(sum(loads), len(loads), block) <= sum(loads)


@pytest.mark.parametrize("pairs", [(3, 4, 16, 3), (1000, 4, 64, 19)])
def test_no_more_blocks_than_some_loads_need(pairs):
    rows, experts, block, most = pairs
    assert most_blocks(rows, experts, block) == most


@given(st.integers(1, 40_000), st.integers(4, 512), st.integers(1, 500))
def test_parts_of_the_logits_cover_the_hidden_size_once(tokens, experts, sixteenths):
    hidden = 16 * sixteenths
    launch = logits_launch(tokens, experts, hidden)
    assert launch.share % COLUMNS == 0 and 1 <= launch.parts <= 32
    assert (launch.parts - 1) * launch.share < hidden <= launch.parts * launch.share


@pytest.fixture
def compiled():
    """The kernels that a test launches on tensors without memory, compiled for sm_90 and not run."""
    pytest.importorskip("triton")
    with compiling() as kernels:
        yield kernels


def empty(*sizes: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without memory: whoever asks for one of its values fails."""
    return torch.empty(*sizes, dtype=dtype, device="meta")


def weights_of(model: FfnShape) -> MoeWeights:
    rule, hidden, width, wide = model.router, model.hidden, model.width, model.shared * model.width
    bias = empty(rule.experts, dtype=torch.float32) if rule.biased else None
    return MoeWeights(
        RouterWeights(rule, empty(rule.experts, hidden), bias),
        empty(rule.experts, 2 * width, hidden),
        empty(rule.experts, hidden, width),
        DenseWeights(empty(2 * wide, hidden), empty(hidden, wide)) if wide else None,
    )


def check(kernels: list) -> None:
    """Limits of every kernel; matrix instructions and a pipeline, without copies to registers, in every product."""
    assert kernels
    for kernel in kernels:
        found = resources(kernel)
        assert found["shared"] <= SHARED_MEMORY and found["spilled"] == found["stack"] == 0, (kernel.name, found)
        if kernel.name.startswith(PRODUCTS):
            assert "wgmma.mma_async" in kernel.asm["ptx"], kernel.name
            text = kernel.asm["ttgir"]
            loop = text[text.index("scf.for") :].split("scf.yield")[0]
            assert "async_tma_copy" in loop and "inval_barrier" not in loop, kernel.name
            assert loop.count("warp_group_dot ") == (2 if kernel.name == "gate_up_turned" else 1), kernel.name


@pytest.mark.parametrize(
    ("model", "tokens", "rows"),
    [(V3, 1, 16), (V3, 128, 64), (V3, 4096, 128), (LITE, 32768, 128), (V3.coarse(), 128, 64), (WHOLE_V3, 256, 16)],
)
def test_the_layer_compiles_and_reads_nothing_back(compiled, model, tokens, rows):
    assert triton_grouped.launch_for(tokens * model.router.top_k, model.router.experts).rows == rows
    y_MD = triton_moe.forward(weights_of(model), empty(tokens, model.hidden))
    assert y_MD.shape == (tokens, model.hidden)
    products = ["gate_up_turned" if rows == 16 else "gate_up", "down"]
    names = [kernel.name for kernel in compiled]
    assert [name for name in names if name in (*products, "logits", "select")] == ["logits", "select", *products]
    check(compiled)


@pytest.mark.parametrize(("model", "tokens"), [(V3, 4096), (LITE, 8192), (V3.coarse(), 4096), (V3, 2)])
def test_training_compiles_and_reads_nothing_back(compiled, model, tokens):
    x_MD = empty(tokens, model.hidden)
    call = train_with(triton_train.train_forward)(weights_of(model), TokenShape(model, tokens))
    result = call(TrainInputs(x_MD, empty(tokens, model.hidden)))
    assert result.dx_MD.shape == x_MD.shape and result.dw.w_in_EUD.dtype == torch.bfloat16
    assert {"hidden_grad", "weight_grad", "input_grad"} <= {kernel.name for kernel in compiled}
    check(compiled)


@pytest.mark.parametrize("tokens", [1, 128, 4096])
def test_inner_operations_compile_and_read_nothing_back(compiled, tokens):
    shape, w = TokenShape(WHOLE_V3, tokens), weights_of(WHOLE_V3)
    x_MD, experts_MK = empty(tokens, 7168), empty(tokens, 8, dtype=torch.int64)
    assert triton_moe.routed(w.router, shape)(TokenInputs(x_MD)).experts_MK.dtype == torch.int64
    choice = ChoiceWeights(w.router.rule, w.router.bias_E)
    given = SelectInputs(empty(tokens, 256, dtype=torch.float32))
    assert triton_moe.selected(choice, shape)(given).gates_MK.shape == (tokens, 8)
    assert [kernel.name for kernel in compiled] == ["logits", "select", "select"]
    assert triton_moe.permute(None, shape)(PermuteInputs(x_MD, experts_MK)).ends_E.dtype == torch.int32
    rows = Permuted(empty(8 * tokens, 7168), empty(256, dtype=torch.int32))
    assert triton_moe.experts((w.w_in_EUD, w.w_out_EDW), shape)(rows).shape == (8 * tokens, 7168)
    check(compiled)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("top_k", [1, 8])
def test_no_choice_is_made_among_reordered_values(compiled, score, top_k):
    """An argmax of values whose reshape may reorder them chooses wrongly, which the interpreter cannot show."""
    w = weights_of(replace(V3, router=Router(160, top_k, score)))
    triton_moe.route(empty(9, V3.hidden), w.router)
    (select,) = [kernel for kernel in compiled if kernel.name == "select"]
    assert "tt.reduce" in select.asm["ttgir"] and "allow_reorder" not in select.asm["ttgir"]
