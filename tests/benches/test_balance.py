"""The balance study: arms that start alike, records that survive a stop, requests that are refused with a reason."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

from benches import balance, router_loads
from benches.arms import METRICS, PLANS, cpu_plan, gpu_plan, short_plan
from benches.balance import Refused, Study, main, settle, table
from harness.record import read_run
from impls.ffn import recorded
from impls.ffn.balance_trial import ARMS
from impls.model.shape import parameters
from impls.model.training import Training


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path):
    """A folder to train on, quicker to read than the standard library."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"line {number} of a file\n" * 40)
    return str(folder)


@pytest.fixture
def plan(text):
    return replace(short_plan(), steps=6, stops=3, windows=8, data=text)


def unheard(line: str) -> None:
    """Nobody listens."""


def test_a_run_holds_a_record_an_arm_with_figures_and_curves(plan, tmp_path):
    study = Study.begin(plan, tmp_path)
    study.run(unheard)
    run = read_run(study.folder)
    assert not run.problems and run.header.options["study"] == "ffn" and run.header.device == "cpu"
    assert run.header.options["balance"]["digest"] == study.corpus.digest
    repeated = f"make balance STEPS=6 DEVICE=cpu ARMS=none,bias DATA='{plan.data}'"
    assert run.header.options["command"] == repeated
    assert [r.contender for r in run.records] == ["moe/none", "moe/bias"]
    for record in run.records:
        assert (record.case, record.status, record.kind) == ("ffn.balance/byte-moe-d64/s6", "passed", "reference")
        assert set(record.figures) == {*METRICS, "steps"} <= set(run.header.metrics)
        assert record.series["step"] == [1, 3, 6]
        assert len(record.series["load_layer_1"]) == 16
        assert sum(record.series["load_layer_1"]) == 8 * 64 * 4
        for name in ("train_loss", "validation_bits", "max_violation", "max_violation_global"):
            assert len(record.series[name]) == 3
            assert record.value(name) == record.series[name][-1]
        assert record.value("max_violation_first") == record.series["max_violation"][0]
        assert record.value("model_parameters") == parameters(plan.shape)
        assert record.value("xz_bits") == pytest.approx(study.corpus.xz_bits)
    assert not list((study.folder / "checkpoints").iterdir())


def test_all_arms_share_the_first_batch_and_part_after_it(plan, tmp_path):
    study = Study.begin(replace(plan, arms=tuple(ARMS)), tmp_path)
    study.run(unheard)
    records = read_run(study.folder).records
    assert {r.implementation for r in records} == set(ARMS)
    assert len({(r.series["train_loss"][0], r.series["max_violation"][0]) for r in records}) == 1
    assert len({r.series["validation_bits"][-1] for r in records}) == len(ARMS)


def test_the_bias_evens_out_what_is_left_alone_without(tmp_path):
    study = Study.begin(short_plan(), tmp_path)
    study.run(unheard)
    none, bias = (study.records[arm] for arm in ("none", "bias"))
    assert none.value("max_violation_first") == bias.value("max_violation_first")
    assert bias.value("max_violation") < 0.7 * none.value("max_violation")
    assert bias.value("load_variation") < 0.7 * none.value("load_variation")
    assert none.value("validation_bits") < 5.5 and bias.value("validation_bits") < 5.5


def test_a_stopped_run_keeps_finished_arms_and_goes_on_with_the_same_curves(plan, tmp_path, monkeypatch):
    whole = Study.begin(plan, tmp_path / "whole").run(unheard)
    study = Study.begin(plan, tmp_path / "stopped")
    evaluate = Training.evaluate

    def stopping(training, windows_BT):
        if training.done == 6 and training.balancing.bias_speed:
            raise KeyboardInterrupt
        return evaluate(training, windows_BT)

    monkeypatch.setattr(Training, "evaluate", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.run(unheard)
    monkeypatch.undo()
    assert [r.implementation for r in read_run(study.folder).records] == ["none"]
    assert main(["--resume", str(study.folder)]) == 0
    again = read_run(study.folder).records
    assert [r.implementation for r in again] == ["none", "bias"]
    for record in again:
        expected = {name: pytest.approx(list(values)) for name, values in whole[record.implementation].series.items()}
        assert record.series == expected


def test_time_that_is_up_leaves_records_that_say_so_and_a_run_to_finish(plan, tmp_path, capsys):
    study = Study.begin(plan, tmp_path)
    study.limit = 0.0
    study.run(unheard)
    assert {r.value("steps") for r in read_run(study.folder).records} == {1.0}
    assert main(["--resume", study.folder.name, "--runs", str(tmp_path)]) == 0
    run = read_run(study.folder)
    assert {r.value("steps") for r in run.records} == {6.0} and "goes on from step 1" in capsys.readouterr().out


def test_an_arm_that_fails_is_recorded_with_the_reason_and_the_others_go_on(plan, tmp_path, monkeypatch):
    advance = Training.advance

    def failing(training):
        if training.done == 2 and training.balancing.bias_speed:
            with torch.no_grad():
                training.model.mixtures[0].held.router.matrix_ED.fill_(torch.nan)
        return advance(training)

    monkeypatch.setattr(Training, "advance", failing)
    study = Study.begin(plan, tmp_path)
    study.run(unheard)
    none, bias = read_run(study.folder).records
    assert none.implementation == "none" and none.value("steps") == 6
    assert (bias.status, dict(bias.figures)) == ("error", {})
    assert "layer 1, step 2" in bias.reason
    assert any("ERROR: layer 1, step 2" in line for line in table(study.records.values()))


def test_a_budget_becomes_steps(plan, tmp_path, monkeypatch):
    def cost(plan, arm, data, windows, runs, threads):
        return (1.0 if arm == "bias" else 0.5) * threads, 0.5, 0.25

    monkeypatch.setattr(balance, "_cost", cost)

    def settled(**changes):
        return settle(replace(open_plan, **changes), balance.readied(plan), time.monotonic(), tmp_path)

    open_plan = replace(plan, steps=None, threads=2, budget=100.0, stops=5)
    assert settled().steps in (25, 26)  # 0.9 of 93 s less 1 for two checkpoints, 5 of stops, a step of both arms 3 s
    assert settled(budget=1.0).steps == balance.LEAST_STEPS
    torch.set_num_threads(2)
    assert settled(threads=None).threads == 1


def test_costs_are_timed_with_their_checkpoints_and_leave_nothing(plan, tmp_path, monkeypatch):
    saved = []
    save = balance.checkpoint.save
    monkeypatch.setattr(balance.checkpoint, "save", lambda path, state: (saved.append(path), save(path, state)))
    runs = tmp_path / "runs"
    found = settle(replace(plan, steps=None, budget=3.0), balance.readied(plan), time.monotonic(), runs)
    assert found.steps >= balance.LEAST_STEPS and len(saved) == 2 and not list(runs.iterdir())


def test_a_gpu_gets_ten_minutes_and_a_cpu_seven(text, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(Study, "begin", classmethod(lambda cls, plan, runs: begun.append(plan)))
    for words in (["--device", "cpu"], ["--device", "cuda"], ["--device", "cuda", "--budget", "60"]):
        balance.opened(balance.arguments([*words, "--data", text]))
    assert [(plan.device, plan.budget) for plan in begun] == [("cpu", 420.0), ("cuda", 620.0), ("cuda", 60.0)]


def test_loads_of_a_run_become_the_file_that_recorded_routing_reads(plan, tmp_path, capsys):
    study = Study.begin(plan, tmp_path / "runs")
    study.run(unheard)
    out = tmp_path / "loads.json"
    assert router_loads.main([str(study.folder), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["loads"] == {"layer_1": list(study.records["none"].series["load_layer_1"])}
    assert found["digest"] == recorded.digest_of(found) and found["digest"] in capsys.readouterr().out
    assert found["text"]["digest"] == study.corpus.digest and found["made by"].startswith("make balance STEPS=6 ")
    assert found["router"]["experts"] == 16
    only = Study.begin(replace(plan, arms=("bias",)), tmp_path / "others")
    only.run(unheard)
    short = Study.begin(plan, tmp_path / "short")
    short.limit = 0.0
    short.run(unheard)
    for folder, told in ((only.folder, "make balance ARMS=none"), (short.folder, "did not reach its last step")):
        assert router_loads.main([str(folder), "--out", str(tmp_path / "none.json")]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_requests_that_cannot_be_met_are_refused(plan, text, tmp_path, capsys):
    runs = ["--runs", str(tmp_path)]
    for words, told in (
        (["--arms", "none,magic"], "ARMS has magic"),
        (["--steps", "0"], "STEPS=0"),
        (["--data", str(tmp_path / "nothing")], "DATA="),
        (["--resume", "nothing"], "RESUME="),
    ):
        assert main([*words, *runs]) == 2
        assert told in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["--device", "cuda", *runs]) == 2 and "no GPU" in capsys.readouterr().err
        with pytest.raises(Refused, match="no GPU"):
            Study.begin(replace(plan, device="cuda"), tmp_path)
    (tmp_path / "file").touch()
    assert main(["--data", text, "--steps", "1", "--runs", str(tmp_path / "file")]) == 2
    assert "what was written before is kept" in capsys.readouterr().err
    study = Study.begin(plan, tmp_path)
    (tmp_path / "text" / "0.txt").write_text("changed")
    with pytest.raises(Refused, match="begin a new run"):
        Study.again(study.folder)


def test_plans_are_what_their_docstrings_say():
    cpu, gpu = cpu_plan().shape, gpu_plan().shape
    assert [round(parameters(cpu, active) / 1e5) for active in (False, True)] == [17, 8]
    assert [round(parameters(gpu, active) / 1e6) for active in (False, True)] == [98, 18]
    assert all(make().preset == name for name, make in PLANS.items())
