"""Runs to and from other programs: pytest-benchmark's own tools read ours, its files become runs the report shows."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats, normalize_stats

from harness import interchange
from harness.benchmark_json import IMPORTED, _stats, import_file
from harness.metrics import COMMON
from harness.pairing import pair
from harness.record import RunWriter, read_run
from reports import website
from tests.harness.past import header, record
from tests.reports import made
from tests.reports.reading import read_page

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "reports" / "recorded" / "attention-nvidia-h200"


def key(one):
    return one.case, one.contender


def exported(tmp_path: Path, run: Path, kind: str = "pytest-benchmark") -> Path:
    out = tmp_path / f"0001_{kind}"
    assert interchange.main(["export", str(run), "--format", kind, "--out", str(out)]) == 0
    return out


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = read_run(made.cpu_run(tmp_path / "run"))
    back = read_run(import_file(exported(tmp_path, run.folder), tmp_path / "runs"))
    assert back.header == run.header
    assert sorted(back.records, key=key) == sorted(run.records, key=key)
    some = [r for r in run.records if r.samples][::5]
    for one in some:
        assert np.allclose(back.samples(one), run.samples(one), rtol=1e-6) and len(back.samples(one)) > 1
        assert (back.rounds(one) == run.rounds(one)).all()
    assert {r.status for r in back.records} > {"passed"} and pair(run, back).code == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=40))
def test_statistics_are_pytest_benchmarks(seconds: list[float]) -> None:
    theirs = Stats()
    for value in seconds:
        theirs.update(value)
    ours = _stats(np.asarray(seconds))
    for name, value in theirs.as_dict().items():
        if name not in ("outliers", "stddev_outliers", "iqr_outliers", "ld15iqr", "hd15iqr"):
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-15), name
        else:
            assert name in ours
    normalize_stats(dict(ours))


def test_pytest_benchmark_compares_two_exported_runs(tmp_path: Path) -> None:
    folders = [made.cpu_run(tmp_path / name) for name in ("a", "b")]
    for number, folder in enumerate(folders, 1):
        path = tmp_path / f"000{number}_run.json"
        assert interchange.main(["export", str(folder), "--out", str(path)]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", "0001_run.json", "0002_run.json", "--group-by", "group"],
        capture_output=True, text=True, cwd=tmp_path, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "benchmark 'attention.decode/v3/b1-s512': " in done.stdout
    assert "Failed" not in done.stderr and done.stdout.count("mla/absorbed[attention.decode/v3/b1-s512]") == 2


SUITE = """
import pytest

class TestSums:
    @pytest.mark.parametrize("n", [10, 1000])
    def test_loop(self, benchmark, n):
        benchmark(lambda: [i for i in range(n)])

@pytest.mark.benchmark(group="sums")
@pytest.mark.parametrize("n", [10, 1000])
def test_builtin(benchmark, n):
    benchmark(sum, range(n))

@pytest.mark.benchmark(group="sums")
@pytest.mark.parametrize("n", [10, 1000])
def test_other(benchmark, n):
    benchmark(max, range(n))
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pytest-benchmark writes of another suite, with its samples."""
    top = tmp_path_factory.mktemp("suite")
    (top / "test_sums.py").write_text(SUITE)
    words = ["-q", "-p", "no:cacheprovider", "--benchmark-json=theirs.json", "--benchmark-save-data",
             "--benchmark-max-time=0.02", "--benchmark-min-rounds=5", "--benchmark-warmup=off"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=top, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return top / "theirs.json"


def test_another_suites_benchmarks_become_cases_with_contenders(foreign: Path, tmp_path: Path) -> None:
    run = read_run(import_file(foreign, tmp_path / "runs"))
    theirs = json.loads(foreign.read_text())
    assert len(run.records) == len(theirs["benchmarks"]) == 6 and not run.problems
    cases = {}
    for one in run.records:
        cases.setdefault(one.case, set()).add(one.contender)
        assert one.doc == IMPORTED and one.verification == {}
    assert cases["imported.test_sums/sums/10"] == {"test_builtin/imported", "test_other/imported"}
    assert cases["imported.test_sums/all/1000"] == {"TestSums-test_loop/imported"}
    for item in theirs["benchmarks"]:
        found = [r for r in run.records if r.value("latency") == pytest.approx(item["stats"]["median"] * 1e9, rel=1e-6)]
        assert found, item["fullname"]
    assert run.header.method == "pytest-benchmark 5"


def test_the_report_shows_an_imported_run(foreign: Path, tmp_path: Path) -> None:
    assert interchange.main(["import", str(foreign), "--runs", str(tmp_path / "runs")]) == 0
    found = website.find(tmp_path / "runs", tmp_path / "none")
    pages = website.build(found, tmp_path / "site", tmp_path)
    text = "".join(read_page(page) for page in pages)
    assert not found.problems and "test_builtin/imported" in text and IMPORTED in text


def test_imported_and_own_times_are_never_compared(foreign: Path, tmp_path: Path) -> None:
    theirs = read_run(import_file(foreign, tmp_path / "runs"))
    ours = dataclasses.replace(theirs, header=dataclasses.replace(theirs.header, method="1"))
    assert "by method" in str(pair(theirs, ours).refused) and pair(theirs, theirs).refused is None


def test_files_without_samples_have_a_median_and_no_interval(foreign: Path, tmp_path: Path) -> None:
    data = json.loads(foreign.read_text())
    for item in data["benchmarks"]:
        item["stats"].pop("data", None)
    path = tmp_path / "thin.json"
    path.write_text(json.dumps(data))
    run = read_run(import_file(path, tmp_path / "runs"))
    assert all(r.samples is None and r.figures["latency"].low is None for r in run.records)


def bare(**changes: object) -> dict:
    return {"fullname": "t.py::test_a", "name": "test_a", "stats": {"median": 1e-6, "rounds": 1}, **changes}


DAMAGED = {
    "not JSON": ("{", "not JSON, or cut off"),
    "a list": ("[]", "no list of benchmarks"),
    "something else": ('{"results": []}', "no list of benchmarks"),
    "nothing in it": ('{"benchmarks": []}', "has no benchmarks"),
    "no statistics": (json.dumps({"benchmarks": [{"fullname": "a"}]}), "is damaged: KeyError"),
    "words for samples": (json.dumps({"benchmarks": [bare(stats={"data": ["x"]})]}), "is damaged"),
    "no time at all": (json.dumps({"benchmarks": [bare(stats={"median": 0})]}), "median of 0.0 ns"),
    "endless": ('{"benchmarks": [{"fullname": "a", "stats": {"data": [Infinity]}}]}', "not a list of numbers"),
    "twice the same": (json.dumps({"benchmarks": [bare(), bare()]}), "twice"),
    "a benchmark that is text": ('{"benchmarks": ["a"]}', "is damaged"),
    "an edited record of ours": (
        json.dumps({"benchmarks": [bare(extra_info={"whalebench": {"record": {"case": 3}}})]}), "is damaged"),
    "an edited header of ours": (
        json.dumps({"benchmarks": [bare()], "whalebench": {"header": {"run": 3}}}), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_in_a_sentence_and_leaves_nothing(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = DAMAGED[what]
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert interchange.main(["import", str(path), "--runs", str(tmp_path / "runs")]) == 6
    shown = capsys.readouterr().err
    assert words in shown and "Traceback" not in shown and len(shown) < 500
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_nothing_is_imported_over_another_run(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", str(foreign), "--runs", str(tmp_path / "runs")]
    assert interchange.main(words) == 0 and interchange.main(words) == 6
    assert "is there already" in capsys.readouterr().err
    assert interchange.main(["import", str(tmp_path / "nix.json")]) == 2


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(reason=WORDS, doc=WORDS, values=st.dictionaries(st.sampled_from(["peak", "setup", "error"]), st.floats(0, 1e12)))
def test_csv_has_every_figure_and_every_failure(
    tmp_path_factory: pytest.TempPathFactory, reason: str, doc: str, values: dict[str, float]
) -> None:
    from harness.record import Figure

    top = tmp_path_factory.mktemp("csv")
    writer = RunWriter(top / "run")
    writer.header(header(0))
    writer.record(record(0, 1.0, figures={name: Figure(value) for name, value in values.items()}, doc=doc), COMMON)
    writer.record(record(1, 1.0, status="error", reason=reason, figures={}), COMMON)
    path = exported(top, top / "run", "csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == max(1, len(values)) + 1
    assert {row["metric"]: float(row["value"]) for row in rows if row["metric"]} == pytest.approx(values, rel=1e-6)
    assert [row["reason"] for row in rows if row["status"] == "error"] == [reason]


def test_parquet_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "run.parquet"
    assert interchange.main(["export", str(RECORDED), "--format", "parquet", "--out", str(out)]) == 2
    assert "Parquet needs the package pyarrow" in capsys.readouterr().err and not out.exists()


def test_parquet_holds_what_csv_holds(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for form in ("parquet", "csv"):
        assert (
            interchange.main(["export", str(RECORDED), "--format", form, "--out", str(tmp_path / f"run.{form}")]) == 0
        )
    found = parquet.read_table(tmp_path / "run.parquet")
    rows = list(csv.DictReader((tmp_path / "run.csv").open(newline="", encoding="utf-8")))
    assert found.column_names == list(interchange.COLUMNS) and found.num_rows == len(rows) > 10_000
    for name in interchange.COLUMNS:
        column = found.column(name).to_pylist()
        if name in ("value", "low", "high"):
            assert column == [float(row[name]) if row[name] else None for row in rows]
        else:
            assert [value or "" for value in column] == [row[name] for row in rows]


def test_a_run_without_samples_has_no_benchmarks_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = RunWriter(tmp_path / "run")
    writer.header(header(0))
    writer.record(record(0, 1.0), COMMON)
    assert interchange.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "x.json")]) == 6
    assert "has no raw samples" in capsys.readouterr().err and not (tmp_path / "x.json").exists()
    assert interchange.main(["export", str(tmp_path / "nix")]) == 2
