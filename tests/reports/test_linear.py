"""What the FP8 page computes: ratios, the layer taken apart, rates, errors, bytes, and the verdict on a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, read_run
from reports.linear import loss, memory, quantizing, speed
from reports.linear.cases import FP8, PRODUCTS, TRAIN, emulated, has_fp8, of, over, sweeps, unquantized
from reports.linear.errors import curves, distribution_plot, length_plot, numerics
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_linear
from tests.reports.made_linear import LAYER, SMALL, loss_record
from tests.reports.test_linear_page import view_of


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    run = read_run(made_linear.run(tmp_path_factory.mktemp("linear"), *made_linear.PARTS))
    return View(run, "linear", "named", Palette(run.records), Path("."))


def case_of(view: View, name: str):
    return next(case for case in view.cases if case.id == name)


def test_ratios_are_those_of_the_best_without_and_with_fp8(view: View) -> None:
    case = case_of(view, "linear.fprop/v3/m8192-n7168-k16384")
    latency = {r.contender: r.figures["latency"].value for r in case.passed}
    ratios = over(view, case)
    assert ratios[FP8].value == pytest.approx(latency["fp8/deep-gemm"] / latency["bf16/mm"], rel=0.01)
    assert ratios["fp8-row"].value == pytest.approx(latency["fp8-row/scaled-mm"] / latency["bf16/mm"], rel=0.01)
    text = speed.answer(view)
    assert text and text.startswith("On this GPU fine-grained FP8 takes 0.50") and "in 8 cases" in text


def test_cases_are_in_the_order_of_products_and_larger_ones_first(view: View) -> None:
    plot = speed.product_plot(view)
    assert plot is not None
    names = list(reversed(plot.layout["yaxis"]["categoryarray"]))
    assert names[0] == "fprop m8192-n7168-k16384" and names[-1] == "train m8192-n4096-k7168"
    assert [name.split()[0] for name in names] == ["fprop"] * 6 + ["dgrad", "wgrad", "train", "train"]
    assert [trace["name"] for trace in plot.traces] == ["fp8", "fp8-row", "fp8-tensor"]
    assert speed.grouped_plot(view).title == "FP8's time over BF16's, grouped products of experts"


def test_rates_are_work_over_time_and_stop_at_the_floor(view: View) -> None:
    sweep = sweeps(view)[0]
    assert sweep.lengths == [64, 1024, 8192] and sweep.setting == "weight 7168 \N{MULTIPLICATION SIGN} 16384"
    plot = speed.rate_plot(sweep, "rate")
    by_name = {trace["name"]: trace for trace in plot.traces}
    best = case_of(view, "linear.fprop/v3/m8192-n7168-k16384").best(FP8)
    expected = 2e9 * 8192 * LAYER[0] * LAYER[1] / best.figures["latency"].value
    assert by_name["fp8"]["y"][-1] == pytest.approx(expected, rel=1e-3)
    assert by_name["fp8 floor"]["y"][-1] == pytest.approx(1.3e15, rel=1e-3)
    low, value, high = (by_name["fp8"]["error_y"][k][-1] for k in ("arrayminus", "array", "array"))
    assert low > 0 and value == high > 0
    assert "fp8 floor" not in {t["name"] for t in speed.rate_plot(without_floor(sweep), "x").traces}


def without_floor(sweep):
    bare = [
        (n, replace(case, records=tuple(replace(r, figures={k: f for k, f in r.figures.items() if k != "floor"})
                                        for r in case.records)))
        for n, case in sweep.points
    ]  # fmt: skip
    return replace(sweep, points=tuple(bare))


def test_what_of_a_layer_is_not_its_products(view: View) -> None:
    found = quantizing.layers(view)
    assert len(found) == 1  # the other layer's products were not all measured
    side, base = found[0][FP8], found[0]["bf16"]
    latency = {o: case_of(view, f"{o}/v3/m8192-n7168-k16384").best(FP8).figures["latency"].value for o in PRODUCTS}
    layer = case_of(view, f"{TRAIN}/v3/m8192-n7168-k16384").best(FP8).figures["latency"].value
    assert side.alone == pytest.approx(sum(latency.values())) and side.share == pytest.approx(
        1 - sum(latency.values()) / layer
    )
    assert sum(side.parts.values()) == pytest.approx(layer) and base.share < 0.02
    plot = quantizing.parts_plot(view)
    assert plot is not None and [t["name"] for t in plot.traces][-1] == "quantizing and the rest"
    ends = {name: sum(t["x"][i] for t in plot.traces) for i, name in enumerate(plot.traces[0]["y"])}
    assert ends["m8192 n7168 k16384 bf16"] == pytest.approx(1, abs=0.02)
    assert ends["m8192 n7168 k16384 fp8"] == pytest.approx(layer / base.whole, rel=1e-3)


def test_a_layer_faster_than_its_products_has_no_rest(view: View) -> None:
    side = quantizing.layers(view)[0][FP8]
    quick = replace(side.layer, figures={**side.layer.figures, "latency": Figure(side.alone / 2)})
    assert replace(side, layer=quick).share == 0 and replace(side, layer=quick).parts[quantizing.REST] == 0


def test_quantizers_are_held_against_a_copy(view: View) -> None:
    plot = quantizing.quantizer_plot(view)
    assert plot is not None
    best = case_of(view, "linear.quantize/v3/m8192-c7168-tiles").best(FP8)
    share = 1e9 * best.value("bytes") / best.figures["latency"].value / 3.9e12
    assert plot.traces[0]["x"][0] == pytest.approx(share, rel=1e-3)
    assert {t["name"]: len(t["x"]) for t in plot.traces}["BF16, not quantized"] == 1
    bare = replace(view.run.header, ceilings={})
    assert quantizing.quantizer_plot(replace(view, run=replace(view.run, header=bare))) is None


def test_one_case_a_distribution_and_curves_from_positive_sums_on(view: View) -> None:
    assert [case.first.sizes.split("-")[3] for case in numerics(view)] == ["gaussian", "positive", "outliers"]
    assert not any("pow2" in case.first.sizes for case in numerics(view))
    assert [case.first.shape["values"] for case, _ in curves(view)][:2] == ["positive", "gaussian"]
    plot, errors = length_plot(view), distribution_plot(view)
    assert plot is not None and errors is not None
    assert "errs by 1.69 %; with sums promoted every 128 by 0.040 %, 42.2 times less" in plain(plot.takeaway)
    assert "of outliers fp8-tensor turns 34.2 % to zero where fine grains turn 0.80 %" in plain(errors.takeaway)
    assert [t["name"] for t in errors.traces][2:4] == ["fp8-tensor, output", "fp8, one activation"]
    assert errors.traces[3]["marker"]["symbol"].endswith("-open")
    assert [t["name"] for t in plot.traces][:2] == ["positive, not promoted", "positive, promoted"]


def test_an_emulation_does_not_stand_for_fp8_where_the_machine_has_it(tmp_path: Path, view: View) -> None:
    """On an H200 the only fp8-row gradient of a weight was the reference: fifty times BF16's time, and not FP8's."""
    assert has_fp8(view) and not any(map(emulated, (r for case in of(view, *PRODUCTS) for r in case.records)))
    slow = [made_linear.record("wgrad", 64, 4096, 7168, name)[0] for name in ("bf16/reference", "fp8-row/reference")]
    kept = [r for case in of(view, PRODUCTS[0]) for r in case.records]
    mixed = view_of(tmp_path / "mixed", [*kept, *slow])
    assert "emulated" not in (speed.answer(mixed) or "emulated")
    assert not [ratios for case, ratios in speed.compared(mixed, PRODUCTS) if case.first.operation == PRODUCTS[2]]
    alone = view_of(tmp_path / "alone", slow)
    assert not has_fp8(alone) and "fp8-row" in speed.compared(alone, PRODUCTS)[0][1]


def plain(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_error_and_speed_of_every_contender_of_the_largest_product(view: View) -> None:
    plot = speed.tradeoff_plot(view)
    assert plot is not None and plot.title.endswith("fprop m8192-n7168-k16384")
    assert sum(len(t["x"]) for t in plot.traces) == 5  # without the reference, which emulates
    assert plot.traces[0]["y"][0] == pytest.approx((0.0372**2 + 4e-4**2) ** 0.5, rel=1e-3)


def test_bytes_are_those_of_payloads_and_scales() -> None:
    fine = next(f for f in memory.FORMATS if f.name == FP8)
    assert fine.weight(*SMALL) == 4096 * 7168 + 4 * 32 * 56
    assert fine.activations(100, 200) == 100 * 200 + 4 * 100 * 2
    rows = next(f for f in memory.FORMATS if f.name == "fp8-row")
    assert rows.weight(*SMALL) == 4096 * 7168 + 4 * 4096 and rows.activations(100, 200) == 20_400


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0.001, 0.0011, 0.0009], "within the"),
        ([0.004, 0.0041, 0.0039], "beyond the"),
        ([-0.004, -0.0041, -0.0039], "beyond the"),
        ([0.001, 0.004, -0.002], "inconclusive"),
        ([0.0001], "inconclusive"),
    ],
)
def test_the_verdict_is_of_the_whole_interval(found: list[float], said: str) -> None:
    assert said in loss.verdict(found)


def test_seeds_are_paired_and_read_at_their_last_common_step(tmp_path: Path) -> None:
    records = [loss_record(seed, t, off=0.002) for seed in range(3) for t in ("bf16", "fp8")]
    cut = replace(records[-1], series={k: v[:-2] for k, v in records[-1].series.items()})
    alone = loss_record(7, "fp8")
    (family,) = loss.families(view_of(tmp_path, [*records[:-1], cut, alone]))
    assert [seed.seed for seed in family.seeds] == [0, 1, 2] and [seed.end for seed in family.seeds] == [400, 400, 300]
    assert family.at_end == pytest.approx([0.002, 0.0022, 0.0024 * 0.75], rel=1e-2)
    assert [seed.seed for seed in family.longest] == [0, 1] and family.spread == pytest.approx(0.005, rel=0.05)
    assert "+0.2" in loss.told(family) and "after 300 to 400 steps" in loss.told(family)
    assert loss.told(family).endswith("inconclusive, for the time was up before step 400")


def test_models_that_differ_in_more_than_the_seed_are_not_joined(tmp_path: Path) -> None:
    records = [loss_record(seed, t, steps=s) for s in (400, 800) for seed in range(2) for t in ("bf16", "fp8")]
    records += [loss_record(2, t, steps=800) for t in ("bf16", "fp8")]
    found = loss.families(view_of(tmp_path, records))
    assert [(family.name, len(family.seeds)) for family in found] == [
        ("byte-dense-d128/s800", 3),
        ("byte-dense-d128/s400", 2),
    ]
    assert loss.others(view_of(tmp_path / "again", records)) == "In the table also: byte-dense-d128/s400."


def test_the_loss_is_drawn_beside_the_claim(view: View) -> None:
    plot = loss.loss_plot(view)
    assert plot is not None and [shape["y0"] for shape in plot.layout["shapes"]] == [0.25, -0.25]
    lower = [trace for trace in plot.traces if trace.get("yaxis") == "y2"]
    assert [trace["name"] for trace in lower] == ["seed 0", "seed 1", "seed 2"]
    assert lower[0]["y"][-1] == pytest.approx(0.1, rel=1e-3)
    assert {trace["name"] for trace in plot.traces} >= {"FP8", "without FP8 (BF16)"}


def test_a_failed_training_costs_its_seed(tmp_path: Path) -> None:
    records = [loss_record(seed, t) for seed in range(2) for t in ("bf16", "fp8")]
    records[1] = made.failed(replace(records[1], series={}), "incorrect", "step 3 returned nan")
    (family,) = loss.families(view_of(tmp_path, records))
    assert [seed.seed for seed in family.seeds] == [1] and "inconclusive" in loss.told(family)


def test_fp32_is_called_so_where_there_is_no_bf16(tmp_path: Path, view: View) -> None:
    single = [made_linear.record("fprop", 64, *SMALL, name, "cpu")[0] for name in ("bf16/mm", "fp8/scaled-mm")]
    found = view_of(tmp_path, single, "cpu")
    assert (unquantized(found), unquantized(view)) == ("FP32", "BF16")
    assert speed.answer(found).startswith("Not on this machine, whose FP8 is emulated")
