"""Cost models against counters: what is counted, which case is taken, and how a table grows."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from harness.options import Options
from harness.profiling import call, counters, models
from harness.profiling.counters import COUNTERS, choose, divided, table, totals
from harness.profiling.subject import Subject, Unprofiled, UntimedContest

from ..conftest import ROOT

KNOWN = {name.split(".")[0] for alternatives in COUNTERS.values() for names in alternatives for name in names}


def test_the_first_alternative_that_a_gpu_has_is_taken():
    assert choose(KNOWN) == choose(set()) == {column: names[0] for column, names in COUNTERS.items()}
    older = KNOWN - {"sm__inst_executed_pipe_tensor", "sm__ops_path_tensor_src_fp8_dst_fp32"}
    found = choose(older)
    assert found["tensor_instructions"] == COUNTERS["tensor_instructions"][1]
    assert found["tensor_flops_8"] == COUNTERS["tensor_flops_8"][1]
    assert "dram_read_bytes" not in choose(KNOWN - {"dram__bytes_read"})


def test_a_column_is_the_sum_of_its_counters_or_nothing():
    names = COUNTERS["tensor_instructions"][1]
    text = "\n".join(
        ",".join(f'"{cell}"' for cell in line)
        for line in (["Kernel Name", *names], ["", "inst", "inst"], ["a", "1,000", "20"], ["b", "n/a", "5"])
    )
    rows = table(text, {"tensor_instructions": names})
    assert [row["tensor_instructions"] for row in rows] == [1020, None]


def test_calls_are_told_apart_by_their_marks():
    rows = [{"name": name} for name in ("stray", "spin_kernel", "a", "b", "at::spin_kernel(long)", "spin_kernel", "c")]
    assert [[row["name"] for row in part] for part in divided(rows)] == [["a", "b"], [], ["c"]]
    assert list(divided([{"name": "stray"}])) == []


def test_totals_are_of_what_every_kernel_has():
    row = {"name": "a", **dict.fromkeys(COUNTERS, 3.0)}
    found = totals([row, {**row, "l2_bytes": None}], {"flops": 4.0, "bytes": 24.0})
    assert found["dram_over_model"] == 0.5 and found["tensor_flops_over_model"] == 3.0 and "l2_bytes" not in found
    assert "tensor_flops" not in totals([{**row, "tensor_flops_8": None}], None)


def test_contenders_are_set_up_one_by_one_without_a_clock(toy, monkeypatch):
    """The child of ncu, all but the marks, which need a GPU."""
    monkeypatch.setattr(call, "count", Subject.call)
    case = toy.cases[0]
    names = [contender.name for contender in case.contenders if contender.reason is None]
    found = list(call.called(toy, str(ROOT), [(case.id, name) for name in names], 60.0))
    assert [one["contender"] for one in found] == names
    assert all(one["model"]["bytes"] > 0 and one["source"]["digest"] for one in found if "reason" not in one)
    assert any("reason" not in one for one in found)
    assert len(list(call.called(toy, str(ROOT), [(case.id, name) for name in names], 0.0))) == 1


def test_no_clock_is_built_for_what_is_counted(toy, monkeypatch):
    monkeypatch.setattr("harness.entrant.WallClock", lambda *given: pytest.fail("a clock was built"))
    case = toy.cases[0]
    contest = UntimedContest(
        toy.registry, toy.workloads[case.id], [case.baseline[0]], "cpu", {}, str(ROOT), lambda index: None
    )
    ((_, subject),) = contest.subjects()
    assert isinstance(subject, Subject)


def test_flops_are_of_the_contender_that_needs_fewest_and_can_be_seen():
    def implementation(name, product):
        return SimpleNamespace(contender=name, technique="t", setup=lambda weights, shape: product)

    operation = SimpleNamespace(
        name="a.b", weights=lambda *given: None, inputs=lambda *given: torch.ones(4, 8), mutable=()
    )
    attend = torch.nn.functional.scaled_dot_product_attention
    members = [
        implementation("plain", lambda x: x @ x.T),
        implementation("twice", lambda x: x @ x.T @ x),
        implementation("masked", lambda x: attend(x[None, None], x[None, None], x[None, None], is_causal=True)),
        implementation("broken", lambda x: x @ x),
    ]
    assert dict(models.counted(operation, members, None)) == {"plain": 2 * 4 * 4 * 8, "twice": 2 * 2 * 4 * 4 * 8}


def test_our_kernels_are_counted_beyond_the_cache():
    def case(name, needs, size):
        operation = SimpleNamespace(
            trial=None, cost=lambda shape, technique: SimpleNamespace(read_bytes=shape, write_bytes=0)
        )
        found.registry.operations["a.b"] = operation
        found.registry.implementations.setdefault("a.b", {})["t/ours"] = SimpleNamespace(needs=needs)
        found.workloads[name] = SimpleNamespace(shape=size)
        contender = SimpleNamespace(name="t/ours", technique="t", reason=None)
        found.cases.append(SimpleNamespace(id=name, operation="a.b", contenders=[contender]))

    found = SimpleNamespace(cases=[], workloads={}, registry=SimpleNamespace(operations={}, implementations={}))
    for name, size in (("small", 1e6), ("large", 9e9), ("fits", 3e8)):
        case(name, ("cuda", "triton"), size)
    assert models.kernels(found) == [("fits", "t/ours")]
    found.cases = [one for one in found.cases if one.id == "small"]
    assert models.kernels(found) == [("small", "t/ours")]
    found.registry.implementations["a.b"]["t/ours"].needs = ("cuda",)
    assert models.kernels(found) == []


ROWS = [{"name": "kernel", **dict.fromkeys(COUNTERS, 10.0)}]


def test_what_was_not_reached_has_a_reason(monkeypatch):
    def take(options, calls, report, seconds, begun):
        assert begun < seconds
        if calls[0][0].startswith("b."):
            raise Unprofiled("error", "no permission")
        yield {"case": "a.x", "contender": "t/one", "model": {"flops": 20.0, "bytes": 40.0}, "source": {}, "rows": ROWS}

    monkeypatch.setattr(models, "take", take)
    rows = list(models.traffic(Options("."), [("a.x", "t/one"), ("a.y", "t/two"), ("b.z", "t/three")], 100.0))
    assert rows[0]["dram_over_model"] == 0.5 and rows[0]["kernels"] == 1 and "rows" not in rows[0]
    assert "no time left" in rows[1]["reason"] and rows[2]["reason"] == "no permission"


def test_a_table_grows_and_a_failure_replaces_no_figure(tmp_path):
    page = "# Ours\n\n<!-- traffic -->\nnothing yet\n<!-- end traffic -->\nwhat it means\n"
    (tmp_path / "models.md").write_text(page)
    where = {"machine": "a GPU", "torch": "2", "date": "2026-01-01"}
    good = {"case": "a.x", "contender": "t/one", "kernels": 2, **totals(ROWS, {"flops": 20.0, "bytes": 40.0})}
    bad = {"case": "a.x", "contender": "t/one", "status": "oom", "reason": "no memory"}
    models.save(tmp_path, {"traffic": [good]}, where)
    models.save(tmp_path, {"traffic": [bad, {**bad, "case": "a.y"}]}, where)
    text = (tmp_path / "models.md").read_text()
    assert text.startswith("# Ours") and text.endswith("what it means\n") and "nothing yet" not in text
    assert "| a.x | t/one | 40.0 B | 10.0 B | 10.0 B | 0.500 |" in text and "| a.y | t/one | no memory |" in text
    models.save(tmp_path, {"traffic": [bad]}, {**where, "machine": "another GPU"})
    kept = json.loads((tmp_path / "models.json").read_text())["traffic"]
    assert [row["status"] for row in kept["rows"]] == ["oom"]


def test_counting_bytes_needs_a_gpu_and_says_so(capsys):
    assert models.main(["--only", "traffic", "--device", "cpu"]) == 2
    assert "this is a CPU" in capsys.readouterr().err
    assert counters.unavailable("cpu") is not None
