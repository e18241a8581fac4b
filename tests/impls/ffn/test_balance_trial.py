"""The shortened balance study as a trial: arms begin alike and part, with the curves and figures of the long study."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benches.arms import short_plan
from harness.registry import load
from harness.trial import Trials
from impls.ffn import balance_trial
from impls.ffn.balance_trial import ARMS, METRICS, Text
from impls.model.corpus import windows

NAMES = [f"moe/{arm}" for arm in ARMS]


@pytest.fixture
def workload(monkeypatch):
    """Twelve steps of every arm on a few kilobytes, in place of the standard library."""
    text = "".join(f"line {number} of {number % 7} files\n" for number in range(400)).encode()
    data_N = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def draw(shape, technique, generator):
        return Text(data_N, windows(data_N, shape.windows, shape.recipe.length), "lines", "0123456789abcdef")

    plan = replace(short_plan(), steps=12, stops=3, windows=8, arms=tuple(ARMS))
    registry = load("impls")
    monkeypatch.setitem(registry.operations, "ffn.balance", replace(registry.operations["ffn.balance"], weights=draw))
    return plan.trial()


def measured(workload, names):
    trials = Trials(load("impls"), workload, names, "cpu", {}, ".", lambda index: None)
    return {record.implementation: record for record in trials.run(300.0, "samples/x.npz")}


def test_every_arm_begins_alike_and_ends_elsewhere(workload):
    found = measured(workload, NAMES)
    assert {record.status for record in found.values()} == {"passed"}, [r.reason for r in found.values()]
    for arm, record in found.items():
        assert set(record.figures) >= {metric.name for metric in METRICS} | {"latency", "steps", "resident", "peak"}
        assert record.series["step"] == [1, 6, 12] and record.value("steps") == 12
        assert record.value("validation_bits") == record.series["validation_bits"][-1]
        assert sum(record.series["load_layer_1"]) == 8 * 64 * 4
        assert record.verification["data"] == "lines, digest 0123456789ab" and record.doc == ARMS[arm][1]
        assert record.verification["reference"] == (None if arm == "none" else "moe/none")
    assert len({record.verification["first"] for record in found.values()}) == 1
    assert len({record.value("train_loss") for record in found.values()}) == len(ARMS)


def test_an_end_between_stops_is_validated(workload):
    trial = replace(load("impls").operations["ffn.balance"].trial, steps=lambda shape: 8)
    load("impls").operations["ffn.balance"] = replace(load("impls").operations["ffn.balance"], trial=trial)
    record = measured(workload, ["moe/none"])["none"]
    assert record.series["step"] == [1, 6, 8] and record.value("validation_bits") == record.series["validation_bits"][2]


def test_an_arm_whose_scores_are_lost_costs_itself_alone(workload, monkeypatch):
    advance = balance_trial.Arm.advance

    def failing(arm):
        if arm.training.done == 4 and arm.training.balancing.bias_speed:
            with torch.no_grad():
                arm.training.model.mixtures[0].held.router.matrix_ED.fill_(torch.nan)
        return advance(arm)

    monkeypatch.setattr(balance_trial.Arm, "advance", failing)
    found = measured(workload, ["moe/none", "moe/bias"])
    assert found["none"].status == "passed" and found["bias"].status == "error"
    assert "layer 1, step 4" in found["bias"].reason


def test_arms_that_a_shortened_form_leaves_out_say_so(workload):
    shape = short_plan().trial().shape
    able = load("impls").implementations["ffn.balance"]
    assert set(able) == set(NAMES) and able["moe/bias"].supports(shape) is None
    assert able["moe/device-loss"].supports(shape) == "this is a shortened form of none and bias; see make balance"
