"""The compare page: the terminal's verdicts, machine differences first, every pair counted, budgets and no markup."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import plotly.graph_objects as go
import pytest

from harness.compare import summary
from harness.pairing import pair
from harness.record import Figure, Run, read_run
from reports import compare
from reports.figure import TRACE_TYPES
from tests.harness.past import header, record, write
from tests.reports.reading import Reader, assert_as_kept
from tests.reports.test_hostile import EVIL, OURS, Elements, strings
from tests.reports.test_site import PAGE_BYTES, Parsed


def build(top: Path, before: Run, after: Run, *words: str) -> str:
    """The page of two runs, through the command."""
    folders = [str(write(top / name, run.header, list(run.records))) for name, run in (("a", before), ("b", after))]
    assert compare.main([*folders, "--out", str(top / "site"), *words]) == 0
    return (top / "site" / "index.html").read_text(encoding="utf-8")


def runs(cases: int = 40) -> tuple[Run, Run]:
    """Of the later one three contenders are slower, two faster, one needs more memory, one is wrong, one is new."""
    before = [record(case, 1e6 * (case + 1), "a" * 12) for case in range(cases)]
    after = []
    for case in range(cases):
        factor = 1.5 if case < 3 else 0.5 if case < 5 else 1.01
        one = record(case, 1e6 * (case + 1) * factor, ("b" if case < 8 else "a") * 12)
        if case == 6:
            one = dataclasses.replace(one, figures={**one.figures, "peak": Figure(1e7)})
        if case == 7:
            one = dataclasses.replace(one, status="incorrect", reason="off by 3", figures={})
        after.append(one)
    after.append(record(cases, 1e6))
    return Run(Path("a"), header(0), tuple(before)), Run(Path("b"), header(4, torch="2.13.0"), tuple(after))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(tmp_path_factory.mktemp("compare"), *runs())


def test_the_page_reads_as_it_did(page: str) -> None:
    assert_as_kept("compare", Reader(page).lines)


def test_machine_differences_come_before_times(page: str) -> None:
    lines = Reader(page).lines
    differ = [place for place, line in enumerate(lines) if line.startswith("| ≠")]
    same = [place for place, line in enumerate(lines) if line.startswith("| =")]
    assert any("| torch| 2.11.0| 2.13.0" in lines[place] for place in differ)
    assert max(differ) < min(same) and max(same) < lines.index("Times")


def test_terminal_and_page_say_the_same(page: str) -> None:
    found = pair(*runs())
    assert found.counts == {"slower": 3, "faster": 2, "same": 34} and found.code == 5
    assert "3 slower, 2 faster" in summary(found).replace(" (geometric mean 1.50×)", "")
    for kind, count in found.counts.items():
        group = re.search(rf'<details class="outcome {kind}".*?</details>', page, re.S)
        assert group is not None and group.group(0).count("<tr") - 1 == count
    assert "incorrect in B: off by 3" in page and "peak 28,672" in html.unescape(page)


def test_the_figure_has_every_difference_with_its_interval(page: str) -> None:
    (spec,) = Parsed(page).specs
    go.Figure(spec)
    drawn = {trace["name"]: len(trace["x"]) for trace in spec["data"]}
    assert drawn == {"slower": 3, "faster": 2, "same": 25}
    assert {trace["type"] for trace in spec["data"]} <= TRACE_TYPES
    assert all(min(trace["error_x"]["array"]) > 0 for trace in spec["data"])


@pytest.mark.parametrize("verdict", ["same", "slower"])
def test_large_runs_stay_in_the_budget_and_nothing_is_hidden_uncounted(tmp_path: Path, verdict: str) -> None:
    before = [record(case, 1e6, "a" * 12) for case in range(2000)]
    factor = 1 if verdict == "same" else 2
    after = [
        record(case, 1e6 * (factor if case >= 10 else 1), ("b" if case >= 10 else "a") * 12) for case in range(2000)
    ]
    text = build(tmp_path, Run(tmp_path, header(0), tuple(before)), Run(tmp_path, header(1), tuple(after)))
    assert len(text.encode()) <= PAGE_BYTES
    count = 2000 if verdict == "same" else 1990
    left = count - compare.ROWS[verdict]
    assert f"{count} {verdict}" in text and f"{left} more stand in" in text
    assert len(json.loads((tmp_path / "site" / "compare.json").read_text())["pairs"]) == 2000


def test_the_page_keeps_the_rules_of_the_site(page: str) -> None:
    parsed = Parsed(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert not [a for a in parsed.addresses if urlsplit(a).scheme or a.startswith("/")]
    for figure in parsed.figures:
        assert figure["labels"][0] in parsed.ids and {"details", "table", "td"} <= set(figure["tags"])
    assert re.search(r"<h1[^>]*>[^<]+</h1><p class=\"answer\">[^<]{20,}</p>", page)
    assert "What this does not show" in page


def test_no_word_of_a_record_becomes_markup(tmp_path: Path) -> None:
    def evil(number: int, factor: float) -> Run:
        machine = {"label": f"{EVIL}{number}", "software": {"torch": f"{EVIL}{number}"}, "git": {"commit": EVIL}}
        found = []
        for case in range(12):
            one = record(case, 1e6 * (factor if case < 3 else 1), EVIL if case >= 3 else f"{number}")
            found.append(dataclasses.replace(one, case=f"{EVIL}/{case}/x", technique=EVIL, reason=None))
        lost = dataclasses.replace(record(20, 1.0), status="error", reason=EVIL, figures={})
        found.append(lost if number else record(20, 1.0))
        return Run(tmp_path, dataclasses.replace(header(number), machine=machine, run=EVIL, started=EVIL), tuple(found))

    text = build(tmp_path, evil(0, 1.0), evil(1, 3.0))
    seen = Elements(text)
    assert seen.tags <= set(OURS.split()) and not [word for word in seen.attributes if word.startswith("on")]
    assert not [s for spec in seen.specs for s in strings(spec) if "<" in s.replace("<extra></extra>", "")]
    assert html.escape(EVIL) in text


def test_runs_with_nothing_in_common_have_a_page(tmp_path: Path) -> None:
    one, other = Run(tmp_path, header(0), (record(0, 1e6),)), Run(tmp_path, header(1, 1), (record(1, 1e6),))
    text = build(tmp_path, one, other)
    assert "No time is in both" in text and "nothing can be compared" in text and "B has no such case" in text


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", header(0), [record(0, 1.0)])
    assert compare.main([str(folder), str(tmp_path / "nix")]) == 2
    assert "is no run" in capsys.readouterr().err
    assert read_run(folder).records
