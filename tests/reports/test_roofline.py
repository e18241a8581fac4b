"""Where records lie under measured roofs, what limits them, and what is said of those that have no place."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, Record, RunWriter, read_run
from reports import intensity, roofline, website
from reports.intensity import BANDWIDTH, UNKNOWN, Roofs
from reports.palette import Palette
from reports.view import View
from tests.reports import made
from tests.reports.conftest import Built
from tests.reports.reading import Reader, assert_as_kept
from tests.reports.test_pages import GPU

ROOFS = Roofs(4e12, 3e12, {"bfloat16": 8e14, "float8_e4m3fn": 1.6e15})


def record(flops: float, moved: float, floor: float, latency: float, **changes: object) -> Record:
    """A record of one contender with just what a place needs."""
    figures = {"flops": flops, "bytes": moved, "floor": floor, "latency": latency}
    known = {name: Figure(value) for name, value in figures.items() if value is not None}
    made_up = Record("a.b/m/s", "a", "a.b", "m", "s", {}, "mla", "fast", "optimized", "passed", figures=known)
    return replace(made_up, **changes)  # type: ignore[arg-type]


def view(folder: Path) -> View:
    """A run as the pages see it."""
    run = read_run(folder)
    return View(run, "run", "named", Palette(run.records), folder)


def test_a_point_is_flops_a_byte_and_flops_a_second() -> None:
    point = intensity.place(record(8e9, 4e9, 1e6, 2e6), ROOFS)
    assert point is not None
    assert (point.intensity, point.rate, point.share) == pytest.approx((2.0, 4e12, 0.5))


@pytest.mark.parametrize(
    ("flops", "moved", "floor", "found"),
    [
        (8e9, 4e9, 1e6, BANDWIDTH),  # read at 4 TB/s
        (8e9, 3e9, 1e6, BANDWIDTH),  # copied at 3 TB/s
        (8e9, 3.5e9, 1e6, BANDWIDTH),  # some of both
        (8e11, 1e6, 1e6, "bfloat16"),
        (1.6e12, 1e6, 1e6, "float8_e4m3fn"),
        (8e9, 9e9, 1e6, UNKNOWN),  # no ceiling of this run explains it
    ],
)
def test_what_limits_is_the_ceiling_that_the_floor_agrees_with(
    flops: float, moved: float, floor: float, found: str
) -> None:
    assert intensity.limit(flops, moved, floor, ROOFS) == found


@pytest.mark.parametrize(
    ("missing", "timing", "words"),
    [
        ({"floor"}, {}, "no ceiling was measured"),
        ({"floor", "flops", "bytes"}, {}, "no cost model"),
        ({"latency", "floor"}, {}, "no latency"),
        (set(), {"pairing": "simulated"}, "computed from loads"),
        ({"floor", "flops", "bytes"}, {"steps": 3, "planned": 3}, "a training run"),
    ],
)
def test_what_has_no_place_has_a_reason(missing: set[str], timing: dict[str, object], words: str) -> None:
    one = record(8e9, 4e9, 1e6, 2e6, timing=timing)
    one = replace(one, figures={name: figure for name, figure in one.figures.items() if name not in missing})
    assert words in intensity.reason(one, ROOFS)


def test_no_flops_and_no_ceilings_are_told_apart() -> None:
    assert "no floating-point operations" in intensity.reason(record(0.0, 4e9, 1e6, 2e6), ROOFS)
    assert "no ceilings" in intensity.reason(record(1.0, 4e9, 1e6, 2e6), Roofs(None, None, {}))


def test_every_passed_record_is_drawn_or_named(tmp_path: Path) -> None:
    found = view(made.gpu_run(tmp_path / "run"))
    passed = {(r.case, r.contender) for r in found.run.records if r.status == "passed"}
    drawn = {(p.record.case, p.record.contender) for p in intensity.points(found)}
    named = {(r.case, r.contender) for group in intensity.left(found) for r in group.records}
    assert drawn | named == passed and not drawn & named
    page = roofline.page(found)
    assert page.count("<tr data-series=") == len(drawn)
    for case, _ in passed:
        assert html.escape(case) in page


def test_a_point_above_its_roof_is_an_error_and_not_the_nearest(tmp_path: Path) -> None:
    made.gpu_run(tmp_path / "run")
    run = read_run(tmp_path / "run")
    one = next(r for r in run.records if "floor" in r.figures)
    fast = {**one.figures, "latency": Figure(one.figures["floor"].value / 1.2)}
    RunWriter(tmp_path / "run").record(replace(one, figures=fast), made.METRICS)
    page = roofline.page(view(tmp_path / "run"))
    caution = page.split('class="caution">')[1].split("</p>")[0]
    assert "1 result lies more than 5 % above the roof" in caution and one.contender in caution and "120" in caution
    assert "120" not in page.split('class="answer">')[1].split("</p>")[0]


def test_many_techniques_are_told_apart_by_kind(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.header(made.header())
    for i in range(12):
        kind = "reference" if i % 2 else "optimized"
        writer.record(replace(record(8e9, 4e9, 1e6, 2e6), technique=f"t{i}", kind=kind), made.METRICS)
    page = roofline.page(view(tmp_path / "run"))
    assert re.findall(r'<button[^>]*value="([^"]+)"', page) == ["a:optimized", "a:reference"]


def test_a_run_without_points_says_so(built: Built) -> None:
    page = built.pages["toy-run/roofline.html"]
    assert "none of the 2 results that passed has a floor" in page and 'class="plot"' not in page


@pytest.mark.parametrize(("name", "page"), [("roofline", f"{GPU}/roofline.html"), ("method", f"{GPU}/method.html"),
                                            ("method-cpu", "2026-03-02T09-00-00-cpu/method.html")])  # fmt: skip
def test_pages_read_as_they_did(built: Built, name: str, page: str) -> None:
    assert_as_kept(name, Reader(built.pages[page]).lines)


def test_method_tells_this_run(built: Built) -> None:
    gpu, cpu = built.pages[f"{GPU}/method.html"], built.pages["2026-03-02T09-00-00-cpu/method.html"]
    assert "A gate kernel holds the queue" in gpu and "A gate kernel holds the queue" not in cpu
    assert "8m00s" in gpu and "2.11.0" in gpu and "environment.html" in gpu
    assert website.names(view(built.found.runs[0].folder)) >= {"roofline.html", "method.html", "environment.html"}
