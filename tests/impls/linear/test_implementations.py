"""Every linear implementation that runs on a CPU against its reference, judged as the harness judges."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import verify
from harness.registry import load
from impls.linear.quantize import dequantize, quantize
from impls.linear.reference import product
from impls.linear.scaled_mm import rows_on_cpus
from impls.linear.shape import FORMS, VALUES, GroupedShape, LinearShape, QuantizeShape

KNOWN, LOSS = load("impls"), "linear.loss"
HERE = [
    (operation, contender)
    for operation, known in sorted(KNOWN.implementations.items())
    for contender, one in sorted(known.items())
    if operation.startswith("linear.") and operation != LOSS and not one.needs and one.kind != "compiled"
]
PRODUCTS = ("fprop", "dgrad", "wgrad", "layer_train", "numerics")
SHAPES = {
    "ragged": LinearShape(70, 144, 400, "float32"),
    "power-of-two": LinearShape(64, 256, 256, "float32", power_of_two=True),
    "one-row": LinearShape(1, 32, 144, "float32"),
    "half": LinearShape(48, 160, 320),
    "outliers": LinearShape(32, 64, 512, "float32", values="outliers"),
}
GROUPED = {
    "skewed": GroupedShape(4, 512, 144, 272, 1.0, "float32"),
    "empty": GroupedShape(8, 256, 64, 144, 0.0, "float32", power_of_two=True),
    "half": GroupedShape(3, 384, 144, 272),
    "one": GroupedShape(1, 128, 48, 48, 0.0, "float32"),
}
QUANTIZED = {
    f"{form}-{label}": QuantizeShape(rows, columns, form, dtype, power_of_two)
    for form in FORMS
    for label, rows, columns, dtype, power_of_two in (
        ("whole", 256, 384, "float32", False),
        ("ragged", 70, 200, "float32", True),
        ("half", 128, 256, "bfloat16", False),
    )
}
REASONS = ("whole tiles", "multiples of 16", "compared on form", "BF16 does not", "without FP8", "gives BF16 only")


def shapes_of(operation: str) -> dict:
    if operation == "linear.quantize":
        return QUANTIZED
    return GROUPED if "grouped" in operation else SHAPES


CASES = [
    pytest.param(operation, entry, shape, id=f"{operation}-{entry}-{label}")
    for operation, entry in HERE
    for label, shape in shapes_of(operation).items()
]


@pytest.mark.parametrize(("operation", "entry", "shape"), CASES)
def test_it_matches_the_reference(operation, entry, shape, judge, registry):
    if entry == "fp8-row/scaled-mm" and not rows_on_cpus():
        pytest.skip("this PyTorch has no per-row scales on a CPU")
    reason = registry.implementations[operation][entry].supports(shape)
    assert reason is None or any(known in reason for known in (*REASONS, "whole 16 bytes"))
    if reason is None:
        judge(operation, entry, shape)


def test_every_operation_has_its_techniques_and_something_to_compare_with(registry):
    found = {o: set(known) for o, known in registry.implementations.items() if o.startswith("linear.")}
    grouped = ("grouped", "grouped_dgrad", "grouped_wgrad")
    assert set(found) == {LOSS, *(f"linear.{n}" for n in (*PRODUCTS, "quantize", *grouped))}
    for operation, known in found.items():
        assert {"bf16/reference", "fp8/reference"} <= known, operation
        kinds = {one.kind for one in registry.implementations[operation].values() if one.technique == "fp8"}
        assert "optimized" in kinds, operation
    for operation in ("linear.fprop", "linear.dgrad", "linear.wgrad"):
        assert {"fp8/scaled-mm", "fp8/deep-gemm", "fp8/torchao"} <= found[operation]
        assert ("fp8-tensor/scaled-mm-fast" in found[operation]) == (operation == "linear.fprop")


def test_fast_accumulation_is_not_for_long_sums(registry):
    entry = registry.implementations["linear.fprop"]["fp8-row/scaled-mm-fast"]
    assert entry.supports(LinearShape(rows=64, outs=64, ins=8192, dtype="bfloat16")) is None
    assert "not 16384" in entry.supports(LinearShape(rows=64, outs=64, ins=16384, dtype="bfloat16"))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 140),
    st.integers(1, 140),
    st.integers(1, 300),
    st.sampled_from([("tile", "block"), ("tile", "tile"), ("row", "row"), ("tensor", "tensor")]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_a_product_is_that_of_what_its_operands_stand_for(rows, outs, length, grains, power_of_two, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        quantize(torch.randn(n, length, generator=generator), grain, power_of_two).wide(torch.float64)
        for n, grain in zip((rows, outs), grains, strict=True)
    )
    truth = dequantize(a) @ dequantize(b).T
    assert verify.distance(product(a, b), truth).worst < 1e-12


@pytest.mark.parametrize("technique", ["fp8", "fp8-row", "fp8-tensor"])
@pytest.mark.parametrize("place", ["payload", "scale"])
def test_a_wrong_operand_is_noticed(technique, place, registry, draw):
    """One row of the payload exchanged for another, or one scale that is off by a hundredth."""
    shape = LinearShape(32, 64, 256, "float32")
    operation, setup = registry.operations["linear.fprop"], registry.reference("linear.fprop", technique).setup
    w, x = draw(operation, shape, technique)
    truth = verify.compute_truth(operation, setup, w, x, shape, "cpu")
    if place == "payload":
        w = dataclasses.replace(w, payload=w.payload.roll(1, 0))
    else:
        scale = w.scale.clone()
        scale.view(-1)[0] *= 1.01
        w = dataclasses.replace(w, scale=scale)
    with pytest.raises(verify.Incorrect):
        verify.check(verify.calling(setup(w, shape)).call(x), truth)


@pytest.mark.parametrize("technique", ["fp8", "fp8-row"])
def test_a_grouped_product_is_each_group_s_own(technique, registry, draw):
    """Against indexing written out here: rows, experts and scales of one group belong together."""
    shape = GROUPED["skewed"]
    operation = registry.operations["linear.grouped"]
    w, given = draw(operation, shape, technique)
    x_PK, start = dequantize(given.x).double(), 0
    made = verify.calling(registry.reference("linear.grouped", technique).setup(w, shape)).call(given)
    for group, size in enumerate(shape.sizes):
        rows = slice(start, start + size)
        if technique == "fp8":
            scale_NK = w.scale[group].repeat_interleave(128, 0)[:144].repeat_interleave(128, 1)[:, :272]
        else:
            scale_NK = w.scale[group]
        expected = x_PK[rows] @ (w.payload[group].double() * scale_NK).T
        assert verify.distance(made[rows], expected).worst < 1e-4 or not size
        start += size


def test_one_wrong_payload_of_a_quantizer_is_noticed(registry, draw):
    shape = QuantizeShape(256, 256, "tiles", "float32")
    operation, setup = registry.operations["linear.quantize"], registry.reference("linear.quantize", "fp8").setup
    w, x = draw(operation, shape, "fp8")
    truth = verify.compute_truth(operation, setup, w, x, shape, "cpu")
    made = setup(w, shape)(x)
    verify.check(made, truth)
    raw = made.payload.view(torch.uint8)
    place = int(made.payload.float().abs().flatten().argsort()[len(raw.flatten()) // 2])
    raw.view(-1)[place] ^= 1  # the last bit of one element in the middle
    with pytest.raises(verify.Incorrect, match="payload"):
        verify.check(made, truth)


@pytest.mark.parametrize("entry", ["reference", "dequantized"])
@pytest.mark.parametrize("technique", ["fp8", "fp8-row", "fp8-tensor"])
def test_bad_values_reach_the_output(technique, entry, registry, draw):
    """A NaN among the activations is NaN in its whole row of the output, and in no other for tiles and rows."""
    shape = LinearShape(32, 64, 256, "float32")
    operation = registry.operations["linear.numerics"]
    w, x = draw(operation, shape, technique)
    x.x[5, 7] = torch.nan
    setup = registry.implementations["linear.numerics"][f"{technique}/{entry}"].setup
    bad_MN = verify.calling(setup(w, shape)).call(x).isnan()
    assert bool(bad_MN[5].all())
    assert bool(bad_MN.all()) == (technique == "fp8-tensor") and not (technique != "fp8-tensor" and bad_MN[:5].any())


@pytest.mark.parametrize("values", VALUES)
def test_a_layer_survives_every_distribution(values, judge):
    for entry in ("fp8/dequantized", "fp8-tensor/dequantized", "bf16/reference"):
        judge("linear.layer_train", entry, LinearShape(128, 64, 256, "float32", values=values))


def test_groups_are_whole_tiles_of_all_rows():
    for shape in GROUPED.values():
        assert sum(shape.sizes) == shape.rows and not any(size % 128 for size in shape.sizes)
    assert GroupedShape(8, 1024, 16, 16, 1.0).sizes != (128,) * 8
    with pytest.raises(ValueError, match="rows is 100"):
        GroupedShape(2, 100, 16, 16)
    with pytest.raises(ValueError, match="values is 'normal'"):
        LinearShape(1, 1, 1, values="normal")
    with pytest.raises(ValueError, match="form is 'rows'"):
        QuantizeShape(1, 1, "rows")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: LinearShape(0, 16, 16), "rows is 0, expected a whole number from 1 up"),
        (lambda: LinearShape(16, 16, 2.5), "ins is 2.5"),
        (lambda: LinearShape(16, 16, 16, "fp8"), "dtype is 'fp8', expected one of float32, bfloat16, float16"),
        (lambda: QuantizeShape(4, -1, "tiles"), "columns is -1"),
        (lambda: GroupedShape(0, 128, 16, 16), "groups is 0"),
        (lambda: GroupedShape(2, 128, 16, 16, -1.0), "skew is -1.0, expected 0 or more"),
        (lambda: GroupedShape(2, 128, 16, 16, math.nan), "skew is nan"),
    ],
)
def test_impossible_sizes_are_named(made, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        made()
