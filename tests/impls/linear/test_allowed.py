"""How far an FP8 sum may be off: promoted every 128 it passes, left to the tensor core's accumulator it fails.

The sums are those of the emulated tensor core (`tensor_core.py`), put in place of a kernel's.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

from harness import verify
from impls.linear.quantize import dequantize
from impls.linear.reference_grouped import columns_of, spans
from impls.linear.reference_train import fp8_training
from impls.linear.shape import GroupedShape, LinearShape
from impls.linear.tensor_core import product

ROWS = 4096
SHAPE, GROUPED = LinearShape(ROWS, 32, 32), GroupedShape(1, ROWS, 32, 32)


def core(promote, bits):
    """A product as the tensor core sums it."""

    def multiply(a, b, out=torch.float32):
        a, b = (dequantize(one.wide(torch.float64)) for one in (a, b))
        return product(a, b, promote, bits).to(out)

    return multiply


def grouped_wgrad(multiply, inputs):
    parts = ((columns_of(one, start, end) for one in (inputs.dy, inputs.x)) for _, start, end in spans(inputs.ends_E))
    return torch.stack([multiply(*part) for part in parts])


CALLS = {
    "wgrad": (SHAPE, lambda w, multiply: lambda given: multiply(given.dy, given.x)),
    "grouped_wgrad": (GROUPED, lambda w, multiply: lambda given: grouped_wgrad(multiply, given)),
    "layer_train": (SHAPE, lambda w, multiply: fp8_training(w, SHAPE, "fp8", multiply)),
}


@pytest.fixture(params=CALLS)
def judged(request, registry, draw):
    shape, build = CALLS[request.param]
    operation = registry.operations[f"linear.{request.param}"]
    w, x = draw(operation, shape, "fp8")
    reference = registry.reference(operation.name, "fp8").setup
    truth = verify.compute_truth(operation, reference, w, x, shape, "cpu")
    return lambda promote, bits: verify.check(build(w, core(promote, bits))(x), truth)


@pytest.mark.parametrize("bits", [13, 14])
def test_a_promoted_sum_passes_and_an_unpromoted_one_over_4096_fails(judged, bits):
    judged(True, bits)
    with pytest.raises(verify.Incorrect, match="relative Frobenius"):
        judged(False, bits)


def test_without_the_floor_a_promoted_sum_fails(registry, draw):
    operation, shape = registry.operations["linear.wgrad"], LinearShape(256, 32, 32)
    w, x = draw(operation, shape, "fp8")
    reference = registry.reference(operation.name, "fp8").setup
    for allowed, passes in ((operation.allowed, True), (lambda shape, device: None, False)):
        truth = verify.compute_truth(replace(operation, allowed=allowed), reference, w, x, shape, "cpu")
        with contextlib.nullcontext() if passes else pytest.raises(verify.Incorrect, match="relative Frobenius"):
            verify.check(core(True, 13)(x.dy, x.x), truth)


@pytest.mark.parametrize("name", CALLS)
def test_sums_in_fp32_have_no_floor_but_on_a_gpu(name, registry):
    operation, (shape, _) = registry.operations[f"linear.{name}"], CALLS[name]
    assert operation.allowed(shape, "cpu") == operation.allowed(shape, "cuda") == (2**-10, 2**-6)
    assert operation.allowed(replace(shape, dtype="float32"), "cuda") == (2**-10, 2**-6)
    assert operation.allowed(replace(shape, dtype="float32"), "cpu") is None
