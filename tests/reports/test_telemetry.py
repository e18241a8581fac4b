"""What the machine did, on a case's page: readings, lanes that keep a dip, and words where the clock was low."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.keep import keep
from harness.record import Figure, Record, RunWriter, load_lanes, read_run, slug
from reports import facts
from reports.telemetry import POINTS
from tests.reports import made
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader
from tests.reports.test_site import Parsed

CASE = "attention.decode/v3/b16-s4096"
GPU = "2026-03-01T10-00-00-gpu"
PASSED = Record("o/m/s", "st", "o", "m", "s", {}, "plain", "fast", "optimized", "passed",
                figures={"latency": Figure(5.0, 4.0, 6.0)})  # fmt: skip


def drawn(text: str) -> dict[str, list[tuple[str, list[float | None]]]]:
    """Lanes of each figure of a machine: title and values."""
    found = {}
    for spec in Parsed(text).specs:
        traces = spec["data"]
        if "yaxis" in traces[0] and spec["layout"]["xaxis"]["title"]["text"].startswith("Since the measurement"):
            found[f"{len(found)}"] = [(trace["name"], trace["y"]) for trace in traces]
    return found


def test_lanes_keep_a_dip_and_every_device_has_its_own(built: Built) -> None:
    text = built.pages[f"{GPU}/case/{slug(CASE)}.html"]
    lanes = drawn(text)
    assert [[name for name, _ in one] for one in lanes.values()] == [
        ["SM clock", "Power"],
        ["Temperature"],
        ["Load by others", "Cores taken away"],
    ]
    clock = lanes["0"][0][1]
    assert len(clock) <= POINTS and clock.count(1230) == 1 and set(clock) == {1755, 1230}
    lines = Reader(text).lines
    assert "GPU 0: SM clock lay between 1,230 MHz and 1,755 MHz and power lay between 500 W and 506 W." in lines
    assert "GPU 1: temperature stayed at 41 °C." in lines
    assert "| SM clock| 1,755 MHz| 1,230 MHz| 1,755 MHz" in lines
    assert "1 other process had the GPU open meanwhile." in lines
    assert any(line.startswith("| All, in turn| 1,755 MHz1,590 to 1,980") for line in lines)


def test_a_low_clock_and_a_second_measurement_are_marked() -> None:
    low = "the SM clock was 1,500 MHz, 6% below the run's median of 1,600 MHz"
    assert facts.cautions(PASSED) == []
    again = replace(PASSED, timing={"repeated": low}, telemetry={"throttle": []})
    assert [word for word, _ in facts.cautions(again)] == ["measured again"]
    both = replace(again, telemetry={"throttle": ["power cap"], "low_clock": low})
    told = facts.cautions(both)
    assert [word for word, _ in told] == list(facts.OF_MACHINE)
    assert low in told[1][1] and "power cap" in told[0][1]


def test_kept_runs_show_their_lanes_and_damaged_ones_cost_no_page(tmp_path: Path) -> None:
    run = made.gpu_run(tmp_path / "run")
    folder = keep(read_run(run), tmp_path / "recorded")
    lanes = load_lanes(folder, CASE)
    assert lanes["gpus"][0]["sm_clock_mhz"].count(1230.0) == 1 and len(lanes["gpus"][0]["seconds"]) <= 100
    assert lanes["host"]["others"] == [0.1, 0.4, None]
    other = "attention.decode/v3/b16-s512"
    RunWriter(folder).lanes(other, {"gpus": [{"seconds": ["x"], "power_w": 4}, None], "host": {"seconds": 3}})
    built = site_of(tmp_path, [folder])
    assert drawn(built.pages[f"{GPU}/case/{slug(CASE)}.html"]) and not drawn(
        built.pages[f"{GPU}/case/{slug(other)}.html"]
    )
