"""The trial: all objectives begin with one loss, end elsewhere, and say how their drafts fare."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness import Workload
from harness.registry import load
from harness.trial import Trials
from impls.model.corpus import Text, windows
from impls.model.shape import small_shape
from impls.model.training import Recipe
from impls.objective.loss_trial import METRICS, LossShape

NAMES = ("ntp/reference", "mtp/reference", "mtp-parallel/reference")
LINES = b"def f(x):\n    return x + 1\n\n\nclass C:\n    value = 2\n\n" * 100


@pytest.fixture
def workload(monkeypatch) -> Workload:
    def text(shape: LossShape, technique: str, generator: torch.Generator) -> Text:
        data_N = torch.frombuffer(bytearray(LINES), dtype=torch.uint8)
        return Text(data_N, windows(data_N, shape.windows, shape.recipe.length), "lines", "0123456789abcdef")

    contract = load("impls").operations["objective.loss"]
    monkeypatch.setitem(load("impls").operations, "objective.loss", replace(contract, weights=text))
    model = small_shape(hidden=32, layers=2, head_dim=8, width=16, feed="dense")
    shape = LossShape(model, Recipe(14, batch=4, length=40, rate=1e-2, warm_up=2), 8, 3)
    return Workload("objective.loss", "tiny", "s14", shape, tiers=())


def test_objectives_begin_alike_and_say_where_they_end(workload):
    trial = Trials(load("impls"), workload, list(NAMES), "cpu", {}, ".", lambda index: None)
    found = {record.contender: record for record in trial.run(300.0, "samples/x.npz")}
    assert {record.status for record in found.values()} == {"passed"}, [r.reason for r in found.values()]
    plain, *more = (found[name] for name in NAMES)
    names = {metric.name for metric in METRICS}
    for record in more:
        assert set(record.figures) >= names | {"latency", "resident", "peak", "ratio"}
        assert record.verification["first"] == pytest.approx(plain.verification["first"], rel=1e-6)
        assert record.value("validation_bits_1") == record.series["validation_bits_1"][-1]
        assert record.series["step"] == [1, 7, 14]
        assert 0 <= record.value("acceptance") <= 1 and 0 <= record.value("acceptance_sampled") <= 1
        assert record.value("model_parameters") > plain.value("model_parameters")
        assert record.value("resident") > plain.value("resident")
    assert set(plain.figures) & names == {"validation_bits", "train_loss", "model_parameters"}
    assert len({record.value("validation_bits") for record in found.values()}) == 3
    assert plain.verification["data"] == "lines, digest 0123456789ab"
