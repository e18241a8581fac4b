"""Which runs are shown, what happens to damaged ones, and what the command says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.metrics import COMMON
from harness.record import Header, Record, RunWriter
from reports import contest, website
from reports.__main__ import main
from reports.facts import Case
from reports.markup import Html
from reports.view import View
from tests.reports import made, made_ffn
from tests.reports.reading import read_page


def tool(top: Path, *words: str) -> int:
    """The command on folders of a temporary place."""
    return main(["--runs", str(top / "runs"), "--recorded", str(top / "recorded"), "--out", str(top / "site"), *words])


def test_the_last_line_names_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.toy_run(tmp_path / "runs" / "a")
    assert tool(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Open {tmp_path / 'site' / 'index.html'}"
    assert (tmp_path / "site" / "index.html").is_file()


def test_without_runs_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool(tmp_path) == 2
    assert "make bench" in capsys.readouterr().out
    assert not (tmp_path / "site").exists()


def test_the_newest_run_and_every_recorded_and_named_one(tmp_path: Path) -> None:
    for name, started in (("old", "2026-01-01T00:00:00"), ("new", "2026-02-01T00:00:00")):
        RunWriter(tmp_path / "runs" / name).header(made.header(name, "cpu", started=started))
    (tmp_path / "runs" / "old" / "run.jsonl").touch()
    import os

    os.utime(tmp_path / "runs" / "old" / "run.jsonl", (1, 1))
    for name in ("kept", "other", "mine"):
        RunWriter(tmp_path / ("mine" if name == "mine" else f"recorded/{name}")).header(made.header(name, "cpu"))
    found = website.find(tmp_path / "runs", tmp_path / "recorded", [tmp_path / "mine"])
    origins = dict(zip((run.header.run for run in found.runs), found.origins, strict=True))
    assert origins == {"new": "newest", "mine": "named", "kept": "recorded", "other": "recorded"}
    assert found.problems == []


def test_what_the_newest_run_lacks_comes_from_earlier_ones(tmp_path: Path) -> None:
    import os

    runs = {"oldest": made.cpu_run, "old": made.cpu_run, "toy": made.toy_run, "newest": made.toy_run}
    for age, (name, make) in enumerate(runs.items()):
        make(tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "run.jsonl", (age, age))
    found = website.find(tmp_path / "runs", tmp_path / "none")
    assert sorted(run.folder.name for run in found.runs) == ["newest", "old"]
    assert set(found.origins) == {"newest"}


def test_a_short_form_does_not_stand_for_the_long_command(tmp_path: Path) -> None:
    import os

    for age, (name, record, command) in enumerate(
        [
            ("longest", made_ffn.arm("none"), {"command": "make balance"}),
            ("long", made_ffn.arm("none"), {"command": "make balance"}),
            ("short", made_ffn.trial("none"), {}),
        ]
    ):
        header = made.header(name, "cpu")
        writer = RunWriter(tmp_path / "runs" / name)
        writer.header(replace(header, options={**header.options, **command}))
        writer.record(record, made_ffn.METRICS)
        os.utime(tmp_path / "runs" / name / "run.jsonl", (age, age))
    found = website.find(tmp_path / "runs", tmp_path / "none")
    assert sorted(run.folder.name for run in found.runs) == ["long", "short"]


def test_one_run_in_two_places_is_shown_once(tmp_path: Path) -> None:
    made.toy_run(tmp_path / "runs" / "a")
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "recorded" / "a")
    assert len(website.find(tmp_path / "runs", tmp_path / "recorded").runs) == 1


def test_damage_is_named_and_the_rest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.toy_run(tmp_path / "runs" / "hurt")
    with (folder / "run.jsonl").open("ab") as file:
        file.write(b'{"schema":1,"type":"record","case"')
    (tmp_path / "recorded" / "empty").mkdir(parents=True)
    (tmp_path / "recorded" / "empty" / "run.jsonl").write_text("")
    assert tool(tmp_path) == 0
    told = capsys.readouterr().out
    assert "line 5" in told and "no readable header" in told
    page = next((tmp_path / "site").rglob("toy.html")).read_text()
    assert "Parts of this run could not be read" in page and "plain/quick" in page


def test_missing_samples_cost_their_figures_only(tmp_path: Path) -> None:
    folder = made.cpu_run(tmp_path / "runs" / "a")
    for file in (folder / "samples").iterdir():
        file.write_bytes(b"not an archive")
    assert tool(tmp_path) == 0
    page = read_page(next((tmp_path / "site").rglob("attention.decode--v3--b1-s512.html")))
    assert "missing or damaged" in page and "Medians against the floor" in page and "Verification" in page


@pytest.mark.parametrize("study", ["attention", "toy"])
def test_a_bare_record_never_makes_an_empty_page(tmp_path: Path, study: str) -> None:
    writer = RunWriter(tmp_path / "runs" / "bare")
    writer.header(Header("bare", "", {}, {}, {}))
    for technique in ("mha", "mla"):
        writer.record(
            Record(
                f"{study}.decode/m/s1", study, f"{study}.decode", "m", "s1", {}, technique, "x", "library", "passed"
            ),
            COMMON,
        )
    assert tool(tmp_path) == 0
    for page in (tmp_path / "site").rglob("*.html"):
        text = read_page(page)
        assert text.count("<section") + text.count("<article") >= 2 and "None" not in text, page
    study_page = (tmp_path / "site" / "bare" / f"{study}.html").read_text()
    assert "not recorded" in study_page


def test_a_header_of_wrong_types_costs_its_facts_only(tmp_path: Path) -> None:
    folder = made.toy_run(tmp_path / "runs" / "odd")
    lines = (folder / "run.jsonl").read_text().splitlines()
    head = json.loads(lines[0]) | {"machine": {"gpus": "two", "cpu": 3, "git": None}, "ceilings": {"matrix": 7}}
    (folder / "run.jsonl").write_text("\n".join([json.dumps(head), *lines[1:]]) + "\n")
    assert tool(tmp_path) == 0
    assert "not recorded" in next((tmp_path / "site").rglob("environment.html")).read_text()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.toy_run(tmp_path / "runs" / "a")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.txt").write_text("mine")
    assert tool(tmp_path) == 2
    assert "--out" in capsys.readouterr().err
    assert (tmp_path / "site" / "thesis.txt").read_text() == "mine"


def test_a_second_build_replaces_the_first(tmp_path: Path) -> None:
    made.cpu_run(tmp_path / "runs" / "a")
    assert tool(tmp_path) == 0
    shutil.rmtree(tmp_path / "runs" / "a")
    made.toy_run(tmp_path / "runs" / "b")
    assert tool(tmp_path) == 0
    assert not list((tmp_path / "site").rglob("attention.html")) and list((tmp_path / "site").rglob("toy.html"))


def test_two_runs_of_one_name_have_two_folders(tmp_path: Path) -> None:
    made.toy_run(tmp_path / "recorded" / "a")
    RunWriter(tmp_path / "recorded" / "b").header(made.header("toy-run", "cpu", started="2026-05-05T00:00:00"))
    assert tool(tmp_path) == 0
    assert {"toy-run", "toy-run-2"} <= {path.name for path in (tmp_path / "site").iterdir()}


def test_serving_needs_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--out", str(tmp_path)]) == 2
    assert "Build it first" in capsys.readouterr().err


def test_a_run_whose_pages_cannot_be_made_costs_only_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, make in (("bad", made.cpu_run), ("good", made.toy_run)):
        make(tmp_path / "recorded" / name)
    page = contest.page

    def failing(view: View, case: Case) -> Html:
        if "attention" in view.studies():
            raise KeyError("no such sample")
        return page(view, case)

    monkeypatch.setattr(contest, "page", failing)
    assert tool(tmp_path) == 0
    said = capsys.readouterr().out
    assert ": its pages could not be made: KeyError: 'no such sample'" in said
    assert "from 1 run." in said
    monkeypatch.setattr(contest, "page", lambda view, case: 1 / 0)
    assert tool(tmp_path) == 2
    assert "no run could be shown" in capsys.readouterr().err
