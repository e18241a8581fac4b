# ruff: noqa: E402 - a registry must be loading when the modules are first imported
"""Peak memory of a mixture: at most 1.2 x tokens x top-k x (2 hidden + 3 width) entries above weights and inputs.

On the CPU the suite's own meter counts. Every tensor of the Triton layers is made by PyTorch, so their peak is found by
running them on tensors without memory, launches left out, and adding up what is alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.binaries import Absent
from harness.memory import measure
from harness.registry import load

load("impls")

from impls.ffn import inputs, sorted_experts, triton_moe, triton_train, weights
from impls.ffn.layers import train_with
from impls.ffn.shape import FfnShape, Router, TokenShape

FACTOR = 1.2
V3 = FfnShape(7168, 2048, 1, Router(32, 8, "sigmoid", normalise=True, scale=2.5))
WHOLE_V3 = replace(V3, router=Router(256, 8, "sigmoid", 8, 4, True, 2.5))
LITE = FfnShape(2048, 1408, 2, Router(64, 6))
SMALL = FfnShape(256, 88, 1, Router(32, 8, "sigmoid", 4, 2, True, 2.5), "float32")


def allowed(shape: TokenShape) -> float:
    """Bytes."""
    model = shape.model
    pairs = shape.tokens * model.router.top_k
    return FACTOR * pairs * (2 * model.hidden + 3 * model.width) * model.torch_dtype.itemsize


@pytest.mark.parametrize("skew", [0.0, 1.5])
@pytest.mark.parametrize("tokens", [16, 200, 2048])
def test_the_sorted_layer_keeps_to_it(tokens, skew):
    shape, generator = TokenShape(SMALL, tokens, skew), torch.Generator().manual_seed(0)
    w, x_MD = weights.draw_weights(shape, "moe", generator), inputs.draw_tokens(shape, "moe", generator).x_MD
    with torch.no_grad():
        sorted_experts.forward(w, x_MD)
        _, usage = measure(lambda: sorted_experts.forward(w, x_MD), "cpu")
    assert tokens * SMALL.hidden * 4 < usage.peak <= allowed(shape)


@pytest.mark.parametrize("tokens", [200, 2048])
def test_the_sorted_experts_keep_to_it(tokens):
    shape, generator = TokenShape(SMALL, tokens), torch.Generator().manual_seed(0)
    call = sorted_experts.experts(weights.draw_experts(shape, "moe", generator), shape)
    rows = inputs.draw_experts(shape, "moe", generator)
    with torch.no_grad():
        _, usage = measure(lambda: call(rows), "cpu")
    assert rows.x_PD.nbytes <= usage.peak <= allowed(shape)


class Alive(TorchDispatchMode):
    """Bytes of the tensors made inside the block that are alive, and the most there were at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in given | self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._released, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _released(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak(call: Callable[[], object]) -> int:
    """Of a call whose launches are left out."""
    jit = pytest.importorskip("triton.runtime.jit")
    with patch.object(jit.JITFunction, "run", lambda *args, **more: None), Alive() as alive:
        result = call()
        del result
    return alive.peak


def test_the_meter_counts_what_is_alive():
    def call() -> torch.Tensor:
        first = torch.empty(1000, device="meta")
        second = first + 1
        second[:10].add_(1)
        del first
        third = torch.empty(500, device="meta")
        return second[:5] + third[:5]

    assert peak(call) == 4 * 2000  # first and second; then second, third and five numbers


SHAPES = {
    "v3-ep8": (V3, (1, 16, 128, 512, 4096, 16384)),
    "v3": (WHOLE_V3, (16, 4096)),
    "v2-lite": (LITE, (1, 128, 8192, 32768)),
}
CASES = [pytest.param(model, n, id=f"{name}-t{n}") for name, (model, counts) in SHAPES.items() for n in counts]


@pytest.mark.parametrize(("model", "tokens"), CASES)
def test_the_triton_layer_keeps_to_it(model, tokens):
    shape = TokenShape(model, tokens)
    w, x_MD = weights.draw_weights(shape, "moe", Absent()), torch.empty(tokens, model.hidden, device="meta").bfloat16()
    assert tokens * model.router.top_k * model.hidden * 2 <= peak(lambda: triton_moe.forward(w, x_MD)) <= allowed(shape)


@pytest.mark.parametrize(("model", "tokens"), [(V3, 4096), (LITE, 8192)])
def test_triton_training_keeps_to_it_but_for_the_gradients_it_returns(model, tokens):
    shape = TokenShape(model, tokens)
    w = weights.draw_weights(shape, "moe", Absent())
    given = inputs.TrainInputs(*(torch.empty(tokens, model.hidden, device="meta").bfloat16() for _ in range(2)))
    call = train_with(triton_train.train_forward)(w, shape)
    returned = sum(t.nbytes for t in tree_leaves([w.w_in_EUD, w.w_out_EDW, w.shared.w_in_UD, w.shared.w_out_DW]))
    found = peak(lambda: call(given)) - returned
    assert tokens * model.router.top_k * 3 * model.width * 2 <= found <= allowed(shape)
