"""The history's store: what goes in comes out, adding and merging lose nothing, a bad file is told in a sentence."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import history
from harness.record import Figure, Record, Run, read_run
from harness.store import History, Unusable
from tests.harness.past import generate, header, record, write

ROOT = Path(__file__).parents[2]


def runs_of(number: int, *records: Record) -> Run:
    return Run(Path("none"), header(number), records)


def content(store: History) -> dict[str, list[Record]]:
    """Every record of every run."""
    found = {}
    for head in store.headers():
        found[head.run] = sorted(store.run(head).records, key=lambda r: (r.case, r.contender))
    return found


def filled(path: Path, *runs: Run) -> Path:
    with History(path) as store:
        for run in runs:
            store.add(run)
    return path


def test_a_run_comes_out_as_it_went_in(tmp_path: Path) -> None:
    run = read_run(ROOT / "reports" / "recorded" / "attention-nvidia-h200")
    with History(tmp_path / "h.sqlite") as store:
        assert store.add(run) == "new" and store.add(run) == "known"
        (head,) = store.headers()
        found = store.run(head)
    assert head == run.header
    key = lambda r: (r.case, r.contender)  # noqa: E731
    assert sorted(found.records, key=key) == sorted(run.records, key=key) and len(found.records) > 900
    assert not found.samples(found.records[0]).size


def test_the_index_holds_every_latency_in_order_of_time(tmp_path: Path) -> None:
    generate(tmp_path / "runs", 12, 6)
    assert history.main([str(tmp_path / "runs"), "--history", str(tmp_path / "h.sqlite")]) == 0
    with History(tmp_path / "h.sqlite") as store:
        points = store.points()
    assert [head.run for head in points.runs] == sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(points.latency) == 72 and len(points.series) == 6
    for place in (0, 17, 71):
        run = read_run(tmp_path / "runs" / points.runs[points.run[place]].run)
        case, contender = points.series[points.line[place]]
        figure = next(r for r in run.records if (r.case, r.contender) == (case, contender)).figures["latency"]
        assert (points.latency[place], points.low[place], points.high[place]) == (figure.value, figure.low, figure.high)


def test_what_did_not_pass_is_kept_and_has_no_latency(tmp_path: Path) -> None:
    broken = dataclasses.replace(record(1, 1.0), status="incorrect", reason="wrong", figures={})
    bare = record(2, 1.0, figures={"latency": Figure(5.0)})
    with History(filled(tmp_path / "h.sqlite", runs_of(0, broken, bare))) as store:
        points = store.points()
        assert [r.status for r in content(store)["run-00000-m0"]] == ["incorrect", "passed"]
    assert np.isnan(points.latency).sum() == 1 and np.isnan(points.low).all()


def test_a_resumed_run_grows_and_a_better_record_replaces_a_worse_one(tmp_path: Path) -> None:
    failed = dataclasses.replace(record(1, 1.0), status="timeout", reason="late", figures={})
    with History(tmp_path / "h.sqlite") as store:
        assert store.add(runs_of(0, record(0, 5.0), failed)) == "new"
        assert store.add(runs_of(0, record(0, 5.0), record(1, 7.0), record(2, 9.0))) == "grown"
        assert store.add(runs_of(0, failed)) == "known"
        assert [r.value("latency") for r in content(store)["run-00000-m0"]] == [5.0, 7.0, 9.0]
        assert len(store.points().latency) == 3


PIECE = st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(1.0, 1e6), st.booleans(), st.integers(1, 3))


def made(pieces: list[tuple[int, int, float, bool, int]]) -> list[Run]:
    """Runs with one record each."""
    found = []
    for number, case, latency, passed, samples in pieces:
        one = record(case, latency, timing={"clock": "wall", "samples": samples})
        if not passed:
            one = dataclasses.replace(one, status="error", reason=f"at {latency}", figures={})
        found.append(runs_of(number, one))
    return found


@settings(max_examples=12, deadline=None)
@given(st.lists(PIECE, max_size=8), st.lists(PIECE, max_size=8))
def test_merging_is_the_same_in_any_order_and_as_often_as_one_likes(
    tmp_path_factory: pytest.TempPathFactory, here: list, there: list
) -> None:
    top = tmp_path_factory.mktemp("merge")
    one, other = filled(top / "a", *made(here)), filled(top / "b", *made(there))
    results = []
    for name, sources in (("ab", (one, other)), ("ba", (other, one, one)), ("abab", (one, other, one, other))):
        with History(top / name) as store:
            for source in sources:
                with History(source, create=False) as read:
                    list(store.merge(read))
            results.append(content(store))
            points = store.points()
            assert len(points.run) == sum(len(records) for records in results[-1].values())
    assert results[0] == results[1] == results[2]
    keys = {(number, case) for number, case, *_ in [*here, *there]}
    assert sum(len(records) for records in results[0].values()) == len(keys)
    best = {(n, c) for n, c, _, passed, _ in [*here, *there] if passed}
    found = [r.status for records in results[0].values() for r in records]
    assert found.count("passed") == len(best)


def test_adding_is_idempotent_and_merges_other_histories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path / "runs", 6, 3)
    other = filled(tmp_path / "other.sqlite", runs_of(50, record(0, 1.0)))
    words = [str(tmp_path / "runs"), str(other), "--history", str(tmp_path / "h.sqlite")]
    assert history.main(words) == 0
    assert "7 runs; 7 new, 0 grown, 0 known already" in capsys.readouterr().out
    assert history.main([*words[2:], *words[:2], words[-1]]) == 0
    assert "7 runs; 0 new, 0 grown, 7 known already" in capsys.readouterr().out


def test_two_processes_add_at_the_same_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(20):
            head = dataclasses.replace(header(number), run=f"{name}-{number}")
            write(tmp_path / name / head.run, head, [record(0, 1.0)])
    line = [sys.executable, "-m", "harness.history", "--history", str(tmp_path / "h.sqlite")]
    busy = [subprocess.Popen([*line, str(tmp_path / name)], cwd=ROOT) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in busy] == [0, 0]
    with History(tmp_path / "h.sqlite") as store:
        assert len(store.headers()) == 40


def test_an_interrupted_addition_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with History(filled(tmp_path / "h.sqlite", runs_of(0, record(0, 1.0)))) as store:
        before = content(store)

        def stop(self: History, digest: str) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(History, "_source", stop)
            with pytest.raises(KeyboardInterrupt):
                store.add(runs_of(0, record(1, 1.0)))
        assert content(store) == before
        assert store.add(runs_of(0, record(1, 1.0))) == "grown"


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE mine (a)")


def newer(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA user_version = 7")


def cut(path: Path) -> None:
    filled(path, *(runs_of(n, *(record(case, 1.0) for case in range(40))) for n in range(8)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def overwritten(path: Path) -> None:
    filled(path, *(runs_of(n, *(record(case, 1.0) for case in range(40))) for n in range(8)))
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"x" * 8192
    path.write_bytes(data)


BAD = {
    "foreign": (foreign, "a database of another program"),
    "newer": (newer, "has schema 7, newer than 1"),
    "cut": (cut, "is damaged or no history"),
    "overwritten": (overwritten, "is damaged or no history"),
    "text": (lambda path: path.write_text("a,b\n" * 1000), "is damaged or no history"),
    "folder": (lambda path: path.mkdir(), "cannot be opened"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_store_is_told_in_a_sentence(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, words = BAD[what]
    path = tmp_path / "h.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    write(tmp_path / "run", header(99), [record(0, 1.0)])
    code = history.main([str(tmp_path / "run"), "--history", str(path)])
    shown = capsys.readouterr()
    assert code == 6 and words in shown.err and "Traceback" not in shown.err and len(shown.err) < 400
    assert not before or path.read_bytes() == before


def test_a_missing_store_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="there is no history"):
        History(tmp_path / "h.sqlite", create=False)
    assert not list(tmp_path.iterdir())


def test_damaged_runs_cost_themselves_and_the_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, torn, dead = (write(tmp_path / "runs" / name, header(n), [record(0, 1.0), record(1, 2.0)])
                        for n, name in enumerate(("good", "torn", "dead")))  # fmt: skip
    text = (torn / "run.jsonl").read_text()
    (torn / "run.jsonl").write_text(text[:-30])
    (dead / "run.jsonl").write_text("{")
    assert history.main([str(tmp_path / "runs"), "--history", str(tmp_path / "h.sqlite")]) == 6
    shown = capsys.readouterr().out
    assert "2 runs; 2 new" in shown and "torn: run.jsonl line 3" in shown and "no readable header" in shown
    (torn / "run.jsonl").write_text(text)
    assert history.main([str(tmp_path / "runs"), "--history", str(tmp_path / "h.sqlite")]) == 6
    assert "0 new, 1 grown, 1 known" in capsys.readouterr().out


def test_nothing_to_add_and_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert history.main([str(tmp_path / "empty"), "--history", str(tmp_path / "h.sqlite")]) == 4
    assert history.main([str(tmp_path / "nix"), "--history", str(tmp_path / "h.sqlite")]) == 2
    assert "nix is not there" in capsys.readouterr().err


def test_headers_of_runs_before_methods_were_recorded_have_the_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", header(0), [record(0, 1.0)])
    lines = (folder / "run.jsonl").read_text().splitlines()
    head = json.loads(lines[0])
    del head["method"]
    (folder / "run.jsonl").write_text("\n".join([json.dumps(head), *lines[1:]]) + "\n")
    assert read_run(folder).header.method == "1"
