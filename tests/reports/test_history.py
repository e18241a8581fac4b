"""The history pages: nothing joined across machines, changes with their cause, budgets kept at any size, no markup."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import plotly.graph_objects as go
import pytest

from harness.record import Run
from harness.store import History
from reports import history
from reports.figure import MAX_SERIES, TRACE_TYPES
from tests.harness.past import generate, header, record
from tests.reports.reading import Reader, assert_as_kept
from tests.reports.test_hostile import EVIL, OURS, Elements, strings
from tests.reports.test_site import FIGURES, PAGE_BYTES, Parsed


def build(top: Path, runs: list[Run]) -> dict[str, str]:
    """Pages of a history of these runs."""
    with History(top / "h.sqlite") as store, store.together():
        for run in runs:
            store.add(run)
    assert history.main(["--history", str(top / "h.sqlite"), "--out", str(top / "site")]) == 0
    return {path.name: path.read_text(encoding="utf-8") for path in (top / "site").glob("*.html")}


def story() -> list[Run]:
    """Two machines, three contenders, thirty runs each: one slower with a torch upgrade, one faster by its own file."""
    runs = []
    for number in range(60):
        machine, late = number % 2, number >= 40
        head = header(number, machine, "2.13.0" if late else "2.11.0")
        wobble = 1 + 0.002 * (number * 7 % 5)
        times = [1e6 * (1.25 if late else 1), 2e6 * (0.5 if number >= 20 else 1), 3e6]
        digests = ["a" * 12, ("b" if number >= 20 else "a") * 12, "a" * 12]
        records = [
            record(case, time * wobble * (1 + machine), digest)
            for case, (time, digest) in enumerate(zip(times, digests, strict=True))
        ]
        runs.append(Run(Path("none"), head, tuple(records)))
    return runs


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build(tmp_path_factory.mktemp("history"), story())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Runs of 520 cases on two machines, all of one operation."""
    top = tmp_path_factory.mktemp("large")
    generate(top / "runs", 8, 520)
    from harness.record import read_run

    runs = []
    for folder in sorted((top / "runs").iterdir()):
        run = read_run(folder)
        records = [dataclasses.replace(r, case=f"one.operation/made/{r.sizes}") for r in run.records]
        runs.append(dataclasses.replace(run, records=tuple(records)))
    return build(top, runs)


def test_pages_read_as_they_did(pages: dict[str, str]) -> None:
    for name, page in (("history", "index.html"), ("history-lines", "lines-attention.decode.html")):
        assert_as_kept(name, Reader(pages[page]).lines)


def test_every_change_is_told_with_what_came_with_it(pages: dict[str, str]) -> None:
    rows = [line for line in Reader(pages["index.html"]).lines if line.startswith("| 2026-")]
    changes = [line for line in rows if ".." in line]
    assert len(changes) == 4  # two lines, each on two machines
    assert sum("torch 2.11.0 -> 2.13.0" in line and "▲ 1.25×" in line for line in changes) == 2
    assert sum("its own file" in line and "▼ 0.500×" in line for line in changes) == 2
    assert len({line.split("|")[-1] for line in changes}) == 2


def test_no_line_is_drawn_across_machines(pages: dict[str, str]) -> None:
    for spec in Parsed(pages["index.html"]).specs:
        dots = [trace for trace in spec["data"] if trace["mode"] == "markers"]
        assert len(dots) == 2 and len({trace["name"] for trace in dots}) == 2
        places = [set(trace["x"]) for trace in dots]
        assert not places[0] & places[1]
        for trace in spec["data"]:
            assert max(trace["y"]) / min(trace["y"]) < 2.2


def test_toolchain_changes_are_marked_where_they_came(pages: dict[str, str]) -> None:
    for spec in Parsed(pages["index.html"]).specs:
        assert sorted(shape["x0"] for shape in spec["layout"]["shapes"]) == [39.5, 40.5]
        assert "torch 2.11.0" in spec["layout"]["annotations"][0]["text"]


@pytest.mark.parametrize("which", ["pages", "large"])
def test_pages_keep_the_rules_of_the_site(which: str, request: pytest.FixtureRequest) -> None:
    found: dict[str, str] = request.getfixturevalue(which)
    parsed = {name: Parsed(text) for name, text in found.items()}
    for name, page in parsed.items():
        assert len(found[name].encode()) <= PAGE_BYTES and len(page.figures) <= FIGURES
        assert len(page.ids) == len(set(page.ids))
        for address in page.addresses:
            parts = urlsplit(address)
            assert not parts.scheme and not address.startswith("/")
            assert not parts.path.endswith(".html") or unquote(parts.path) in found
        for figure in page.figures:
            assert figure["labels"][0] in page.ids and {"details", "table", "td"} <= set(figure["tags"])
            assert "".join(figure["caption"]).endswith(".")
        for spec in page.specs:
            go.Figure(spec)
            assert 0 < len(spec["data"]) <= MAX_SERIES
            assert {trace["type"] for trace in spec["data"]} <= TRACE_TYPES
            assert all(len(trace["x"]) <= 200 for trace in spec["data"])
            assert all(spec["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis"))
        assert re.search(r"<h1[^>]*>[^<]+</h1><p class=\"answer\">[^<]{20,}</p>", found[name])
        assert "What this does not show" in found[name]
    assert any(page.figures for page in parsed.values())


def test_every_line_of_a_large_history_is_on_a_page(large: dict[str, str]) -> None:
    lines = {name: text for name, text in large.items() if name.startswith("lines-")}
    assert len(lines) == 3
    text = "".join(lines.values())
    assert text.count('class="spark"') == 1040
    assert all(text.count(f">one.operation/made/n{case:04d}<") == 2 for case in (0, 499, 519))


def test_changes_are_data_too(tmp_path: Path) -> None:
    build(tmp_path, story())
    found = json.loads((tmp_path / "site" / "changes.json").read_text())
    assert len(found) == 4 and {one["toolchain"] for one in found} == {"", "torch 2.11.0 -> 2.13.0"}
    assert {round(one["ratio"], 2) for one in found} == {1.25, 0.5}


def test_no_word_of_a_run_becomes_markup(tmp_path: Path) -> None:
    runs = []
    for number in range(20):
        head = header(number)
        software = {"torch": EVIL if number >= 10 else "2"}
        machine = {**head.machine, "label": EVIL, "software": software, "git": {"commit": "<b>", "dirty": True}}
        head = dataclasses.replace(head, machine=machine, method=EVIL, started="<i>" if number % 2 else head.started)
        one = dataclasses.replace(record(0, 1e6 * (1 + (number >= 10)), EVIL), case=f"{EVIL}/{EVIL}/x", technique=EVIL)
        runs.append(Run(Path("none"), head, (one,)))
    found = build(tmp_path, runs)
    for name, text in found.items():
        page = Elements(text)
        assert page.tags <= {*OURS.split(), "svg", "polyline", "circle", "br"}, name
        assert not [word for word in page.attributes if word.startswith("on")]
        assert not [s for spec in page.specs for s in strings(spec) if "<" in s.replace("<extra></extra>", "")]
    assert html.escape(EVIL) in "".join(found.values())


def test_a_single_run_and_failures_alone_have_pages(tmp_path: Path) -> None:
    one = build(tmp_path / "one", [Run(Path("none"), header(0), (record(0, 1e6),))])
    assert "none of 1 line changed its level" in one["index.html"]
    broken = dataclasses.replace(record(0, 1.0), status="error", reason="no", figures={})
    none = build(tmp_path / "none", [Run(Path("none"), header(0), (broken,))])
    assert "no latency in any of them" in none["index.html"]


def test_a_bad_store_and_a_foreign_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "h.sqlite").write_text("x" * 5000)
    assert history.main(["--history", str(tmp_path / "h.sqlite"), "--out", str(tmp_path / "site")]) == 6
    assert history.main(["--history", str(tmp_path / "none.sqlite"), "--out", str(tmp_path / "site")]) == 6
    build(tmp_path / "good", [Run(Path("none"), header(0), (record(0, 1e6),))])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    words = ["--history", str(tmp_path / "good" / "h.sqlite"), "--out", str(tmp_path / "mine")]
    assert history.main(words) == 2 and (tmp_path / "mine" / "thesis.txt").exists()
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "there is no history" in shown and "not a site of this program" in shown
