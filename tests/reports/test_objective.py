"""What the MTP page computes: costs of a step, speed-ups and what explains them, tokens by depth, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, Record, RunWriter, read_run
from reports.objective import loss, speed, steps, training
from reports.objective.cases import draftings, origin, row_names
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_objective
from tests.reports.made_objective import cost, generating, loss_record, stepping


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    parts = ("steps", "generation", "loss")
    run = read_run(made_objective.run(tmp_path_factory.mktemp("objective"), *parts))
    return View(run, "objective", "named", Palette(run.records), Path("."))


def view_of(folder: Path, records: Sequence[Record], device: str = "cuda") -> View:
    """A run of just these records, without samples."""
    writer = RunWriter(folder)
    writer.header(made_objective.header(device=device))
    for record in records:
        writer.record(replace(record, samples=None), made_objective.METRICS)
    run = read_run(folder)
    return View(run, "x", "named", Palette(run.records), Path("."))


def records_of(*found: Sequence[tuple[Record, object]]) -> list[Record]:
    return [record for case in found for record, _ in case]


def timed(record: Record, low: float, value: float, high: float) -> Record:
    """The record with this latency, and no samples to pair."""
    return replace(record, samples=None, figures={**record.figures, "latency": Figure(value, low, high)})


def plain(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_a_step_is_compared_with_next_token_prediction_by_depth(view: View) -> None:
    plot = training.step_plot(view)
    assert plot is not None and plot.layout["yaxis"]["categoryarray"] == ["b4-t128, depth 3", "b4-t128, depth 1"]
    by_name = {trace["name"]: trace for trace in plot.traces}
    assert by_name["mtp"]["x"] == pytest.approx([1.5, 2.5], rel=0.01)
    assert by_name["mtp-parallel"]["x"] == pytest.approx([1.45 / 0.97, 2.35 / 0.97], rel=0.01)  # its chunked one failed
    text = plain(training.answer(view) or "")
    assert text.startswith("A training step that also predicts 1 further token takes 1.5") and "with 3 further" in text
    assert "1.50× the peak memory and 1.50× the parameters" in text


def test_cases_of_several_models_are_told_apart(tmp_path: Path) -> None:
    case = view_of(tmp_path, records_of(stepping())).cases[0]
    other = replace(case, id="y", records=tuple(replace(r, model="wide", case="y") for r in case.records))
    assert list(row_names([case, other]).values()) == ["byte-dense-mla-d128 b4-t128, depth 1", "wide b4-t128, depth 1"]


def test_speed_up_is_that_of_fewer_and_dearer_steps(view: View) -> None:
    found = {(one.batch, one.depth): one for one in draftings(view)}
    assert set(found) == {(1, 1), (8, 1), (32, 1), (1, 3)} and found[1, 3].form == "graph"  # the faster form
    first = found[1, 1]
    assert first.cost is not None and first.cost.value == pytest.approx(1.2, rel=0.01)
    assert first.gain == pytest.approx(128 / 72) and first.acceptance == 0.8
    assert first.expected == pytest.approx(128 / 72 / 1.2, rel=0.01)
    assert first.speed_up is not None and first.speed_up.value == pytest.approx(1.8 / 1.2, rel=0.01)
    eight = found[8, 1]
    assert eight.cost is not None and eight.cost.value == pytest.approx(cost(8, 1), rel=0.01)
    assert eight.gain is not None and eight.gain < 1.8


def test_measured_points_stand_beside_their_curves(view: View) -> None:
    plot = speed.acceptance_plot(view)
    assert plot is not None
    by_name = {trace["name"]: trace for trace in plot.traces}
    assert {"no overhead, c = 0", "computed, batch 1", "measured, batch 1", "computed, batch 32"} <= set(by_name)
    assert by_name["no overhead, c = 0"]["y"][-1] == 2 and by_name["computed, batch 1"]["mode"] == "lines"
    assert by_name["computed, batch 1"]["y"][-1] == pytest.approx(2 / 1.2, rel=0.01)
    assert by_name["measured, batch 1"]["x"] == [0.8] and by_name["measured, others"]["x"] == [0.8]
    assert "digest of its weights 0123456789ab" in (plot.note or "") and "recorded with the code" in (plot.note or "")
    assert plot.layout["annotations"][0]["text"] == "DeepSeek-V3, published"


def test_without_the_control_no_curve_is_computed(tmp_path: Path) -> None:
    found = generating()
    records = [*records_of(found[:2]), made.failed(found[2][0], "oom", "it is too large")]
    view = view_of(tmp_path, records)
    plot = speed.acceptance_plot(view)
    assert plot is not None and [t["name"] for t in plot.traces] == ["no overhead, c = 0", "measured"]
    assert plot.takeaway.endswith("what a speculative step costs was not measured.")
    assert steps.cost_plot(view) is None and speed.batch_plot(view) is None
    assert (speed.answer(view) or "").endswith("first drafts accepted).")


def test_weights_trained_in_the_run_are_called_so(tmp_path: Path) -> None:
    record = replace(generating()[1][0], layout="caches; weights fedcba987654 (trained)")
    assert origin(record) == (
        "The model was trained in this run, 1,000 steps of 8 \N{MULTIPLICATION SIGN} 96 bytes; digest of its weights "
        "fedcba987654."
    )
    assert origin(replace(record, layout="contiguous")) is None and origin(replace(record, layout=None)) is None
    assert "steps of" not in (origin(replace(record, shape={})) or "")


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ([(1.2, 1.3), (1.1, 1.2)], "drafting gains at every batch measured, 1.25× at batch 1 and 1.15× at batch 2"),
        ([(1.2, 1.3), (0.7, 0.8)], "drafting gains up to batch 1: 1.25× at batch 1, then 0.750× at batch 2"),
        ([(1.2, 1.3), (0.9, 1.1), (0.7, 0.8)], "drafting gains up to batch 1: 1.25× at batch 1, then 1.00× at batch 2 "
         "and 0.750× at batch 4"),
        ([(0.9, 1.3), (0.7, 0.8)], "drafting is clearly faster at no batch measured: 1.10× at batch 1 and 0.750× at "
         "batch 2, 1 interval holding 1 or unknown"),
        ([(0.7, 0.8), (1.1, 1.2)], "drafting is clearly faster at batch 2, the largest, though not at every one "
         "below: 0.750× at batch 1 and 1.15× at batch 2"),
        ([(0.7, 0.8), (1.1, 1.2), (0.8, 0.9)], "drafting gains up to batch 2, though not at every one below: 1.15× at "
         "batch 2, then 0.850× at batch 4"),
        ([(None, 1.3), (None, 1.2)], "drafting is clearly faster at no batch measured: 1.30× at batch 1 and 1.20× at "
         "batch 2, 2 intervals holding 1 or unknown"),
    ],
)  # fmt: skip
def test_where_batching_ends_the_gain(tmp_path: Path, intervals: list[tuple[float | None, float]], said: str) -> None:
    group = []
    for place, (low, high) in enumerate(intervals):
        (one,) = draftings(view_of(tmp_path / str(place), records_of(generating(2**place))))
        value = high if low is None else (low + high) / 2
        group.append((one, Figure(value, low, None if low is None else high)))
    assert speed.ends_at(group) == said


def test_a_speed_up_whose_interval_holds_one_is_no_gain(tmp_path: Path) -> None:
    records = records_of(generating())
    slow = [timed(records[0], 80, 100, 130), timed(records[1], 70, 90, 120), timed(records[2], 100, 120, 140)]
    text = plain(speed.answer(view_of(tmp_path / "slow", slow)) or "")
    assert text.endswith("None of this is clearly faster than plain decoding.") and "1.11× [0.667, 1.86]" in text
    fast = [timed(records[0], 98, 100, 102), timed(records[1], 69, 70, 71), timed(records[2], 119, 120, 121)]
    assert "clearly" not in (speed.answer(view_of(tmp_path / "fast", fast)) or "clearly")


def test_tokens_of_a_step_add_up_by_depth(view: View) -> None:
    assert steps.yields([0.8, 0.7, 0.6]) == pytest.approx([1, 1.8, 2.36, 2.696])
    plot = steps.depth_plot(view)
    assert plot is not None and [t["name"] for t in plot.traces] == ["always right", "draft 1", "draft 2", "draft 3"]
    assert [t["x"] for t in plot.traces] == [[1.0] * 4, [0.8] * 4, [0.56], [0.336]]
    assert plot.takeaway == (
        "At batch 1, depth 3 a step yields 2.70 tokens of at most 4; its drafts add 0.80, 0.56 and 0.34, one after "
        "the other."
    )
    broken = replace(generating(1, 3)[1][0], series={"acceptance_by_depth": [0.8, float("nan"), 0.6]})
    assert steps.stands(broken) == [0.8] and steps.stands(replace(broken, series={})) == []


def test_cost_and_yield_say_where_drafting_pays(view: View) -> None:
    plot = steps.cost_plot(view)
    assert plot is not None and plain(plot.takeaway).startswith("A speculative step costs 1.20× to 2.13× a plain one")
    assert plot.takeaway.endswith("they outweigh the cost in 3 of 4 cases.")


def test_drafts_of_models_trained_here(view: View, tmp_path: Path) -> None:
    found = steps.trained_table(view)
    assert found is not None and plain(found[0]) == (
        "In models trained in this run first drafts stood, decoding greedily, in 70 % of steps with mtp (3 models) and "
        "30 % of steps with mtp-parallel (3 models)."
    )
    assert steps.trained_table(view_of(tmp_path, [loss_record(0, "ntp")])) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0.0002, 0.0003, 0.0001], "unchanged, as published of large models"),
        ([0.02, 0.021, 0.019], "worse"),
        ([-0.02, -0.021, -0.019], "better"),
        ([0.001, 0.004, -0.02], "inconclusive, for the interval holds 0"),
        ([0.0001], "inconclusive, for one seed has no interval"),
    ],
)
def test_the_verdict_is_of_the_whole_interval(found: list[float], said: str) -> None:
    assert loss.verdict(found) == said


def test_seeds_are_paired_with_next_token_prediction(tmp_path: Path) -> None:
    records = [loss_record(seed, t) for seed in range(3) for t in ("ntp", "mtp")]
    (family,) = loss.families(view_of(tmp_path / "whole", [*records, loss_record(7, "mtp")]))
    assert [seed.seed for seed in family.seeds] == [0, 1, 2]
    assert family.at_end == pytest.approx([0.004, 0.0044, 0.0048]) and family.spread == pytest.approx(0.04)
    text = loss.told(family)
    assert "differs by +0.0044 [+0.0034, +0.0054] bits a byte over 3 seeds" in text and text.endswith(": worse")
    cut = replace(records[-1], series={k: v[:-2] for k, v in records[-1].series.items()},
                  timing={**records[-1].timing, "steps": 300})  # fmt: skip
    (family,) = loss.families(view_of(tmp_path / "cut", [*records[:-1], cut]))
    assert loss.told(family).endswith("inconclusive, for the time was up before step 400")
    assert "after 300 to 400 steps" in loss.told(family)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    view = view_of(tmp_path, [loss_record(0, t) for t in ("ntp", "mtp")])
    text = loss.answer(view) or ""
    assert text.endswith("+0.0040 bits a byte over 1 seed: inconclusive, for one seed has no interval.")
    assert loss.loss_plot(view) is not None


def test_a_failed_training_costs_its_seed(tmp_path: Path) -> None:
    records = [loss_record(seed, t) for seed in range(2) for t in ("ntp", "mtp")]
    records[1] = made.failed(replace(records[1], series={}), "incorrect", "step 3 returned nan")
    (family,) = loss.families(view_of(tmp_path, records))
    assert [seed.seed for seed in family.seeds] == [1]


def test_the_loss_is_drawn_with_both_kinds_of_heads(view: View) -> None:
    plot = loss.loss_plot(view)
    assert plot is not None
    upper = [trace["name"] for trace in plot.traces if "yaxis" not in trace]
    assert upper == ["ntp", "mtp", "mtp-parallel"]
    lower = [trace for trace in plot.traces if trace.get("yaxis") == "y2"]
    assert [trace["name"] for trace in lower] == ["seed 0", "seed 1", "seed 2"]
    assert lower[0]["y"][-1] == pytest.approx(0.004, rel=1e-3)
    assert "mtp-parallel" in (loss.others(view) or "") and (loss.others(view) or "").endswith("worse.")
