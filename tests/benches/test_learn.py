"""`make learn`: records that survive a stop, requests that are refused with a reason, rewards of one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benches import learn, learn_plan
from benches.bench_learning import ascii_model
from benches.learn import Refused, Study, main, table
from benches.learn_plan import METRICS, PLANS, Plan
from harness.record import read_run
from impls.learning.learner import Learner
from impls.learning.shape import Recipe
from impls.learning.tasks import Task


def tiny_plan() -> Plan:
    """Seconds in all."""
    plan = learn_plan.cpu_plan()
    recipe = Recipe(6, questions=4, group=4, count=5, rate=3e-3, warm_up=2)
    task, model = Task("reversal", 3), ascii_model(32, 2, 8, 8)
    shape = replace(plan.shape, model=model, task=task, recipe=recipe, enough=0.02, stops=3, validation=20)
    return replace(plan, preset="tiny", shape=shape, arms=("normalised", "lambda-1"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PLANS, "tiny", tiny_plan)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def unheard(line: str) -> None:
    """Nobody listens."""


TIMED = {"seconds", "rollout_seconds", "reward_seconds", "update_seconds"}


def test_a_run_holds_a_record_an_arm_and_seed_with_figures_and_curves(tmp_path):
    study = Study.begin(replace(tiny_plan(), seeds=(0, 1)), tmp_path)
    study.run(unheard)
    run = read_run(study.folder)
    assert not run.problems and run.header.options["study"] == "learning"
    words = "ARMS=normalised,lambda-1 SEEDS=0,1 STEPS=6 START=zero TASK=reversal DIFFICULTY=3 DEVICE=cpu BUDGET=640"
    assert run.header.options["command"] == f"make learn {words}"
    assert [(r.contender, r.sizes) for r in run.records] == [
        (arm, f"reversal3-zero-s6-seed{seed}") for seed in (0, 1) for arm in ("grpo/normalised", "ppo/lambda-1")
    ]
    for record in run.records:
        assert record.status == "passed" and set(record.figures) == {*METRICS, "steps"} <= set(run.header.metrics)
        assert record.series["step"] == [0, 1, 3, 6]
        assert record.value("accuracy") == record.series["accuracy"][-1]
        assert record.value("start_accuracy") <= 0.3
        assert len(record.series["owned_critic"]) == 3
    assert not list((study.folder / "checkpoints").iterdir())
    assert len(table(run.records)) == 5


def test_a_stopped_run_goes_on_to_the_same_curves(tmp_path, monkeypatch):
    whole = {r.contender: r for r in Study.begin(tiny_plan(), tmp_path / "whole").run(unheard)}
    study = Study.begin(tiny_plan(), tmp_path / "stopped")
    advance = Learner.advance

    def stopping(learner):
        if learner.done == 4:
            raise KeyboardInterrupt
        return advance(learner)

    monkeypatch.setattr(Learner, "advance", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.run(unheard)
    monkeypatch.undo()
    monkeypatch.setitem(PLANS, "tiny", tiny_plan)
    assert main(["--resume", str(study.folder)]) == 0
    again = read_run(study.folder).records
    assert {r.contender for r in again} == set(whole)
    for record in again:
        for name, values in whole[record.contender].series.items():
            if name not in TIMED:
                assert record.series[name] == values, name


def test_time_that_is_up_leaves_records_and_a_run_to_finish(tmp_path, capsys):
    study = Study.begin(replace(tiny_plan(), budget=0.0), tmp_path)
    study.run(unheard)
    assert study.short and {r.value("steps") for r in read_run(study.folder).records} == {1.0}
    study.plan = tiny_plan()
    again = Study.again(study.folder)
    again.until = float("inf")
    again.run(unheard)
    assert {r.value("steps") for r in read_run(study.folder).records} == {6.0}


def test_a_reward_of_ones_own_that_fails_is_told_and_the_run_goes_on(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "calls = []\n\ndef reward(problem, response):\n    calls.append(1)\n"
        "    if len(calls) % 4 == 0:\n        raise KeyError(problem.prompt)\n    return float('[' in response)\n"
    )
    words = ["--preset", "tiny", "--arms", "normalised", "--reward", str(file), "--runs", str(tmp_path)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "responses got no reward; the first: problem" in told and "its reward raised KeyError" in told
    (record,) = read_run(next(tmp_path.glob("*-learning-learn-*"))).records
    assert record.status == "passed" and record.value("faults") > 0 and "KeyError" in record.doc


def test_a_reward_that_never_works_stops_with_what_was_reached_saved(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("def reward(problem, response):\n    return float('nan')\n")
    words = ["--preset", "tiny", "--arms", "normalised", "--reward", str(file), "--runs", str(tmp_path)]
    assert main(words) == 1
    assert "steps without any reward" in capsys.readouterr().out
    (record,) = read_run(next(tmp_path.glob("*-learning-learn-*"))).records
    assert record.status == "error" and "reward is nan" in record.reason and record.series["step"] == [0, 1, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "rest"], "ARMS has rest, expected some of normalised, plain"),
        (["--seeds", "a"], "SEEDS=a: expected whole numbers"),
        (["--steps", "0"], "STEPS=0: at least 1 is needed"),
        (["--difficulty", "99"], "difficulty of addition is 99, expected 1 to 9"),
        (["--reward", "nowhere.py"], "REWARD=nowhere.py: it gives no function"),
        (["--resume", "nothing"], "this is no run of make learn that can be finished"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(words, message, tmp_path, capsys):
    assert main([*words, "--runs", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_group_of_one_is_refused(tmp_path):
    plan = tiny_plan()
    shape = replace(plan.shape, recipe=replace(plan.shape.recipe, group=1))
    with pytest.raises(Refused, match="at least 2 are needed"):
        Study.begin(replace(plan, shape=shape), tmp_path).run(unheard)


def test_work_has_room_where_a_start_shows_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(learn.Study, "begin", lambda plan, runs: seen.append(plan) or Study(plan, tmp_path, None))
    asked = learn.parsed(["--start", "cold-start", "--task", "reversal", "--difficulty", "5"])
    learn.opened(asked)
    task = Task("reversal", 5)
    assert seen[0].shape.recipe.count == task.answer + task.work and seen[0].shape.start == "cold-start"
