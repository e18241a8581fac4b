"""What must hold of the references themselves, in FP64: they are what everything else is judged by."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
import torch

from impls.attention.inputs import DecodeInputs, SequenceInputs, rows
from impls.attention.shape import DecodeShape, SequenceShape, Yarn

TECHNIQUES = ("mha", "gqa", "mqa", "mla")


@pytest.fixture(params=("latent queries", "direct queries", "yarn"))
def exact(request, model):
    changed = {"direct queries": {"query_latent": None}, "yarn": {"yarn": Yarn(original_length=4)}}
    return replace(model, dtype="float64", **changed.get(request.param, {}))


def run(registry, operation, contender, weights, shape, inputs):
    return registry.implementations[f"attention.{operation}"][contender].setup(weights, shape)(inputs)


def into(larger, smaller):
    """Copy the slots of `smaller` to the front of `larger`."""
    for field in dataclasses.fields(larger):
        part = getattr(smaller, field.name)
        getattr(larger, field.name)[:, : part.shape[1]] = part


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("new_tokens", (1, 2, 5))
def test_decoding_gives_the_last_rows_of_prefill(registry, draw, exact, technique, new_tokens):
    old = 9
    whole = SequenceShape(exact, 2, old + new_tokens)
    weights, inputs = draw(registry.operations["attention.prefill"], whole, technique)
    expected = run(registry, "prefill", f"{technique}/reference", weights, whole, inputs)

    decode = registry.operations["attention.decode"]
    first, second = (DecodeShape(exact, 2, 0, old), DecodeShape(exact, 2, old, new_tokens))
    _, start = draw(decode, first, technique)
    _, step = draw(decode, second, technique)
    early = run(
        registry, "decode", f"{technique}/reference", weights, first, replace(start, x_BTD=inputs.x_BTD[:, :old])
    )
    into(step.cache, start.cache)
    late = run(
        registry, "decode", f"{technique}/reference", weights, second, replace(step, x_BTD=inputs.x_BTD[:, old:])
    )
    torch.testing.assert_close(torch.cat((early, late), 1), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("new_tokens", (1, 2))
def test_absorbed_is_plain(registry, draw, exact, new_tokens):
    shape = DecodeShape(exact, 3, 17, new_tokens, ragged=True)
    weights, inputs = draw(registry.operations["attention.decode"], shape, "mla")
    results = [
        run(registry, "decode", f"mla/{name}", weights, shape, inputs) for name in ("reference", "reference-absorbed")
    ]
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("operation", ("decode", "decode_kernel"))
def test_a_ragged_batch_gives_each_sequence_what_it_gets_alone(registry, draw, exact, technique, operation):
    shape = DecodeShape(exact, 4, 15, new_tokens=2, ragged=True)
    assert len(set(shape.lengths)) > 1
    weights, inputs = draw(registry.operations[f"attention.{operation}"], shape, technique)
    together = run(registry, operation, f"{technique}/reference", weights, shape, inputs)
    for row, length in enumerate(shape.lengths):
        own = rows(inputs, row, row + 1)
        trimmed = {f.name: getattr(own.cache, f.name)[:, : length + 2] for f in dataclasses.fields(own.cache)}
        alone = replace(own, cache=replace(own.cache, **trimmed))
        result = run(registry, operation, f"{technique}/reference", weights, DecodeShape(exact, 1, length, 2), alone)
        torch.testing.assert_close(result, together[row : row + 1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_future_does_not_change_the_past(registry, draw, exact, technique):
    shape = SequenceShape(exact, 1, 520)  # past the first block of queries
    weights, inputs = draw(registry.operations["attention.prefill"], shape, technique)
    changed = inputs.x_BTD.clone()
    changed[:, 515:] += 1
    results = [
        run(registry, "prefill", f"{technique}/reference", weights, shape, SequenceInputs(x))
        for x in (inputs.x_BTD, changed)
    ]
    torch.testing.assert_close(results[0][:, :515], results[1][:, :515], rtol=0, atol=0)
    assert not torch.allclose(results[0][:, 515:], results[1][:, 515:])


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_gradients_are_slopes(registry, draw, exact, technique):
    """Every gradient against a central difference along a random direction."""
    shape = SequenceShape(exact, 2, 7)
    weights, inputs = draw(registry.operations["attention.train"], shape, technique)
    result = run(registry, "train", f"{technique}/reference", weights, shape, inputs)
    generator = torch.Generator().manual_seed(5)

    def objective(weights, x_BTD):
        y = run(registry, "prefill", f"{technique}/reference", weights, shape, SequenceInputs(x_BTD))
        return float((y * inputs.dy_BTD).sum())

    def slope(at, gradient, tensor):
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        step = 1e-5
        expected = (objective(*at(tensor + step * direction)) - objective(*at(tensor - step * direction))) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-7)

    slope(lambda x: (weights, x), result.dx_BTD, inputs.x_BTD)
    for field in dataclasses.fields(weights):
        tensor = getattr(weights, field.name)
        if tensor is None:
            assert getattr(result.dw, field.name) is None
            continue
        slope(
            lambda w, name=field.name: (replace(weights, **{name: w}), inputs.x_BTD),
            getattr(result.dw, field.name),
            tensor,
        )


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_kernel_gradients_are_slopes(registry, draw, exact, technique):
    shape = SequenceShape(exact, 2, 6)
    _, inputs = draw(registry.operations["attention.train_kernel"], shape, technique)
    kernel = registry.reference("attention.prefill_kernel", technique).setup(None, shape)
    result = run(registry, "train_kernel", f"{technique}/reference", None, shape, inputs)
    torch.testing.assert_close(result.o_BTHV, kernel(inputs))
    for name, gradient in (("q_BTHE", result.dq_BTHE), ("k_BTGE", result.dk_BTGE), ("v_BTGV", result.dv_BTGV)):
        tensor = getattr(inputs, name)
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3), dtype=tensor.dtype)
        ends = [kernel(replace(inputs, **{name: tensor + sign * 1e-5 * direction})) for sign in (1, -1)]
        expected = float(((ends[0] - ends[1]) * inputs.do_BTHV).sum()) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_the_layer_is_its_kernel_between_projections(registry, draw, exact):
    """MLA's decode kernel, given the absorbed queries, returns the latents that W^UV and W^O turn into its output."""
    shape = DecodeShape(exact, 2, 11)
    weights, inputs = draw(registry.operations["attention.decode"], shape, "mla")
    absorbed = replace(weights, w_uv_HVC=torch.eye(exact.latent, dtype=torch.float64).repeat(exact.heads, 1, 1))
    identity = torch.eye(exact.heads * exact.latent, dtype=torch.float64).unflatten(1, (exact.heads, exact.latent))
    latents = run(registry, "decode", "mla/reference", replace(absorbed, wo_DHV=identity), shape, inputs)
    o_BTHC = latents.unflatten(-1, (exact.heads, exact.latent))
    expected = run(registry, "decode", "mla/reference", weights, shape, inputs)
    o_BTHV = torch.einsum("bthc,hvc->bthv", o_BTHC, weights.w_uv_HVC)
    torch.testing.assert_close(torch.einsum("bthv,dhv->btd", o_BTHV, weights.wo_DHV), expected)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_references_compile(registry, draw, model, technique):
    """Forward passes trace as one graph; the trace computes the same."""
    for operation, shape in (
        ("decode", DecodeShape(model, 2, 9, 2, ragged=True)),
        ("prefill", SequenceShape(model, 1, 12)),
        ("decode_kernel", DecodeShape(model, 2, 9)),
        ("prefill_kernel", SequenceShape(model, 1, 12)),
        ("train", SequenceShape(model, 1, 12)),
        ("train_kernel", SequenceShape(model, 1, 12)),
    ):
        weights, inputs = draw(registry.operations[f"attention.{operation}"], shape, technique)
        call = registry.reference(f"attention.{operation}", technique).setup(weights, shape)
        torch.compiler.reset()
        compiled = torch.compile(call, backend="aot_eager", dynamic=False, fullgraph="train" not in operation)
        expected, result = call(inputs), compiled(inputs)
        if dataclasses.is_dataclass(expected):
            expected, result = (next(getattr(r, f.name) for f in dataclasses.fields(r)) for r in (expected, result))
        torch.testing.assert_close(result, expected)


def test_decode_inputs_are_left_alone_but_for_the_new_slots(registry, draw, model):
    shape = DecodeShape(model, 2, 6)
    weights, inputs = draw(registry.operations["attention.decode"], shape, "mha")
    before = inputs.cache.k_BSGE.clone()
    run(registry, "decode", "mha/reference", weights, shape, inputs)
    assert isinstance(inputs, DecodeInputs)
    torch.testing.assert_close(inputs.cache.k_BSGE[:, :6], before[:, :6], rtol=0, atol=0)
    assert not torch.allclose(inputs.cache.k_BSGE[:, 6], before[:, 6])
