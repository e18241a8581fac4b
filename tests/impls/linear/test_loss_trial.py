"""The loss trial: both begin alike, curves and figures are of the steps taken, and what is kept is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benches.bench_linear import short_trainings
from harness.registry import load
from harness.trial import Trials
from impls.linear import loss_trial
from impls.linear.loss_trial import METRICS, SMOOTHING, LossCourse, saved_bytes
from impls.model.corpus import Text, windows
from impls.model.decoder import Decoder
from impls.model.linear import linear_of
from impls.model.shape import small_shape
from impls.model.training import Training

NAMES = ["bf16/reference", "fp8/reference"]
TEXT = "".join(f"line {number} of {number % 7} files\n" for number in range(400)).encode()


@pytest.fixture
def workload(monkeypatch):
    """Twelve steps on a few kilobytes, in place of the standard library."""
    data_N = torch.frombuffer(bytearray(TEXT), dtype=torch.uint8)

    def draw(shape, technique, generator):
        return Text(data_N, windows(data_N, shape.windows, shape.recipe.length), "lines", "0123456789abcdef")

    registry = load("impls")
    contract = replace(registry.operations["linear.loss"], weights=draw)
    monkeypatch.setitem(registry.operations, "linear.loss", contract)
    (trial,) = short_trainings()
    recipe, shape = replace(trial.shape.recipe, steps=12), small_shape(32, 1, 8, 32, feed="dense")
    return replace(trial, shape=replace(trial.shape, shape=shape, recipe=recipe, stops=3, windows=8))


def measured(workload, names):
    trials = Trials(load("impls"), workload, names, "cpu", {}, ".", lambda index: None)
    return {record.contender: record for record in trials.run(300.0, "samples/x.npz")}


def test_plain_and_fp8_begin_nearly_alike_and_end_elsewhere(workload):
    found = measured(workload, NAMES)
    assert {record.status for record in found.values()} == {"passed"}, [r.reason for r in found.values()]
    for record in found.values():
        assert set(record.figures) >= {metric.name for metric in METRICS} | {"latency", "steps", "resident", "peak"}
        assert record.series["step"] == [1, 6, 12] and record.value("steps") == 12
        for name in ("validation_bits", "smoothed_loss", "train_loss"):
            assert record.value(name) == record.series[name][-1]
        assert record.verification["data"] == "lines, digest 0123456789ab"
    plain, fp8 = (found[name] for name in NAMES)
    first = plain.verification["first"]
    assert 0 < abs(fp8.verification["first"] / first - 1) < 0.01
    assert 0 < abs(fp8.value("validation_bits") / plain.value("validation_bits") - 1) < 0.05
    assert fp8.value("saved_bytes") < 0.95 * plain.value("saved_bytes")
    assert plain.value("model_parameters") == fp8.value("model_parameters") > 30_000


def test_whole_products_begin_where_the_reference_does(workload):
    contract = load("impls").operations["linear.loss"]
    text = contract.weights(workload.shape, "fp8", torch.Generator())
    known = load("impls").implementations["linear.loss"]
    one, other = (known[f"fp8/{name}"].setup(text, workload.shape).advance() for name in ("reference", "dequantized"))
    assert one != known["bf16/reference"].setup(text, workload.shape).advance()
    assert abs(other / one - 1) < contract.trial.alike


def test_the_smoothed_loss_is_the_papers_average_without_its_start():
    losses = iter([8.0, 4.0, 2.0])
    training = type("Stub", (), {"advance": lambda self: type("Step", (), {"bits": next(losses)})})()
    course, total, weight = LossCourse(training, torch.zeros(1, 2), []), 0.0, 0.0
    for bits in (8.0, 4.0, 2.0):
        assert course.advance() == bits
        total, weight = SMOOTHING * total + 0.1 * bits, SMOOTHING * weight + 0.1
        assert course.smoothed == pytest.approx(total / weight)
    assert 2 < course.smoothed < 8 and SMOOTHING == 0.9


def test_an_end_between_stops_is_validated(workload, monkeypatch):
    contract = load("impls").operations["linear.loss"]
    cut = replace(contract, trial=replace(contract.trial, steps=lambda shape: 8))
    monkeypatch.setitem(load("impls").operations, "linear.loss", cut)
    record = measured(workload, ["bf16/reference"])["bf16/reference"]
    assert record.series["step"] == [1, 6, 8] and len(record.series["smoothed_loss"]) == 3


def test_bytes_kept_are_those_of_a_layer_counted_by_hand(workload):
    """One linear layer: FP32 keeps its input, FP8 a quarter of that and a scale a tile and row."""
    text = load("impls").operations["linear.loss"].weights(workload.shape, "bf16", torch.Generator())

    class Single(torch.nn.Module):
        def __init__(self, multiply):
            super().__init__()
            self.multiply, self.weight = multiply, torch.nn.Parameter(torch.randn(256, 192))

        def forward(self, symbols_BT):
            x_BTK = torch.ones(*symbols_BT.shape, 192) * 2
            return type("Output", (), {"logits_BTV": self.multiply(x_BTK, self.weight)})

    tokens = workload.shape.recipe.batch * workload.shape.recipe.length
    counted = []
    for technique in ("bf16", "fp8"):
        training = Training.__new__(Training)
        training.model, training.recipe, training.data_N = (
            Single(linear_of(technique)),
            workload.shape.recipe,
            text.train_N,
        )
        training.device = torch.device("cpu")
        counted.append(saved_bytes(training))
    saved = counted[0] - counted[1]
    assert saved == tokens * 192 * 3 - tokens * 2 * 4


def test_a_model_is_drawn_from_the_recipe_s_seed(workload):
    text = load("impls").operations["linear.loss"].weights(workload.shape, "fp8", torch.Generator())
    one, other = (
        loss_trial._begun(
            text, replace(workload.shape, recipe=replace(workload.shape.recipe, seed=seed)), "fp8", "reference"
        )
        for seed in (0, 1)
    )
    expected = Decoder(workload.shape.shape, 0)
    assert all(torch.equal(a, b) for a, b in zip(one.training.model.parameters(), expected.parameters(), strict=True))
    assert not torch.equal(one.training.model.head_VD, other.training.model.head_VD)
    assert one.training.recipe.seed == 0 and other.training.recipe.seed == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"products": ("reference", "fast")}, "products is 'fast', expected one of reference, dequantized"),
        ({"windows": 0}, "windows is 0, expected a whole number from 1 up"),
        ({"shape": small_shape(32, 1, 8, 32, feed="dense", linear="fp8")}, "the model is in fp8"),
    ],
)
def test_impossible_trainings_are_refused(workload, changes, said):
    with pytest.raises(ValueError, match=said):
        replace(workload.shape, **changes)
