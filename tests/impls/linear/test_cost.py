"""Costs: FLOPs and bytes counted by hand and from what is drawn."""

from __future__ import annotations

import pytest
import torch

from harness.tree import storage_bytes
from impls.linear import cost, inputs
from impls.linear.shape import FORMS, GroupedShape, LinearShape, QuantizeShape

TECHNIQUES = ("bf16", "fp8", "fp8-row", "fp8-tensor")


def test_a_v3_layer_reads_half_the_bytes_and_its_scales():
    shape = LinearShape(4096, 4096, 7168)
    bf16, fp8 = cost.fprop(shape, "bf16"), cost.fprop(shape, "fp8")
    assert bf16.flops == fp8.flops == 2 * 4096 * 4096 * 7168
    assert bf16.read_bytes == 2 * (2 * 4096 * 7168) and bf16.write_bytes == fp8.write_bytes == 2 * 4096 * 4096
    assert fp8.read_bytes == 2 * 4096 * 7168 + 4 * (4096 * 56 + 32 * 56)
    assert (bf16.dtype, fp8.dtype) == ("bfloat16", "float8_e4m3fn")


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_read_are_those_of_what_is_drawn(technique, dtype, registry, draw):
    for name in ("fprop", "dgrad", "wgrad"):
        operation, shape = registry.operations[f"linear.{name}"], LinearShape(140, 300, 272, dtype)
        w, x = draw(operation, shape, technique)
        assert operation.cost(shape, technique).read_bytes == storage_bytes((w, x)), name


@pytest.mark.parametrize("technique", ["bf16", "fp8"])
def test_grouped_products_read_the_weights_of_groups_with_rows(technique, registry, draw):
    shape = GroupedShape(8, 256, 140, 272, 0.0, "float32")
    for name in ("grouped", "grouped_dgrad"):
        operation = registry.operations[f"linear.{name}"]
        w, x = draw(operation, shape, technique)
        assert operation.cost(shape, technique).read_bytes == storage_bytes(w) * 2 / 8 + storage_bytes(x)
    w, x = draw(registry.operations["linear.grouped_wgrad"], shape, technique)
    work = registry.operations["linear.grouped_wgrad"].cost(shape, technique)
    assert work.read_bytes == storage_bytes(x) and work.write_bytes == 4 * 8 * 140 * 272


@pytest.mark.parametrize("form", FORMS)
def test_quantizing_reads_and_writes_what_it_is_given_and_gives(form, registry):
    shape = QuantizeShape(140, 300, form, "float32")
    generator = torch.Generator().manual_seed(0)
    w, x = inputs.draw_norm(shape, "fp8", generator), inputs.draw_quantize(shape, "fp8", generator)
    work = cost.quantize(shape, "fp8")
    made = registry.reference("linear.quantize", "fp8").setup(w, shape)(x)
    assert work.read_bytes == storage_bytes((w, x)) and work.write_bytes == storage_bytes(made) and work.flops == 0


def test_training_is_three_products():
    shape = LinearShape(64, 128, 256)
    work = cost.layer_train(shape, "fp8")
    assert work.flops == 3 * cost.fprop(shape, "fp8").flops
    assert work.read_bytes == work.write_bytes == 2 * 64 * (128 + 256) + 4 * 128 * 256
