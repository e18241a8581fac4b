"""`python -m harness.compare` as a person uses it: what A and B may be, what is printed, every way to be refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import compare
from harness.lookup import Finder
from harness.record import read_run
from harness.store import History
from tests.harness.past import header, record, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout of two commits to look for runs in."""
    monkeypatch.chdir(tmp_path)
    for words in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "one"),
                  ("commit", "-q", "--allow-empty", "-m", "two")):  # fmt: skip
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)
    return tmp_path


def commit_of(revision: str) -> str:
    return subprocess.run(["git", "rev-parse", revision], capture_output=True, text=True, check=True).stdout.strip()


def made(folder: Path, number: int = 0, times: tuple[float, ...] = (1e6, 2e6), machine: int = 0, commit: str = "",
         digest: str = "a" * 12) -> Path:  # fmt: skip
    """A run's folder; eight contenders more are the same in every run."""
    head = header(number, machine)
    if commit:
        head = dataclasses.replace(head, machine={**head.machine, "git": {"commit": commit[:10], "dirty": False}})
    records = [record(case, time, digest) for case, time in enumerate(times)]
    return write(folder, head, [*records, *(record(1000 + case, 3e6) for case in range(8))])


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status, and everything printed."""
    code = compare.main(list(words))
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return code, shown.out + shown.err


def test_machine_differences_come_first_and_the_code_last(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(place / "a"), made(place / "b", 1, machine=1)
    code, text = said(capsys, str(a), str(b))
    lines = text.splitlines()
    assert lines[0].startswith("A: run-00000") and lines[1].startswith("B: run-00001")
    assert lines[2] == "differs:" and "made-up machine 0" in lines[3] and "made-up machine 1" in lines[3]
    assert lines[-1].startswith(f"compare: exit code {code}: ")
    assert code == 0 and "10 incomparable" in text and "exact figures in both, 0 differ" in text


def test_slower_contenders_are_listed_with_ratio_interval_and_reason(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = made(place / "a"), made(place / "b", 1, (2e6, 2e6), digest="b" * 12)
    code, text = said(capsys, str(a), str(b))
    line = next(line for line in text.splitlines() if line.startswith("  attention.decode/made/n0000"))
    assert (
        code == 1 and "2.00×" in line and "[1.9" in line and "slower" in line and "all of the interval is above" in line
    )


def test_everything_is_there_as_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(place / "a"), made(place / "b", 1, (2e6, 2e6), digest="b" * 12)
    code = compare.main([str(a), str(b), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == found["code"] == 1 and found["counts"] == {"slower": 1, "same": 9}
    assert {one["verdict"] for one in found["pairs"]} == {"slower", "same"}
    assert found["pairs"][0]["latency_ns"] == [1e6, 2e6] and found["pairs"][0]["interval"][0] < 2


def test_a_folder_a_file_and_a_name_are_the_same_run(place: Path) -> None:
    made(place / "runs" / "one")
    finder = Finder(place)
    found = [finder.two(word, "one")[0] for word in ("runs/one", "runs/one/run.jsonl", "one", str(place / "runs/one"))]
    assert len({run.header.run for run in found}) == 1


def test_a_revision_is_its_newest_run_below_runs_recorded_or_in_the_history(place: Path) -> None:
    head, first = commit_of("HEAD"), commit_of("HEAD~1")
    made(place / "runs" / "old", 1, commit=head)
    made(place / "reports" / "recorded" / "new", 2, commit=head)
    kept = made(place / "elsewhere", 3, commit=first)
    with History(place / "history.sqlite") as store:
        store.add(read_run(kept))
    shutil.rmtree(kept)
    one, other = Finder(place, place / "history.sqlite").two("HEAD~1", "HEAD")
    assert (one.header.run, other.header.run) == ("run-00003-m0", "run-00002-m0")
    assert len(one.records) == 10 and not one.samples(one.records[0]).size


def test_a_revision_prefers_the_machine_of_the_other_run(place: Path) -> None:
    made(place / "runs" / "here", 1, machine=0, commit=commit_of("HEAD"))
    made(place / "runs" / "there", 2, machine=1, commit=commit_of("HEAD"))
    a = made(place / "a", 0, machine=0)
    assert Finder(place).two(str(a), "HEAD")[1].header.run == "run-00001-m0"


def test_a_commit_of_another_clone_is_found_by_its_name(place: Path) -> None:
    a = made(place / "runs" / "a", commit="feedbeefed")
    assert Finder(place).two("feedbeef", str(a))[0].header.run == "run-00000-m0"


def test_a_revision_without_a_run_says_how_to_make_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = made(place / "a")
    code, text = said(capsys, str(a), "HEAD")
    assert code == 2 and "no run of HEAD" in text and "git worktree add" in text and "bench" in text


REFUSED = {
    "nothing": (lambda p: "nothing-here", 2, "no run, no record file and no git revision"),
    "an option in disguise": (lambda p: "--output=x", 2, ""),
    "an empty folder": (lambda p: _folder(p), 2, "no run.jsonl"),
    "a cut-off header": (lambda p: _file(p, b'{"schema":1,"type":"run","ru'), 6, "no readable header"),
    "a later schema": (lambda p: _file(p, b'{"schema":99,"type":"run"}\n'), 6, "schema is not 1"),
    "binary": (lambda p: _file(p, bytes(range(256)) * 40), 6, "no readable header"),
    "pytest-benchmark's JSON": (lambda p: _file(p, b'{\n "machine_info": {},\n "benchmarks": []}'), 6, "make import"),
    "a header alone": (lambda p: str(write(p / "bare", header(5), [])), 6, "no records"),
}


def _folder(place: Path) -> str:
    (place / "empty").mkdir()
    return str(place / "empty")


def _file(place: Path, content: bytes) -> str:
    path = place / "odd.jsonl"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_run_is_refused_in_a_sentence(place: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    word, status, words = REFUSED[what]
    a = made(place / "a")
    if what == "an option in disguise":
        with pytest.raises(SystemExit) as ended:
            compare.main([str(a), word(place)])
        assert ended.value.code == 2 and not (place / "x").exists()
        return
    code, text = said(capsys, str(a), word(place))
    assert code == status and words in text and len(text) < 800


@pytest.mark.parametrize("edit", ["truncated", "text for a number", "infinite", "a list for an object"])
def test_a_damaged_record_costs_itself_and_the_status_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], edit: str
) -> None:
    a, b = made(place / "a"), made(place / "b", 1)
    path = b / "run.jsonl"
    text = path.read_text()
    changed = {
        "truncated": text[:-40],
        "text for a number": text.replace('"low":995000.0', '"low":"much"'),
        "infinite": text.replace('"value":1000000.0', '"value":Infinity'),
        "a list for an object": text.replace('"shape":{"n":0}', '"shape":[0]'),
    }[edit]
    assert changed != text
    path.write_text(changed)
    code, shown = said(capsys, str(a), str(b))
    assert code == 6 and "problem: B, run-00001-m0: run.jsonl line" in shown and "9 same" in shown


def test_a_damaged_history_is_told_where_a_revision_needs_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = made(place / "a")
    (place / "history.sqlite").write_bytes(b"no database" * 200)
    code, text = said(capsys, str(a), "HEAD", "--history", "history.sqlite")
    assert code == 6 and "is damaged or no history" in text


@pytest.mark.parametrize("word", ["-1", "many", "nan", "101"])
def test_a_tolerance_is_a_share(place: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(["a", "b", f"--tolerance={word}"])
    assert "per cent" in capsys.readouterr().err


def test_a_tolerance_widens_what_is_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = made(place / "a"), made(place / "b", 1, (1.5e6, 2e6), digest="b" * 12)
    assert said(capsys, str(a), str(b))[0] == 1
    assert said(capsys, str(a), str(b), "--tolerance", "60")[0] == 0


def test_a_closed_pipe_is_no_traceback(place: Path) -> None:
    made(place / "a", times=(1e6,) * 400)
    words = f"{sys.executable} -m harness.compare a a --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", f"PYTHONPATH={ROOT} {words}"], capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout == "{0\n"


def test_comparing_needs_no_torch() -> None:
    modules = ", ".join(f"harness.{name}" for name in ("compare", "history", "interchange", "timeline"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
