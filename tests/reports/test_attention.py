"""What the attention page computes: crossover, cache bytes, what fits, and its figures as recorded before."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, Record, RunWriter, read_run
from reports.attention import answer, sections
from reports.attention.cache import cache_plot, cache_rows, capacity, capacity_plot, measured_bytes
from reports.attention.lines import grid, implementations_plot, latency_plot
from reports.attention.ratios import cases_plot, ratio_plot
from reports.attention.sweep import crossover, sweeps
from reports.palette import Palette
from reports.samples import distribution, drawn_of, in_order, lane_half, medians
from reports.view import View
from tests.reports import made

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    run = read_run(made.gpu_run(tmp_path_factory.mktemp("gpu")))
    return View(run, "gpu", "named", Palette(run.records), Path("."))


def view_of(folder: Path, records: list[Record]) -> View:
    """A run of just these records, without samples."""
    writer = RunWriter(folder)
    writer.header(made.header())
    for record in records:
        writer.record(replace(record, samples=None), made.METRICS)
    run = read_run(folder)
    return View(run, "x", "named", Palette(run.records), Path("."))


@pytest.mark.parametrize("slope", [-1.0, -0.3, -2.5])
@pytest.mark.parametrize("where", [700.0, 1500.0, 30000.0])
def test_crossover_is_exact_on_a_power_law(slope: float, where: float) -> None:
    points = [(2.0**n, (2.0**n / where) ** slope) for n in range(9, 17)]
    found = crossover(points)
    assert found.tokens == pytest.approx(where, rel=1e-9)
    assert "interpolated" in found.sentence


def test_crossover_outside_the_range_is_not_guessed() -> None:
    for points in ([], [(512.0, 0.9)], [(512.0, 0.9), (1024.0, 0.5)], [(512.0, 2.0), (1024.0, 1.5)], [(512.0, 1.2)]):
        assert crossover(points).tokens is None
    assert "within the measured range" in crossover([(512.0, 2.0), (1024.0, 1.5)]).sentence
    assert "within the measured range" in crossover([(512.0, 0.9), (1024.0, 0.5)]).sentence


def test_crossover_is_the_last_one_and_must_hold() -> None:
    twice = [(512.0, 2.0), (1024.0, 0.5), (2048.0, 2.0), (4096.0, 0.5)]
    assert crossover(twice).tokens == pytest.approx(math.sqrt(2048 * 4096))
    assert crossover(twice[:3]).tokens is None and "behind again" in crossover(twice[:3]).sentence


def test_measured_bytes_are_state_over_slots(view: View) -> None:
    record = next(r for r in view.run.records if r.contender == "mla/absorbed" and r.sizes == "b16-s4096")
    state = record.figures["state"].value
    assert measured_bytes(record) == pytest.approx(state / (16 * 4097))
    assert measured_bytes(replace(record, shape={**record.shape, "ragged": True})) is None
    assert measured_bytes(replace(record, shape={})) is None


def test_cache_rows_count_and_measure_every_technique(view: View) -> None:
    rows = {row.technique: row for row in cache_rows(view)}
    assert {name: row.counted for name, row in rows.items()} == made.KV_BYTES
    for name, row in rows.items():
        assert row.measured == pytest.approx(made.KV_BYTES[name], rel=0.01) and row.layers == 61


def test_what_fits_is_memory_over_all_layers(view: View) -> None:
    row = next(row for row in cache_rows(view) if row.technique == "mla")
    assert capacity(row, 61 * 1152 * 1000.0) == pytest.approx(1000)
    plot = capacity_plot(view, cache_rows(view))
    assert plot is not None and "computed" in plot.takeaway and "Computed, not measured" in (plot.note or "")
    for trace in plot.traces:
        held = made.KV_BYTES[trace["name"]] * 61
        assert all(x * y * held <= 150e9 for x, y in zip(trace["x"], trace["y"], strict=True))


def test_an_fp8_cache_is_a_row_of_its_own(tmp_path: Path, view: View) -> None:
    record = next(r for r in view.run.records if r.contender == "mla/absorbed" and r.sizes == "b16-s4096")
    figures = {**record.figures, "kv_bytes_per_token": Figure(656.0)}
    other = replace(
        record, case="attention.decode/v3/b16-s4096-fp8", shape={**record.shape, "cache": "fp8"}, figures=figures
    )
    made_view = view_of(tmp_path, [record, other])
    plot = capacity_plot(made_view, cache_rows(made_view))
    assert plot is not None and "2,134,562 tokens with MLA and 3,748,500 tokens with MLA in fp8" in plot.takeaway
    assert {(row.name, row.counted) for row in cache_rows(made_view)} == {("mla", 1152.0), ("mla, fp8", 656.0)}
    assert {sweep.setting for sweep in sweeps(made_view, "attention.decode")} == {"batch 16", "batch 16, fp8 cache"}


def test_the_answer_states_bytes_crossover_and_ratio(view: View) -> None:
    text = answer(view)
    first = sweeps(view, "attention.decode")[0]
    assert first.title == "v3, batch 16" and first.lengths == [512, 1024, 4096, 16384, 65536]
    assert "1,152 bytes" in text and "65,536" in text and "56.9 times less" in text
    assert "MLA overtakes MHA at about" in text and "at 64K it takes" in text


def test_ratios_come_from_shared_rounds(view: View) -> None:
    case = sweeps(view, "attention.decode")[0].points[2][1]
    length, found = sweeps(view, "attention.decode")[0].ratios[2]
    mla, mha = case.best("mla"), case.best("mha")
    assert mla is not None and mha is not None and length == 4096
    apart = mla.figures["latency"].value / mha.figures["latency"].value
    assert found.value == pytest.approx(apart, rel=0.01)
    assert found.low is not None and found.high is not None and found.low <= found.value <= found.high


def renamed(record: Record, extra: str, **shape: object) -> Record:
    """The same record in a case whose sizes say more."""
    sizes = f"{record.sizes}-{extra}"
    return replace(record, case=f"{record.case}-{extra}", sizes=sizes, shape={**record.shape, **shape})


def test_cases_that_differ_in_more_than_length_are_never_one_line(tmp_path: Path, view: View) -> None:
    lines = [r for r in view.run.records if r.operation == "attention.decode" and r.shape["batch"] == 1]
    graphs = [renamed(r, "graph") for r in lines if r.shape["length"] == 4096]
    odd = [renamed(r, "odd") for r in lines if r.shape["length"] == 1024]
    found = sweeps(view_of(tmp_path, [*lines, *graphs, *odd]), "attention.decode")
    assert [(s.setting, s.lengths) for s in found] == [
        ("batch 1", [1024, 4096, 16384]),
        ("batch 1, CUDA graph", [4096]),
        ("batch 1", [1024]),
    ]
    assert {r.sizes for _, c in found[0].points for r in c.records} == {"b1-s1024", "b1-s4096", "b1-s16384"}


def at(view: View, *lengths: int) -> list[Record]:
    """Decode records of these lengths, layer and kernel, batch 16."""
    return [r for r in view.run.records if "decode" in r.operation and r.shape["batch"] == 16
            and r.shape["length"] in lengths]  # fmt: skip


def test_one_length_is_no_crossover_and_is_shown_case_by_case(tmp_path: Path, view: View) -> None:
    found = view_of(tmp_path, at(view, 4096))
    layer, kernel = sweeps(found, "attention.decode"), sweeps(found, "attention.decode_kernel")
    value = layer[0].ratios[0][1].value
    plot = cases_plot(layer, kernel)
    assert [(t["name"], t["y"]) for t in plot.traces] == [
        ("layer", ["v3/b16-s4096"]),
        ("inner kernel", ["v3/b16-s4096"]),
    ]
    assert plot.traces[0]["x"][0] == pytest.approx(value, rel=1e-4)
    assert f"{value:.3f}"[:4] in plot.takeaway and "v3/b16-s4096" in plot.takeaway
    assert "MLA takes" in answer(found) and "the one length measured" in answer(found)
    assert "is ahead" not in answer(found) and "overtakes" not in answer(found)
    page = sections(found)
    assert "no crossover to state" in page and 'id="mla-over-mha-cases"' in page and 'id="mla-over-mha"' not in page


def test_the_summary_counts_the_cases_in_which_mla_is_ahead(tmp_path: Path, view: View) -> None:
    records = [
        renamed(r, f"x{i}") for i, n in enumerate((512, 65536)) for r in at(view, n) if "kernel" not in r.operation
    ]
    plot = cases_plot(sweeps(view_of(tmp_path, records), "attention.decode"), [])
    ratios = {y: x for trace in plot.traces for x, y in zip(trace["x"], trace["y"], strict=True)}
    assert ratios["v3/b16-s512-x0"] > 1 > ratios["v3/b16-s65536-x1"]
    assert plot.takeaway.startswith("In 2 cases the MLA layer takes 0.0") and "ahead in 1 of them" in plot.takeaway
    assert plot.layout["yaxis"]["categoryarray"][-1] == "v3/b16-s65536-x1"


def test_a_grid_lists_what_could_not_run_apart_with_its_reason(view: View) -> None:
    text = grid(sweeps(view, "attention.prefill")[0])
    body, rest = text.split("</table>")
    assert "mla/flash_mla" not in body and "mla/absorbed" in body
    assert "Could not run here" in rest and "<b>mla/flash_mla</b>: decode only" in rest


def test_other_models_are_in_the_table_and_not_drawn(tmp_path: Path, view: View) -> None:
    part = [replace(r, model="v3-tp8", case=r.case.replace("v3", "v3-tp8")) for r in at(view, 512)]
    both, alone = view_of(tmp_path / "both", [*at(view, 512), *part]), view_of(tmp_path / "alone", part)
    plot = cache_plot(both, cache_rows(both))
    assert plot.table.count("v3-tp8") == 4 and "4 more rows" in (plot.note or "")
    assert plot.traces[0]["y"] == ["mha", "gqa", "mla", "mqa"]
    assert len(cache_plot(alone, cache_rows(alone)).traces[0]["y"]) == 4


def test_the_answer_tells_the_other_cases(tmp_path: Path, view: View) -> None:
    found = view_of(tmp_path, [*at(view, 512, 1024), *(renamed(r, "x") for r in at(view, 65536))])
    assert "In v3/b16-s65536-x the MLA layer takes 0.0560\N{MULTIPLICATION SIGN} MHA's time." in answer(found)


def test_cache_bytes_are_told_for_the_model_of_the_answer(tmp_path: Path, view: View) -> None:
    other = [replace(r, model="tiny", case=r.case.replace("v3", "tiny")) for r in at(view, 512) if r.technique == "mla"]
    found = view_of(tmp_path, [*other, *at(view, 512, 4096)])
    assert found.cases[0].first.model == "tiny" and cache_rows(found)[0].model == "v3"
    assert "A layer of v3 in bfloat16 caches 1,152 bytes" in answer(found)


def test_a_run_of_inner_kernels_alone_does_not_speak_of_decoding(tmp_path: Path, view: View) -> None:
    found = view_of(tmp_path, [r for r in view.run.records if r.operation == "attention.decode_kernel"])
    assert "In decode's inner kernel, without the layer's projections, on this GPU" in answer(found)
    assert "Decoding on" not in answer(found) and "Decoding on" in answer(view)


def test_a_run_without_mha_says_so(tmp_path: Path, view: View) -> None:
    found = view_of(
        tmp_path, [r for r in view.run.records if r.technique == "mla" and r.operation == "attention.decode"]
    )
    assert "not both" in answer(found)
    assert sweeps(found, "attention.decode")[0].ratios == []


def figures(view: View) -> dict[str, dict]:
    """The figures that are compared with what they were."""
    rows = cache_rows(view)
    found = sweeps(view, "attention.decode")
    case = found[0].points[2][1]
    drawn = [drawn_of(view, record) for record in case.passed[:3]]
    half = lane_half(drawn)
    capacity_figure = capacity_plot(view, rows)
    assert capacity_figure is not None
    single = cases_plot([replace(sweep, points=sweep.points[-1:]) for sweep in found], [])
    plots = [
        cache_plot(view, rows), capacity_figure, latency_plot(found[0], "layer-0"), ratio_plot(found), single,
        implementations_plot(found[0], "implementations"), medians(view, case), in_order(view, case, drawn, half),
        distribution(view, drawn, 1.5 * half),
    ]  # fmt: skip
    return {plot.name: {"title": plot.title, "takeaway": plot.takeaway, **plot.spec()} for plot in plots}


NAMES = ["kv-bytes", "capacity", "layer-0", "mla-over-mha", "mla-over-mha-cases", "implementations", "medians", "order",
         "distribution"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_as_they_were(view: View, name: str) -> None:
    """Run with UPDATE_GOLDEN=1 after a wanted change, and read the difference before keeping it."""
    found = figures(view)[name]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert_close(found, json.loads(path.read_text(encoding="utf-8")), name)


def assert_close(found: object, golden: object, where: str) -> None:
    """Equal, numbers to four digits: quantiles may differ in the last between NumPy's versions."""
    if isinstance(golden, dict):
        assert isinstance(found, dict) and found.keys() == golden.keys(), where
        for key, value in golden.items():
            assert_close(found[key], value, f"{where}.{key}")
    elif isinstance(golden, list):
        assert isinstance(found, list) and len(found) == len(golden), where
        for index, value in enumerate(golden):
            assert_close(found[index], value, f"{where}[{index}]")
    elif isinstance(golden, float) and isinstance(found, (int, float)):
        assert found == pytest.approx(golden, rel=1e-4, abs=1e-9), where
    else:
        assert found == golden, where
