"""Records: no figures without a pass, nothing undeclared, damaged lines named and the rest used."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import keep as keep_module
from harness.keep import keep
from harness.metrics import COMMON
from harness.record import Figure, Header, Record, RunWriter, load_samples, read_run, read_runs, slug

IDENTITY = {
    "case": "toy.product/square/n64",
    "study": "toy",
    "operation": "toy.product",
    "model": "square",
    "sizes": "n64",
    "shape": {"size": 64},
    "technique": "plain",
    "implementation": "reference",
    "kind": "reference",
}


def record(**changes) -> Record:
    return Record(**{**IDENTITY, "status": "passed", "figures": {"latency": Figure(10.0, 9.0, 11.0)}, **changes})


def written(tmp_path, *records: Record):
    writer = RunWriter(tmp_path / "run")
    writer.header(Header("run", "2026-01-01", {"label": "here"}, {"read_bandwidth": 1.0}, {"device": "cpu"}))
    for one in records:
        writer.record(one, COMMON)
    return writer


@pytest.mark.parametrize("status", ["incorrect", "error", "oom", "timeout", "crashed", "unavailable"])
def test_a_result_that_did_not_pass_has_no_figures(status):
    with pytest.raises(ValueError, match="has no figures"):
        record(status=status, reason="because")


def test_a_failure_needs_a_reason_and_a_known_status():
    with pytest.raises(ValueError, match="without a reason"):
        record(status="error", figures={})
    with pytest.raises(ValueError, match="unknown status"):
        record(status="fine")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_are_finite(value):
    with pytest.raises(ValueError, match="latency"):
        record(figures={"latency": Figure(value)})


def test_undeclared_metrics_are_refused(tmp_path):
    writer = written(tmp_path)
    with pytest.raises(ValueError, match="undeclared metric speed"):
        writer.record(record(figures={"speed": Figure(1.0)}), COMMON)


def test_what_is_written_is_read_back(tmp_path):
    failed = record(implementation="other", status="oom", reason="too large", figures={})
    written(tmp_path, record(), failed)
    run = read_run(tmp_path / "run")
    assert run.records == (record(), failed)
    assert run.header.metrics == COMMON and run.header.device == "cpu"
    assert not run.problems


def test_a_later_record_replaces_an_earlier_one(tmp_path):
    newer = record(figures={"latency": Figure(5.0)})
    written(tmp_path, record(), newer)
    assert read_run(tmp_path / "run").records == (newer,)


def test_a_torn_last_line_is_named_and_the_next_record_is_whole(tmp_path):
    writer = written(tmp_path, record())
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[:-40])
    writer.record(record(implementation="other"), COMMON)
    run = read_run(tmp_path / "run")
    assert [r.implementation for r in run.records] == ["other"]
    assert len(run.problems) == 1 and "line 2" in run.problems[0] and "left out" in run.problems[0]


@given(cut=st.integers(min_value=0, max_value=900), junk=st.binary(max_size=30))
def test_no_damage_ends_in_a_traceback(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("damaged")
    writer = written(folder, record(), record(implementation="b"))
    data = writer.path.read_bytes()
    writer.path.write_bytes(data[:cut] + junk + data[cut + len(junk) :])
    runs, problems = read_runs([folder / "run"])
    assert len(runs) + len(problems) >= 1
    assert all(isinstance(one, Record) for run in runs for one in run.records)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"schema": 99, "type": "record"}', "schema"),
        ('{"schema": 1, "type": "poem"}', "poem"),
        ("[1, 2]", "not an object"),
        ("{", "not JSON"),
        ('{"schema": 1, "type": "record", "case": "x"}', "figures"),
    ],
)
def test_each_bad_line_says_what_is_wrong_with_it(tmp_path, line, words):
    writer = written(tmp_path, record())
    with writer.path.open("a") as file:
        file.write(line + "\n")
    run = read_run(tmp_path / "run")
    assert run.records == (record(),)
    assert words in run.problems[0] and "line 3" in run.problems[0]


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    runs, problems = read_runs([tmp_path])
    assert not runs and "no run.jsonl" in problems[0]


def test_samples_lie_beside_and_their_loss_is_not_fatal(tmp_path):
    writer = written(tmp_path)
    file = writer.sample_file(IDENTITY["case"])
    mine = record(samples={"file": file, "key": "plain/reference", "count": 3})
    writer.samples(mine.case, {"plain/reference": np.array([3.0, 1.0, 2.0])})
    assert load_samples(writer.folder, mine).tolist() == [3.0, 1.0, 2.0]
    (writer.folder / file).write_bytes(b"PK\x03\x04 torn")
    assert load_samples(writer.folder, mine).size == 0
    (writer.folder / file).unlink()
    assert load_samples(writer.folder, mine).size == 0


def test_lines_hold_plain_json(tmp_path):
    writer = written(tmp_path, record())
    for line in writer.path.read_text().splitlines():
        assert json.loads(line)["schema"] == 1
    assert dataclasses.asdict(record())["figures"]["latency"]["low"] == 9.0


@given(st.text(min_size=1, max_size=60))
def test_slugs_are_file_names(text):
    assert "/" not in slug(text) and "\0" not in slug(text)


def test_a_kept_run_is_thinned_and_replaces_the_last_one(tmp_path):
    writer = written(tmp_path)
    file = writer.sample_file(IDENTITY["case"])
    mine = record(samples={"file": file, "key": "plain/reference", "count": 1201})
    writer.samples(mine.case, {"plain/reference": np.arange(1201.0), "plain/reference:round": np.arange(1201.0)})
    writer.record(mine, COMMON)
    for _ in range(2):
        folder = keep(read_run(writer.folder), tmp_path / "recorded")
    kept = read_run(folder)
    assert [p.name for p in (tmp_path / "recorded").iterdir()] == ["toy-product-here"]
    assert kept.records == (mine,) and kept.records[0].samples["count"] == 1201
    assert 400 <= kept.samples(mine).size <= 500 and (np.diff(kept.samples(mine)) == 3).all()


def test_a_run_of_one_operation_does_not_take_the_place_of_its_studys(tmp_path):
    product, total = record(), record(operation="toy.sum", case="toy.sum/square/n64")
    alone = keep(read_run(written(tmp_path / "one", product).folder), tmp_path / "recorded")
    both = keep(read_run(written(tmp_path / "two", product, total).folder), tmp_path / "recorded")
    assert (alone.name, both.name) == ("toy-product-here", "toy-here")
    assert read_run(alone).records == (product,) and len(read_run(both).records) == 2


def test_a_large_run_keeps_fewer_samples_and_a_larger_one_leaves_the_last_in_place(tmp_path, monkeypatch):
    writer = written(tmp_path)
    mine = record(samples={"file": writer.sample_file(IDENTITY["case"]), "key": "plain/reference", "count": 1000})
    writer.samples(mine.case, {"plain/reference": np.random.default_rng(0).random(1000)})
    writer.record(mine, COMMON)
    run = read_run(writer.folder)
    monkeypatch.setattr(keep_module, "LIMIT_BYTES", writer.path.stat().st_size + 1600)
    folder = keep(run, tmp_path / "recorded")
    assert read_run(folder).samples(mine).size == 250
    monkeypatch.setattr(keep_module, "LIMIT_BYTES", 500)
    with pytest.raises(ValueError, match="too much to keep"):
        keep(run, tmp_path / "recorded")
    assert [p.name for p in (tmp_path / "recorded").iterdir()] == ["toy-product-here"]
    assert read_run(folder).samples(mine).size == 250


def test_what_is_not_known_is_not_written_and_reads_back_the_same(tmp_path):
    unknown = record(figures={"latency": Figure(10.0), "resident": Figure(0.0, 0.0, 1.0)}, layout=None, shape={})
    writer = written(tmp_path, unknown)
    assert "null" not in writer.path.read_text().splitlines()[-1]
    assert read_run(writer.folder).records == (unknown,)


@pytest.mark.parametrize("field", ["case", "technique", "timing", "source", "doc", "figures", "samples"])
def test_a_value_of_the_wrong_kind_costs_its_line(tmp_path, field):
    writer = written(tmp_path, record(), record(technique="other"))
    lines = writer.path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {field: 5})
    writer.path.write_text("\n".join(lines) + "\n")
    run = read_run(writer.folder)
    assert [one.technique for one in run.records] == ["other"]
    assert len(run.problems) == 1 and f"line 2: {field} is 5" in run.problems[0]
