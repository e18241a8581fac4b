"""How weights and inputs are drawn: comparable between techniques, and hostile to implementations that do not mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.tree import named_tensors
from impls.attention.cache import quantize
from impls.attention.inputs import PIECE_TOKENS
from impls.attention.shape import AttentionShape, DecodeShape, SequenceShape

TECHNIQUES = ("mha", "gqa", "mqa", "mla")


def test_techniques_and_cache_formats_see_the_same_hidden_state(registry, draw, model):
    operation = registry.operations["attention.decode"]
    wide = replace(model, latent=512, rope_dim=64)
    shapes = [(DecodeShape(wide, 2, 5), t) for t in TECHNIQUES] + [(DecodeShape(wide, 2, 5, cache="fp8"), "mla")]
    states = [draw(operation, shape, technique)[1].x_BTD for shape, technique in shapes]
    assert all(torch.equal(state, states[0]) for state in states)
    assert not torch.equal(draw(operation, *shapes[0], seed=7)[1].x_BTD, states[0])


def test_the_fp8_cache_is_the_native_one_quantized(registry, draw, model):
    operation = registry.operations["attention.decode"]
    shape = DecodeShape(replace(model, latent=512, rope_dim=64), 2, 5, cache="fp8")
    (exact,) = operation.variants(shape).values()
    native, packed = (draw(operation, s, "mla")[1].cache for s in (exact, shape))
    assert torch.equal(packed.bytes_BSN, quantize(native.c_BSC, native.r_BSR))
    assert operation.variants(exact) == {}


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(("operation", "filled"), [("decode", 0), ("decode_kernel", 2)])
def test_slots_past_the_length_hold_loud_garbage(registry, draw, model, technique, operation, filled):
    shape = DecodeShape(replace(model, latent=64), 4, 40, new_tokens=2, ragged=True)
    _, inputs = draw(registry.operations[f"attention.{operation}"], shape, technique)
    assert inputs.lengths_B.tolist() == [length + filled for length in shape.lengths]
    for tensor in named_tensors(inputs.cache).values():
        assert torch.isfinite(tensor).all()
        for row, length in enumerate(inputs.lengths_B.tolist()):
            assert 0.8 < tensor[row, :length].square().mean() < 1.25
            assert length == shape.slots or tensor[row, length:].square().mean() > 8


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_activations_stay_of_order_one(registry, draw, technique):
    """Queries, keys and latents of unit variance: no softmax saturates by construction."""
    shape = SequenceShape(AttentionShape(256, 4, 2, 1, query_latent=96, dtype="float32"), 1, 16)
    weights, inputs = draw(registry.operations["attention.prefill"], shape, technique)
    first = weights.w_dq_QD if technique == "mla" else weights.wq_HED.flatten(0, 1)
    assert 0.8 < (inputs.x_BTD @ first.T).std() < 1.25
    out = registry.reference("attention.prefill", technique).setup(weights, shape)(inputs)
    assert 0.5 < out[:, 0].std() < 2  # the first token attends to itself alone


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("operation", ("decode", "decode_kernel", "prefill", "prefill_kernel", "train_kernel"))
def test_pieces_give_what_the_whole_gives(registry, draw, model, technique, operation):
    contract = registry.operations[f"attention.{operation}"]
    long = PIECE_TOKENS // 2 - 4  # two sequences a piece
    shape = DecodeShape(model, 3, long) if "decode" in operation else SequenceShape(model, 3, 9)
    weights, inputs = draw(contract, shape, technique)
    call = registry.reference(contract.name, technique).setup(weights, shape)
    pieces = list(contract.pieces(inputs))
    assert len(pieces) == (2 if "decode" in operation else 3)
    parts = [named_tensors(call(piece)) for piece in pieces]
    for name, tensor in named_tensors(call(inputs)).items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), tensor)


def test_a_technique_without_the_format_says_so(registry, draw, model):
    shape = DecodeShape(replace(model, latent=512, rope_dim=64), 1, 4, cache="fp8")
    with pytest.raises(ValueError, match="keys and values"):
        draw(registry.operations["attention.decode"], shape, "gqa")
    with pytest.raises(ValueError, match="512 \\+ 64"):
        draw(registry.operations["attention.decode"], DecodeShape(model, 1, 4, cache="fp8"), "mla")
