"""Every implementation that runs on a CPU against its technique's reference, judged as the harness judges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.registry import load
from impls.attention.shape import AttentionShape, DecodeShape, SequenceShape, Yarn

HERE = [
    (operation, contender)
    for operation, known in sorted(load("impls").implementations.items())
    for contender, one in sorted(known.items())
    if operation.startswith("attention.") and not one.needs and one.kind != "compiled"  # see test_references
]
SHORT = Yarn(original_length=16)


def decode_shapes(model: AttentionShape) -> dict[str, DecodeShape]:
    byte_row = replace(model, latent=512, rope_dim=64, dtype="bfloat16")
    return {
        "one": DecodeShape(model, batch=3, length=37),
        "one-ragged": DecodeShape(model, batch=5, length=29, ragged=True),
        "two": DecodeShape(model, batch=2, length=13, new_tokens=2),
        "two-ragged-direct": DecodeShape(replace(model, query_latent=None), 4, 21, new_tokens=2, ragged=True),
        "half-yarn": DecodeShape(replace(model, dtype="bfloat16", yarn=SHORT), batch=2, length=65),
        "fp8": DecodeShape(byte_row, batch=4, length=33, cache="fp8"),
        "fp8-two-ragged": DecodeShape(byte_row, batch=3, length=18, new_tokens=2, ragged=True, cache="fp8"),
        "first-token": DecodeShape(model, batch=2, length=0),
    }


def sequence_shapes(model: AttentionShape) -> dict[str, SequenceShape]:
    return {
        "two": SequenceShape(model, batch=2, length=33),
        "one-token": SequenceShape(model, batch=1, length=1),
        "two-blocks": SequenceShape(replace(model, query_latent=None), batch=1, length=530),
        "half-yarn": SequenceShape(replace(model, dtype="bfloat16", yarn=SHORT), batch=1, length=40),
    }


@pytest.mark.parametrize(("operation", "entry"), [one for one in HERE if "decode" in one[0]])
@pytest.mark.parametrize("name", decode_shapes(AttentionShape(1, 1, 1, 1)))
def test_decode_matches_the_reference(operation, entry, name, model, registry, judge):
    shape = decode_shapes(model)[name]
    reason = registry.implementations[operation][entry].supports(shape)
    assert (reason is not None) == (shape.cache == "fp8" and not entry.startswith("mla/"))
    if reason is None:
        judge(operation, entry, shape)


@pytest.mark.parametrize(("operation", "entry"), [one for one in HERE if "decode" not in one[0]])
@pytest.mark.parametrize("name", sequence_shapes(AttentionShape(1, 1, 1, 1)))
def test_sequences_match_the_reference(operation, entry, name, model, judge):
    if name == "one-token" and "train" in operation:
        pytest.skip("one token attends to itself whatever its query: gradients of zero have no relative error")
    judge(operation, entry, sequence_shapes(model)[name])


def test_each_operation_has_a_reference_and_a_library_for_each_technique(registry):
    for operation in ("decode", "prefill", "train", "decode_kernel", "prefill_kernel", "train_kernel"):
        known = registry.implementations[f"attention.{operation}"].values()
        for technique in ("mha", "gqa", "mqa", "mla"):
            kinds = {one.kind for one in known if one.technique == technique}
            assert {"reference"} < kinds, (operation, technique)


def test_backends_refuse_what_they_cannot_run(registry, model):
    known = registry.implementations["attention.decode"]
    half = replace(model, dtype="bfloat16")
    uniform, ragged = DecodeShape(half, 2, 8), DecodeShape(half, 2, 8, ragged=True)
    for backend in ("sdpa-flash", "sdpa-cudnn", "sdpa-efficient"):
        supports = known[f"mha/{backend}"].supports
        assert supports(uniform) is None
        assert "length per sequence" in supports(ragged)
    assert "bfloat16" in known["mha/sdpa-flash"].supports(DecodeShape(model, 2, 8))
    assert known["mha/sdpa"].supports(ragged) is None
    assert "latent" in known["gqa/sdpa"].supports(replace(uniform, cache="fp8"))
    assert known["gqa/sdpa-efficient"].supports(replace(uniform, new_tokens=2)) is None
    assert "512 + 64" in known["mla/absorbed"].supports(replace(uniform, cache="fp8"))
