"""The ladder: sixteen models from one start, resumable to the same curves, and requests that cannot be met."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benches import ladder
from benches.ladder_plan import METRICS, cpu_plan, gpu_plan, tiny_plan
from harness.record import read_run
from impls.composed.combination import AXES, combinations
from impls.model.corpus import read_corpus
from impls.model.shape import parameters

ROWS = "".join(f"row {number} is {number * number % 97}\n" for number in range(9000))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text(ROWS)
    return str(path)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(tmp_path, data, *more: str) -> list[str]:
    return ["--preset", "tiny", "--device", "cpu", "--runs", str(tmp_path / "runs"), "--data", data, *more]


def only_run(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_combinations_are_all_and_differ_in_their_axes_alone():
    names = [one.name for one in combinations()]
    assert len(set(names)) == 16 and names[0] == "mha-dense-bf16-ntp" and names[-1] == "mla-moe-fp8-mtp"
    assert [one.settings for one in combinations()][5] == (False, True, False, True)
    for plan in (cpu_plan(), gpu_plan(), tiny_plan()):
        shapes = [one.of(plan.shape) for one in combinations()]
        assert len(set(shapes)) == 16
        base = {"technique": "mla", "feed": "moe", "linear": "bf16", "objective": "ntp"}
        assert {replace(shape, **base) for shape in shapes} == {replace(plan.shape, **base)}
        dense, mixed = (parameters(replace(plan.shape, feed=feed), active=True) for feed in ("dense", "moe"))
        router = (plan.shape.layers - plan.shape.leading) * 16 * plan.shape.hidden
        assert mixed - dense == router  # equal active parameters


def test_a_stopped_ladder_is_finished_with_the_same_curves(tmp_path, data, monkeypatch, capsys):
    """Four of the sixteen: records of a run that was stopped, and the curves of one that was not."""
    few = combinations()[::5]
    monkeypatch.setattr(ladder, "combinations", lambda: few)
    monkeypatch.setattr(ladder, "ROUNDS", 1)
    whole = tmp_path / "whole"
    assert ladder.main([*arguments(whole, data, "--steps", "4"), "--price", "3.6"]) == 0
    shown = capsys.readouterr().out
    assert "4 records" in shown and "kv_bytes: no effects are told: 12 of 16 combinations have no figure" in shown
    (bits,) = {r.value("xz_bits") for r in read_run(only_run(whole)).records}
    assert bits == pytest.approx(read_corpus(data).xz_bits) and f"validation part: {bits:.3f} bits/byte" in shown
    real, settled = ladder.fit, []

    def stopped(models, windows_BT, stops, folder, reached):
        def once(stop, left):
            settled.append(stop)
            raise KeyboardInterrupt

        return real(models, windows_BT, stops, folder, reached=once)

    monkeypatch.setattr(ladder, "fit", stopped)
    assert ladder.main(arguments(tmp_path, data, "--steps", "4")) == 130
    folder = only_run(tmp_path)
    assert f"continue with RESUME={folder.name}" in capsys.readouterr().err and settled == [1]
    assert read_run(folder).records == () and len(list((folder / "checkpoints").iterdir())) == 4
    monkeypatch.setattr(ladder, "fit", real)
    assert ladder.main(arguments(tmp_path, data, "--resume", folder.name)) == 0
    assert "mla-moe-fp8-mtp: goes on from step 1" in capsys.readouterr().out
    one, two = (read_run(only_run(where)) for where in (whole, tmp_path))
    assert [r.technique for r in two.records] == [one.name for one in few]
    for expected, found in zip(one.records, two.records, strict=True):
        assert found.series == expected.series and found.status == "passed"
        same = {"validation_bits", "kv_bytes", "model_parameters", "train_loss"}
        assert all(found.value(name) == expected.value(name) for name in same)
        assert ("acceptance" in found.figures) == found.technique.endswith("mtp")
        assert set(METRICS) - set(expected.figures) <= {"acceptance"}
        cost = 3.6 / 3600 * 1e6 / expected.value("generate_rate_8")
        assert expected.value("million_tokens") == pytest.approx(cost) and "million_tokens" not in found.figures
    assert len({tuple(r.series["validation_bits"]) for r in one.records}) == 4
    assert not list((folder / "checkpoints").iterdir())
    assert ladder.main(arguments(tmp_path, data, "--resume", folder.name)) == 2
    assert "all 4 combinations are recorded" in capsys.readouterr().err


def test_a_ladder_whose_time_is_up_leaves_nothing_out_and_is_finished(tmp_path, data, monkeypatch, capsys):
    """All are recorded at the same step, and the rest of the steps gives the curves of a ladder that was not short."""
    few = combinations()[::5]
    monkeypatch.setattr(ladder, "combinations", lambda: few)
    monkeypatch.setattr(ladder, "ROUNDS", 1)
    monkeypatch.setattr(ladder, "LEAST_STEPS", 4)
    monkeypatch.setattr(ladder, "OVERRUN", -1e6)
    assert ladder.main(arguments(tmp_path, data, "--budget", "0.01")) == 0
    folder = only_run(tmp_path)
    assert f"the time was up before the last step; finish with RESUME={folder.name}" in capsys.readouterr().out
    run = read_run(folder)
    assert [r.technique for r in run.records] == [one.name for one in few]
    assert {r.timing["steps"] for r in run.records} == {1} and all(r.status == "passed" for r in run.records)
    kept = run.header.options["ladder"]
    assert kept["steps"] == 4 and kept["threads"] == 1 and run.records[0].timing["threads"] == 1
    assert ladder.main(arguments(tmp_path, data, "--resume", folder.name)) == 0
    assert "the time was up" not in capsys.readouterr().out and not list((folder / "checkpoints").iterdir())
    whole = tmp_path / "whole"
    assert ladder.main(arguments(whole, data, "--steps", "4")) == 0
    for expected, found in zip(read_run(only_run(whole)).records, read_run(folder).records, strict=True):
        assert found.series == expected.series and found.timing["steps"] == 4


def test_steps_follow_from_the_budget_and_threads_from_timing(data, monkeypatch):
    few = combinations()[::15]
    monkeypatch.setattr(ladder, "combinations", lambda: few)
    corpus, costs = ladder.corpus_of(tiny_plan(), data), {1: 0.02, 3: 0.01}
    monkeypatch.setattr(ladder.torch, "get_num_threads", lambda: 3)
    real = ladder.stepped
    monkeypatch.setattr(ladder, "stepped", lambda plan, one, c, threads: (real(plan, one, c, 1)[0], costs[threads]))
    monkeypatch.setattr(ladder, "peak_of", lambda training, device: 0)
    begun = ladder.time.monotonic()
    for budget in (20.0, 40.0):
        plan, after = ladder.settled(replace(tiny_plan(), budget=budget), corpus, begun)
        spent = ladder.time.monotonic() - begun
        most = ladder.MARGIN * budget * 0.9 / 0.02
        assert plan.threads == 3 and most - (spent + 10) / 0.02 < plan.steps <= most and after > 0
    asked = replace(tiny_plan(), threads=2, steps=5)
    assert ladder.settled(asked, corpus, begun) == (asked, 0.0)
    assert ladder.settled(replace(tiny_plan(), steps=5), corpus, begun) == (replace(asked, threads=3), 0.0)
    assert ladder.settled(replace(tiny_plan(), budget=0.0), corpus, begun)[0].steps == ladder.LEAST_STEPS


def test_effects_are_told_by_choice_and_by_pair():
    values = {one.settings: 2.0 ** sum(one.settings) for one in combinations()}
    told = "\n".join(ladder.effect_table("step_time", values, ratio=True))
    assert told.count("2.00×") == 12 and told.count("1.00×") == 6 and "mla for mha" in told and "moe and fp8" in told
    assert "+2.000" in "\n".join(ladder.effect_table("bits", {s: 2.0 * s[1] for s in values}, ratio=False))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--steps", "0"], "STEPS=0: at least 1 is needed"),
        (["--price", "0"], "PRICE=0: more than 0"),
        (["--resume", "nothing"], "this is no ladder that can be finished"),
        (["--data", "/nowhere"], "DATA=/nowhere: "),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, data, more, said, capsys):
    assert ladder.main(arguments(tmp_path, data, *more)) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(ladder, "combinations", lambda: combinations()[:1])

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "fit", cut)
    assert ladder.main(arguments(tmp_path, data, "--steps", "3")) == 130
    folder = only_run(tmp_path)
    path = folder / "checkpoints" / "mha-dense-bf16-ntp.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"cut")
    assert ladder.main(arguments(tmp_path, data, "--resume", folder.name)) == 2
    assert "is no checkpoint: it ends within its header" in capsys.readouterr().err
    assert path.read_bytes() == b"cut"


def test_a_model_that_fails_costs_its_record_alone(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(ladder, "combinations", lambda: combinations()[:2])
    real = ladder.fit

    def failing(models, *more, **words):
        with torch.no_grad():
            models["mha-dense-bf16-mtp"].model.head_VD.fill_(torch.nan)
        return real(models, *more, **words)

    monkeypatch.setattr(ladder, "fit", failing)
    assert ladder.main(arguments(tmp_path, data, "--steps", "2")) == 1
    assert "mha-dense-bf16-mtp: ERROR: step 0: the training loss is nan" in capsys.readouterr().out
    assert [r.status for r in read_run(only_run(tmp_path)).records] == ["passed", "error"]
    assert list(AXES) == ["attention", "ffn", "linear", "objective"]
