"""What the ffn page computes: ratios on both footings, skew and its twin, shares, loads, training, ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, Record, RunWriter, read_run
from reports import contest
from reports.ffn import answer, sections
from reports.ffn.cases import sweeps, twins
from reports.ffn.imbalance import apart, costs, skew_plot
from reports.ffn.inner import inner_plot, pieces
from reports.ffn.layers import footing_plot, over
from reports.ffn.loads import clean, curve_plot, heat_plot
from reports.ffn.ranks import rank_plot, ranks_of
from reports.ffn.simulated import simulated_plot
from reports.ffn.training import bits_plot, violation_plot
from reports.figure import MAX_SERIES, Plot
from reports.palette import Palette
from reports.view import View
from tests.reports import made_ffn


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    run = read_run(made_ffn.run(tmp_path_factory.mktemp("ffn"), "layers", "balance", "parallel"))
    return View(run, "ffn", "named", Palette(run.records), Path("."))


def view_of(folder: Path, records: Sequence[Record]) -> View:
    """A run of just these records, without samples."""
    writer = RunWriter(folder)
    writer.header(made_ffn.header())
    for record in records:
        writer.record(replace(record, samples=None), made_ffn.METRICS)
    run = read_run(folder)
    return View(run, "x", "named", Palette(run.records), Path("."))


def drawn(plot: Plot | None) -> Plot:
    """A plot that must be there."""
    assert plot is not None
    return plot


def test_ratios_of_both_footings_are_those_of_the_best(view: View) -> None:
    case = next(c for c in view.cases if c.id == "ffn.prefill/v3-ep8/t4096")
    ratios, latency = over(view, case), {r.contender: r.figures["latency"].value for r in case.passed}
    best = latency["moe/triton"]
    for technique, name in (("dense", "reference"), ("dense-total", "reference"), ("moe-coarse", "grouped-mm")):
        assert ratios[technique].value == pytest.approx(best / latency[f"{technique}/{name}"], rel=0.01)
    text = answer(view)
    assert f"{ratios['dense'].value:.3f}"[:5] in text and f"{ratios['dense-total'].value:.3f}"[:5] in text
    plot = drawn(footing_plot(view))
    assert [t["name"] for t in plot.traces][:2] == [
        "over dense, equal active parameters",
        "over dense, equal total parameters",
    ]
    assert len(plot.traces[0]["y"]) == 11


def test_decode_and_prefill_share_an_axis_and_equal_tokens_never_a_point(tmp_path: Path, view: View) -> None:
    first = sweeps(view)[0]
    assert (first.model, first.setting, first.lengths) == ("v3-ep8", "", [1, 16, 128, 1024, 4096])
    assert "Zipf 1 routing" in {s.setting for s in sweeps(view)}
    both = [made_ffn.record(f"ffn.{o}", "v3-ep8", 64, 0.0, "moe/triton")[0] for o in ("decode", "prefill")]
    found = sweeps(view_of(tmp_path, both))
    assert [(s.operation, s.lengths) for s in found] == [("ffn.decode", [64]), ("ffn.prefill", [64])]


def test_skew_is_held_against_its_uniform_twin_by_medians(view: View) -> None:
    pairs = twins(view)
    assert [(a.first.sizes, b.first.sizes) for a, b in pairs] == [
        ("t128-zipf1", "t128"),
        ("t4096-zipf1", "t4096"),
    ]
    by_name = costs(view, pairs)
    assert next(iter(by_name)) == "moe/triton"
    assert by_name["dense/reference"][0].ratio.value == pytest.approx(1, abs=0.01)
    cost = by_name["moe/sorted"][1]
    twin = next(r for r in pairs[1][1].records if r.contender == "moe/sorted")
    exact = cost.record.figures["latency"].value / twin.figures["latency"].value
    assert cost.ratio.value == pytest.approx(exact, rel=1e-12) and cost.ratio.low < exact < cost.ratio.high
    assert apart(view, cost.record, twin) == cost.ratio
    counts = next(r.series["expert_load"] for r in pairs[1][0].records if r.contender == "moe/triton")
    assert cost.violation == pytest.approx(max(counts) / (sum(counts) / len(counts)) - 1)


def test_shares_of_the_layer_need_the_same_tokens_and_a_slice_has_its_models_router(view: View) -> None:
    found = {p.case.id: p for p in pieces(view)}
    experts, lone = found["ffn.experts/v3-ep8/t4096"], found["ffn.experts/v2-lite/t512"]
    layer = next(c for c in view.cases if c.id == "ffn.prefill/v3-ep8/t4096").best("moe")
    assert layer is not None
    assert experts.share() == pytest.approx(experts.record.figures["latency"].value / layer.figures["latency"].value)
    assert lone.layer is None and lone.share() is None
    route = found["ffn.route/v3/t4096"].layer
    assert route is not None and route.id == "ffn.prefill/v3-ep8/t4096"
    select = found["ffn.select/v3/t128"].layer
    assert select is not None and select.id == "ffn.decode/v3-ep8/t128"
    plot = drawn(inner_plot(view))
    names = {label for trace in plot.traces for label in trace["y"]}
    assert "experts v3-ep8/t4096-zipf1" in names and "experts v2-lite/t512" not in names
    assert "v2-lite/t512" in plot.table and "1 case without a layer" in (plot.note or "")


def recorded(tokens: int) -> Record:
    """A layer whose tokens were routed as recorded."""
    found, _ = made_ffn.record("ffn.prefill", "v3-ep8", tokens, 0.0, "moe/triton")
    sizes, shape = f"t{tokens}-recorded", {**found.shape, "recorded": "0123456789ab"}
    loads = {"expert_load": sorted(found.series["expert_load"])}
    return replace(found, case=f"ffn.prefill/v3-ep8/{sizes}", sizes=sizes, shape=shape, series=loads)


def test_recorded_routing_is_a_routing_of_its_own(tmp_path: Path) -> None:
    even = [made_ffn.record("ffn.prefill", "v3-ep8", n, 0.0, "moe/triton")[0] for n in (64, 128)]
    found = view_of(tmp_path / "run", [*even, recorded(64), recorded(128)])
    assert [(a.id, b.id) for a, b in twins(found)] == [
        (f"ffn.prefill/v3-ep8/t{n}-recorded", f"ffn.prefill/v3-ep8/t{n}") for n in (64, 128)
    ]
    assert [(sweep.setting, len(sweep.points)) for sweep in sweeps(found)] == [("", 2), ("recorded routing", 2)]
    plot = drawn(curve_plot(found))
    dashes = {trace["name"]: trace["line"]["dash"] for trace in plot.traces}
    assert dashes["v3-ep8, 64 tokens, recorded"] == "solid" and dashes["v3-ep8, 64 tokens, uniform"] == "dot"
    assert "recorded, v3-ep8" in (answer(found) or "")


def test_sorted_loads_fall_and_average_to_one(view: View) -> None:
    plot = drawn(curve_plot(view))
    assert len(plot.traces) == MAX_SERIES and "more curves" in (plot.note or "")
    for trace in plot.traces:
        assert trace["y"] == sorted(trace["y"], reverse=True) and trace["x"][-1] == 1
        assert len(trace["y"]) == 200 or sum(trace["y"]) / len(trace["y"]) == pytest.approx(1, rel=1e-3)
    assert clean([1, 2, None]) == () and clean([0, 0]) == () and clean([0, 3.0]) == (0.0, 3.0) and clean([1, -1]) == ()


def test_the_map_has_a_row_an_arm_and_layer(view: View) -> None:
    (heat,) = drawn(heat_plot(view)).traces
    assert heat["type"] == "heatmap" and heat["colorscale"] == "Cividis" and heat["zmin"] == 0
    assert heat["y"][-1] == "none, layer 0" and len(heat["y"]) == 15 and {len(row) for row in heat["z"]} == {16}
    assert all(sum(row) / len(row) == pytest.approx(1, abs=0.01) for row in heat["z"])


def test_training_has_a_line_an_arm_and_validation_shows_where_arms_part(view: View) -> None:
    violation, bits = drawn(violation_plot(view)), drawn(bits_plot(view))
    for plot in (violation, bits):
        assert [t["name"] for t in plot.traces] == list(made_ffn.ARMS)
        assert len({t["line"]["color"] for t in plot.traces}) == 5
        assert all(t["x"][0] == 0 and t["x"][-1] == 3000 and len(t["x"]) <= 200 for t in plot.traces)
    low, high = bits.layout["yaxis"]["range"]
    ends = [t["y"][-1] for t in bits.traces]
    assert low < min(ends) and max(ends) < high < bits.traces[0]["y"][0]
    assert "with bias-sequence, the least" in violation.takeaway and "with no balancing" in violation.takeaway


def test_the_long_training_is_shown_before_the_shortened_one_and_the_page_says_which(tmp_path: Path) -> None:
    short, long = [made_ffn.trial(name) for name in ("none", "bias")], [made_ffn.arm("none", layers=2, steps=4)]
    alone = view_of(tmp_path / "alone", short)
    assert drawn(violation_plot(alone)).title.endswith("small/s60")
    assert "Shown: small/s60, 2 arms at 60 steps. It is the shortened form" in sections(alone)
    both = view_of(tmp_path / "both", [*short, *long])  # fewer arms and fewer steps, and not shortened
    assert drawn(violation_plot(both)).title.endswith("tiny/e16-k4") and "small/s60" in drawn(bits_plot(both)).table
    text = sections(both)
    assert (
        "Shown: tiny/e16-k4, 1 arm at 30 steps. In the tables also, as shorter or with fewer arms: small/s60." in text
    )
    assert drawn(heat_plot(both)).note == "Loads as last recorded in ffn.balance/tiny/e16-k4."


def test_a_trials_case_page_speaks_of_steps_and_of_no_floor(tmp_path: Path) -> None:
    found = view_of(tmp_path, [made_ffn.trial("none"), made_ffn.trial("bias", taken=43)])
    text = contest.page(found, found.cases[0])
    assert "a step" in contest.answer(found, found.cases[0])
    for told in ("every step finite, fell", "43 of 60", "60 of 60", "some text", "Learned from", "steps in turn"):
        assert told in text
    assert "Frobenius" not in text and "Cost and floor" not in text and "against the floor" not in text
    assert text.count("The time was up after 43 of 60 steps") >= 1 and "stopped early" in text


def test_ticks_of_a_narrow_range_are_told_apart(tmp_path: Path) -> None:
    arm = made_ffn.arm("none", steps=3)
    found = view_of(tmp_path, [replace(arm, series={**arm.series, "max_violation": [0.9, 1.4, 1.9]})])
    axis = drawn(violation_plot(found)).layout["yaxis"]
    assert len(set(axis["ticktext"])) == len(axis["ticktext"]) and "1.5" in axis["ticktext"]


def test_simulated_and_measured_ranks_never_share_a_figure_or_a_look(view: View) -> None:
    measured, counted = drawn(rank_plot(view)), drawn(simulated_plot(view))
    assert {t["type"] for t in measured.traces} == {"bar"} and {t["type"] for t in counted.traces} == {"scatter"}
    assert "imulated" not in str(measured.spec()) and "simulated-" not in measured.table
    assert all("simulated" in t["name"] and t["marker"]["symbol"].endswith("-open") for t in counted.traces)
    assert all(t["mode"] == "markers" for t in counted.traces)
    assert counted.title.startswith("Simulated, not measured") and counted.takeaway.startswith("Simulated")
    looks = [line.get("symbol", "") for plot in (measured,) for line in (t["marker"] for t in plot.traces)]
    assert not [symbol for symbol in looks if symbol.endswith("-open")]


def test_each_ranks_bar_is_its_time(view: View) -> None:
    plot = drawn(rank_plot(view))
    assert plot.title.endswith("v3-cut/r4-t128-zipf1")
    assert [t["name"] for t in plot.traces] == ["local", "compute", "communication", "waiting"]
    labels = plot.layout["yaxis"]["ticktext"]
    assert len(labels) == 12 and labels[:1] == ["contiguous · 0"] and labels[-1] == "EPLB global · 3"
    record = made_ffn.parallel_record("contiguous", 4, 128, 1.0)
    local, compute, moved, waiting = (t["x"][3] for t in plot.traces)
    assert compute == pytest.approx(record.series["compute_ns"][3] / 1000, rel=1e-4)
    assert (local, moved) == (20, 105) and waiting == pytest.approx(record.series["waiting_ns"][3] / 1000, rel=1e-4)
    even = made_ffn.parallel_record("eplb-global", 4, 128, 1.0)
    told = f"{even.figures['latency'].value / record.figures['latency'].value:.3f}\N{MULTIPLICATION SIGN}"
    assert told in plot.takeaway and told in answer(view)


def test_ranks_that_one_device_played_are_called_simulated_and_hatched(tmp_path: Path) -> None:
    records = [made_ffn.parallel_record(name, 4, 128, 1.0) for name in made_ffn.PLACEMENTS]
    found = view_of(tmp_path, [made_ffn.played(record) for record in records])
    assert rank_plot(found) is None and "for want of devices" in sections(found)
    plot = drawn(rank_plot(found, played=True))
    assert plot.title.startswith("Simulated ranks") and plot.takeaway.startswith("Simulated")
    assert [t["name"] for t in plot.traces] == ["local (simulated rank)", "compute (simulated rank)"]
    assert {t["marker"]["pattern"]["shape"] for t in plot.traces} == {"/", "\\"}
    measured = drawn(rank_plot(view_of(tmp_path / "measured", records)))
    assert not {"/", "\\"} & {t["marker"]["pattern"]["shape"] for t in measured.traces}
    assert rank_plot(view_of(tmp_path / "again", records), played=True) is None
    assert answer(found).startswith("This run does not tell")


def test_series_of_unequal_length_are_not_drawn(tmp_path: Path) -> None:
    arm, ranks = made_ffn.arm("bias"), made_ffn.parallel_record("contiguous", 4, 128, 1.0)
    arm = replace(arm, series={**arm.series, "validation_bits": arm.series["validation_bits"][:-1]})
    ranks = replace(ranks, series={**ranks.series, "dispatch_ns": [1.0]})
    found = view_of(tmp_path, [arm, ranks])
    assert bits_plot(found) is None and violation_plot(found) is not None
    assert ranks_of(ranks) is None and rank_plot(found) is None
    assert "Validation over steps was not recorded." in sections(found)


def test_one_rank_one_expert_one_layer_one_arm_one_step(tmp_path: Path) -> None:
    layer = made_ffn.record("ffn.decode", "v3-ep8", 1, 0.0, "moe/triton")[0]
    layer = replace(layer, series={"expert_load": [1]})
    arm = made_ffn.arm("bias", layers=1, experts=1, steps=1)
    ranks = [made_ffn.parallel_record(name, 1, 8, 0.0) for name in ("contiguous", "simulated-contiguous")]
    found = view_of(tmp_path, [layer, arm, *ranks])
    text = sections(found)
    assert "1 token, uniform: the busiest of 1 expert has 1.00 times the mean." in text
    assert "One layer was trained" in text and "waiting takes 0\N{NARROW NO-BREAK SPACE}% with contiguous" in text
    assert "Simulated for 1 rank " in text
    (curve,) = drawn(curve_plot(found)).traces
    assert (curve["x"], curve["y"], curve["mode"]) == ([1.0], [1.0], "markers")
    (steps,) = drawn(violation_plot(found)).traces
    assert steps["x"] == [0] and "inf" not in str(drawn(bits_plot(found)).spec())


def test_simulated_ranks_are_read_from_sizes_or_shape(tmp_path: Path) -> None:
    record = made_ffn.parallel_record("simulated-eplb-global", 16, 64, 1.0)
    other = replace(record, sizes="wide", case="ffn.parallel/v3-cut/wide", shape={**record.shape, "ranks": 8})
    found = drawn(simulated_plot(view_of(tmp_path, [record, other])))
    assert sorted(x for trace in found.traces for x in trace["x"]) == [8, 16]
    assert skew_plot(view_of(tmp_path / "none", [record])) is None


def test_latency_of_a_simulated_record_is_never_compared(tmp_path: Path) -> None:
    record = made_ffn.parallel_record("contiguous", 4, 128, 1.0)
    fake = replace(record, implementation="simulated-eplb-global", figures={**record.figures, "latency": Figure(1.0)})
    found = view_of(tmp_path, [record, fake])
    text, labels = sections(found), drawn(rank_plot(found)).layout["yaxis"]["ticktext"]
    assert len(labels) == 4 and all(label.startswith("contiguous") for label in labels)
    assert "the time of placement in order" not in text and "moe/simulated-" not in text
