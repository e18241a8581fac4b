"""What the page of whole models computes: effects whatever the order, rungs, and sentences over incomplete ladders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benches import effects as printed
from benches.ladder import AXES as PLANNED
from benches.ladder import combinations as planned
from harness.record import Figure, Record, RunWriter, read_run
from reports.model import analysis, combinations, effects, rungs, story
from reports.model.cases import ALL, AXES, BITS, SWAPS, Ladder, combination, ladders, settings_of
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_model
from tests.reports.made_model import NAMES, record


def view_of(folder: Path, records: Sequence[Record], device: str = "cuda") -> View:
    """A run of just these records."""
    writer = RunWriter(folder)
    writer.header(made_model.header(device=device))
    for one in records:
        writer.record(one, made_model.METRICS)
    run = read_run(folder)
    return View(run, "x", "named", Palette(run.records), Path("."))


def ladder_of(folder: Path, records: Sequence[Record]) -> Ladder:
    (found,) = ladders(view_of(folder, records))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    return ladder_of(tmp_path_factory.mktemp("model"), [record(name) for name in NAMES])


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> View:
    run = read_run(made_model.run(tmp_path_factory.mktemp("gaps"), "gaps"))
    return View(run, "x", "named", Palette(run.records), Path("."))


def failing(*names: str) -> list[Record]:
    """All sixteen, these without a result."""
    every = [record(name) for name in NAMES]
    return [made.failed(replace(r, series={}), "oom", "too large") if r.technique in names else r for r in every]


def test_the_axes_are_those_of_the_ladder() -> None:
    assert AXES == PLANNED and [one.name for one in planned()] == NAMES
    assert [settings_of(one.name) for one in planned()] == [one.settings for one in planned()]
    assert [combination(one.settings) for one in planned()] == NAMES
    assert settings_of("mla-moe-fp8") is None and settings_of("mla-moe-fp8-gqa") is None and settings_of("") is None


@pytest.mark.parametrize("ratio", [True, False])
def test_effects_are_those_that_the_ladder_prints(ratio: bool) -> None:
    values = {one.settings: 1.0 + (7 * at % 16) / 5 for at, one in enumerate(planned())}
    for at, expected in enumerate(printed.main_effects(values, ratio)):
        found = effects.main(values, ratio, at)
        assert found is not None and found.value == pytest.approx(expected) and not found.partial
        assert len(found.each) == 8 and found.low <= found.value <= found.high
    for (a, b), expected in printed.interactions(values, ratio).items():
        pair = effects.interaction(values, ratio, a, b)
        assert pair is not None and pair.value == pytest.approx(expected) and len(pair.each) == 4
    assert [effects.left_out(values, ratio, at) for at in range(4)] == pytest.approx(printed.left_out(values, ratio))
    assert effects.steps_up(values, ratio) == pytest.approx(printed.steps_up(values, ratio))


def test_a_missing_combination_costs_its_settings() -> None:
    values = {one.settings: 2.0 ** sum(one.settings) for one in planned()}
    del values[ALL]
    found = effects.main(values, True, 0)
    assert found is not None and found.value == pytest.approx(2) and (len(found.each), found.most) == (7, 8)
    pair = effects.interaction(values, True, 0, 1)
    assert pair is not None and pair.value == pytest.approx(1) and pair.partial
    assert effects.left_out(values, True, 0) is None and effects.steps_up(values, True)[-1] is None
    few = {(False,) * 4: 1.0, (True, False, False, False): 3.0}
    alone = effects.main(few, True, 0)
    assert alone is not None and alone.value == pytest.approx(3) and effects.main(few, True, 1) is None
    assert effects.main({}, True, 0) is None and effects.interaction(few, True, 0, 1) is None


def test_zero_is_no_part_of_a_ratio() -> None:
    values = {one.settings: float(one.settings != ALL) for one in planned()}
    found = effects.main(values, True, 2)
    assert found is not None and len(found.each) == 7 and math.isfinite(found.value)


def test_a_rate_is_read_as_the_time_of_a_token(whole: Ladder) -> None:
    by_words = {quantity.words: quantity for quantity in whole.quantities}
    assert list(by_words) == [
        "time of a training step",
        "time of a new token at batch 1",
        "time of a new token at batch 8",
        "peak memory of a step",
        "cache bytes of a token",
    ]
    quantity = by_words["time of a new token at batch 1"]
    one = replace(whole.records[ALL], figures={"generate_rate_1": Figure(1000.0, 800.0, 1250.0)})
    assert quantity.of(one) == Figure(1e6, 8e5, 1.25e6)
    assert quantity.of(replace(one, figures={"generate_rate_1": Figure(0.0)})) is None


def test_main_effects_and_pairs_are_told(whole: Ladder) -> None:
    plot = analysis.main_plot(whole)
    assert plot is not None and plot.layout["yaxis"]["ticktext"] == list(reversed(SWAPS))
    step = next(trace for trace in plot.traces if trace["name"] == "time of a training step")
    root = 1.25**0.5
    assert step["x"] == pytest.approx([1.2, 1.5 * root, 0.7 * root, 1.6], rel=1e-4)
    assert step["error_x"]["array"][1] == pytest.approx(1.5 * (1.25 - root), rel=1e-3)
    assert "the time of a training step with moe for dense, 1.68× (1.50× to 1.88×)" in plot.takeaway
    assert "the cache bytes of a token with mla for mha, 0.300×" in plot.takeaway
    pairs = analysis.pair_plot(whole)
    assert pairs is not None
    assert pairs.takeaway == (
        "Together over apart, the strongest pair: the time of a training step with moe and fp8, 1.25×."
    )
    rows = {y for trace in plot.traces for y in trace["y"]}
    assert len(rows) == 20 and max(rows) == pytest.approx(3.3)  # no mark covers another


def test_choices_that_multiply_are_said_to(tmp_path: Path) -> None:
    plain = [replace(r, figures={"kv_bytes": r.figures["kv_bytes"]}) for r in map(record, NAMES)]
    pairs = analysis.pair_plot(ladder_of(tmp_path, plain))
    assert pairs is not None
    assert pairs.takeaway == "No pair of choices does more or less together than apart, to within 1 %."


def test_left_out_of_all_four(whole: Ladder, gaps: View) -> None:
    plot = analysis.last_plot(whole)
    assert plot is not None and "the time of a training step with moe for dense, 1.88×" in plot.takeaway
    assert analysis.last_plot(ladders(gaps)[0]) is None


def test_differences_of_validation_say_how_often_they_have_their_sign(whole: Ladder) -> None:
    plot = analysis.bits_plot(whole)
    assert plot is not None
    assert plot.takeaway == (
        "Validation changes, averaged over the others, in bits a byte, by +0.010 with mla for mha (the same sign in 8 "
        "of 8 settings), −0.050 with moe for dense (the same sign in 8 of 8 settings), +0.002 with fp8 for bf16 (the "
        "same sign in 8 of 8 settings) and −0.010 with mtp for ntp (the same sign in 8 of 8 settings)."
    )
    assert [trace["name"] for trace in plot.traces] == [
        "averaged over the others",
        "added in order",
        "last of all four",
    ]


def test_rungs_float_on_what_was_there(whole: Ladder) -> None:
    plot = rungs.rung_plot(whole, whole.quantities[0], 0)
    assert plot is not None
    by_name = {trace["name"]: trace for trace in plot.traces}
    assert by_name["more"]["x"] == ["+ mla", "+ moe", "+ mtp"] and by_name["less"]["x"] == ["+ fp8"]
    assert by_name["more"]["base"][0] == pytest.approx(8e6) and by_name["more"]["y"][0] == pytest.approx(1.6e6)
    assert by_name["carried over"]["y"][3] == pytest.approx(8e6 * 1.2 * 1.5 * 0.7 * 1.25, rel=1e-4)
    assert "<br>1.20×" in by_name["value and step"]["text"][1] and "<br>" not in by_name["value and step"]["text"][0]
    assert plot.takeaway.startswith(
        "Adding mla, moe, fp8 and mtp one after the other takes the time of a training step"
    )
    assert plot.takeaway.endswith("mla 1.20×, moe 1.50×, fp8 0.875× and mtp 1.60×.")
    bits = rungs.rung_plot(whole, BITS, 1)
    assert bits is not None and bits.takeaway.endswith("mla +0.010, moe −0.050, fp8 +0.002 and mtp −0.010.")
    assert {t["name"]: t for t in bits.traces}["less"]["base"][0] == pytest.approx(-0.04)


def test_a_missing_rung_is_named(tmp_path: Path, gaps: View) -> None:
    ladder = ladders(gaps)[0]
    plot = rungs.rung_plot(ladder, ladder.quantities[0], 0)
    assert plot is not None and plot.takeaway == (
        "Adding mla, moe, fp8 and mtp one after the other changes the time of a training step so: mla 1.20×, moe 1.50× "
        "and fp8 0.875×; without figures: mla-moe-fp8-mtp."
    )
    middle = ladder_of(tmp_path / "middle", failing("mla-moe-bf16-ntp"))
    plot = rungs.rung_plot(middle, middle.quantities[0], 0)
    assert plot is not None and plot.takeaway.endswith(": mla 1.20× and mtp 1.60×; without figures: mla-moe-bf16-ntp.")
    assert rungs.rung_plot(ladder_of(tmp_path / "few", failing(*NAMES[1:])), middle.quantities[0], 0) is None


@pytest.mark.parametrize("high", [1.0, 2.66, 9.99, 27.0, 512.0, 3.1e7, 0.004])
def test_ticks_are_round(high: float) -> None:
    ticks = rungs.even(high)
    assert 4 <= len(ticks) <= 11 and ticks[0] == 0 and high * 0.75 <= ticks[-1] <= high
    assert all(len(f"{tick:.1e}".replace(".0", "")) <= 7 for tick in ticks)


def test_the_answer_tells_all_four_and_the_strongest(tmp_path: Path) -> None:
    text = story.answer(view_of(tmp_path / "gpu", [record(name) for name in NAMES]))
    assert text.startswith(
        "All four ideas together (mla-moe-fp8-mtp) take, over mha-dense-bf16-ntp, 2.52× the time of a"
    )
    assert "the time of a new token at batch 8 changes most with mtp for ntp, 0.700×" in text
    assert "Validation ends at 2.452 bits a byte beside 2.500 bits a byte, from one seed each" in text
    assert "emulated" not in text
    on_cpu = story.answer(view_of(tmp_path / "cpu", [record(name) for name in NAMES], "cpu"))
    assert on_cpu.endswith("On a CPU FP8 is emulated, so its times are the emulation's.")


def test_the_answer_holds_for_incomplete_ladders(tmp_path: Path, gaps: View) -> None:
    text = story.answer(gaps)
    assert text.startswith("All four ideas together cannot be told: mla-moe-fp8-mtp has no figures.")
    assert "2 combinations could not run (mha-moe-fp8-ntp and mla-moe-fp8-mtp); the table has the reasons." in text
    none = story.answer(view_of(tmp_path / "none", failing(*NAMES)))
    assert none == "Nothing was measured: none of 16 combinations could run."
    bare = story.answer(view_of(tmp_path / "bare", [record(NAMES[0], figures={})]))
    assert bare.startswith("All four ideas together cannot be told") and bare.endswith(".")
    one = story.answer(view_of(tmp_path / "one", [record(NAMES[0]), record(NAMES[-1], figures={})]))
    assert one.startswith("All four ideas together were trained, but no time or size of them was recorded.")


def test_the_compressor_stands_beside_validation(tmp_path: Path, whole: Ladder) -> None:
    view = view_of(tmp_path / "with", [record(name) for name in NAMES])
    plot = combinations.tradeoff_plot(view, whole)
    assert plot is not None and plot.takeaway.endswith("bits a byte, above the 1.500 of xz -9e.")
    assert plot.layout["shapes"][0]["y0"] == 1.5
    better = ladder_of(tmp_path / "better", [record(name, xz=2.49) for name in NAMES])
    plot = combinations.tradeoff_plot(view, better)
    assert plot is not None and plot.takeaway.endswith("below the 2.490 of xz -9e.")
    without = ladder_of(tmp_path / "without", [record(name, xz=None) for name in NAMES])
    plot = combinations.tradeoff_plot(view, without)
    assert plot is not None and "xz" not in plot.takeaway and "shapes" not in plot.layout
    assert "xz -9e) makes of the validation text was not recorded" in combinations.notes(without)


def test_the_ladder_with_most_combinations_is_shown(tmp_path: Path) -> None:
    small = [replace(r, case="model.ladder/x/s1", model="x", sizes="s1") for r in failing(*NAMES[3:])]
    view = view_of(tmp_path, [*small, *(record(name) for name in NAMES), record(NAMES[0], technique="mla-moe-fp8")])
    assert [len(one.passed) for one in ladders(view)] == [16, 3] and len(ladders(view)[0].records) == 16
    assert "Not shown, with fewer combinations: model.ladder/x/s1." in story.sections(view)


def trial(name: str, **changes: object) -> Record:
    """What the shortened ladder of `make bench` records: a latency, and no generation."""
    found = record(name, None, None)
    kept = {
        key: value for key, value in found.figures.items() if not key.startswith(("generate", "step", "train_rate"))
    }
    kept |= {"latency": found.figures["step_time"], "throughput": Figure(3e4)}
    timing = {"clock": "wall", "pairing": "paired", "steps": 100, "planned": 100}
    told = {"data": "some text, digest 0123"}
    found = replace(found, figures=kept, timing=timing, shape={"recipe": {"steps": 100}}, verification=told)
    return replace(found, **changes)  # type: ignore[arg-type]


def few() -> list[Record]:
    """None of the ideas, each alone, all four; the others are not asked for, and FP8 has a second product."""
    found = []
    for name in NAMES:
        one = trial(name)
        asked = sum(made_model.settings(name)) in (0, 1, 4)
        found.append(one if asked else made.failed(replace(one, series={}), "unavailable", "6 of 16 take part"))
        if made_model.settings(name)[2]:
            again = replace(one, implementation="slow")
            found.insert(0, made.failed(replace(again, series={}), "unavailable", "FP8 is multiplied otherwise here"))
    return found


def test_the_shortened_ladder_is_told_for_what_it_is(tmp_path: Path) -> None:
    view = view_of(tmp_path, few())
    ladder = ladders(view)[0]
    assert len(ladder.passed) == 6 and len(ladder.absent) == 10 and ladder.early is None
    assert {r.reason for r in ladder.records.values()} == {None, "6 of 16 take part"}
    text = story.answer(view)
    assert (
        "In the one setting of the others that has figures, the time of a training step changes most with mtp" in text
    )
    assert "could not run" not in text and "Validation ends at 2.452" in text
    notes = combinations.notes(ladder)
    assert "Not asked for here: 10 combinations; make ladder trains all sixteen." in notes and "PRICE" not in notes
    assert (
        "6 combinations, each trained for 100 steps in turn, from one start on the same bytes: some text, digest"
        in notes
    )
    plot = rungs.rung_plot(ladder, ladder.quantities[0], 0)
    assert plot is not None
    assert plot.takeaway.endswith("mla 1.20×; without figures: mla-moe-bf16-ntp and mla-moe-fp8-ntp.")
    assert analysis.last_plot(ladder) is None and analysis.pair_plot(ladder) is None
    stopped = [r if r.status != "passed" else replace(r, timing={**r.timing, "steps": 40}) for r in few()]
    cut = ladders(view_of(tmp_path / "cut", stopped))[0]
    assert "each trained for 40 of 100 steps in turn" in combinations.notes(cut)
    assert "The time was up after 40 of 100 steps." in story.answer(view_of(tmp_path / "again", stopped))
    assert "Measured by: <code>make ladder</code>" in story.sections(view) and "whisker" not in story.sections(view)


def test_the_fastest_contender_of_a_combination_counts(tmp_path: Path) -> None:
    slow = trial(NAMES[-1], implementation="slow")
    slow = replace(slow, figures={**slow.figures, "latency": Figure(9e9)})
    wrong = made.failed(replace(trial(NAMES[-1], implementation="wrong"), series={}), "incorrect", "off")
    found = ladders(view_of(tmp_path, [wrong, slow, trial(NAMES[-1])]))[0]
    assert found.records[ALL].implementation == "dequantized"
    only = ladders(view_of(tmp_path / "only", [wrong]))[0]
    assert only.records[ALL].status == "incorrect" and not only.passed
