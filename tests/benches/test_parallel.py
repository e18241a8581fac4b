"""`python -m benches.parallel` with small layers: what it records, and what a wrong, dying or hanging rank leaves."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benches import parallel, parallel_records, parallel_simulated
from benches.parallel_plan import PLACEMENTS, Plan, sized
from harness.record import Run, RunWriter, read_run
from impls.ffn import recorded

MODEL = {
    "model_type": "deepseek_v3",
    "hidden_size": 64,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
}
PROGRAM = """
import os, signal, sys, time
from benches import parallel_rank
from impls.ffn import expert_parallel

bad = os.environ["RANK"] == "1"
calls = 0
{body}
parallel_rank.main(sys.argv[1:])
"""


@pytest.fixture(autouse=True, scope="module")
def one_simulation():
    """The simulated part is the same in every run and tested on its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_simulated, "RANKS", (8,))
        yield


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(MODEL))
    return str(path)


@pytest.fixture
def measure(tmp_path, model):
    """Run with the ranks' program changed by `body`; returns the exit status and the run."""

    def run(*words: str, body: str = "", budget: float = 12) -> tuple[int, Run]:
        file = tmp_path / "program.py"
        file.write_text(PROGRAM.format(body=body))
        runs = tmp_path / "runs"
        common = ["--device", "cpu", "--tokens", "24", "--budget", str(budget), "--runs", str(runs), "--model", model]
        status = parallel.main([*common, *words], [str(file)] if body else parallel.PROGRAM)
        found = read_run(next(runs.iterdir()))
        assert not found.problems
        return status, found

    return run


def of_case(run: Run, sizes: str) -> dict:
    return {r.implementation: r for r in run.records if r.model == "small" and r.sizes == sizes}


def test_two_ranks_are_verified_timed_and_recorded(measure, capsys):
    status, run = measure("--ranks", "2")
    assert status == 0
    assert run.header.options["ranks"] == 2 and run.header.device == "cpu"
    for sizes in ("r2-t24", "r2-t24-zipf1"):
        found = of_case(run, sizes)
        assert tuple(found) == PLACEMENTS
        for name, record in found.items():
            assert (record.status, record.kind, record.technique) == ("passed", "optimized", "moe")
            assert record.case == f"ffn.parallel/small/{sizes}" and record.baseline == "moe/contiguous"
            assert 0 < record.verification["error"] <= record.verification["limit"]
            assert {len(record.series[f"{p}_ns"]) for p in ("compute", "dispatch", "combine", "waiting", "local")} == {
                2
            }
            assert sum(record.series["tokens"]) == 2 * 24 * 2 == 2 * sum(record.series["expert_load"])
            loads = np.array(record.series["expert_load"])
            assert len(loads) == 8 and record.value("max_violation") == pytest.approx(loads.max() / 6 - 1)
            assert record.value("load_variation") == pytest.approx(loads.std() / 6)
            assert record.value("token_max_over_mean") == pytest.approx(max(record.series["tokens"]) / 48)
            assert record.value("replicas") == (8 if name == "contiguous" else 10)
            assert record.value("rank_max_over_mean") >= 1 and 0 <= record.value("waiting_share") <= 1
            assert len(record.verification["seeds"]) == 2
            samples = run.samples(record)
            assert len(samples) == record.timing["rounds"] == len(set(run.rounds(record))) >= 5
            assert record.value("latency") == pytest.approx(np.median(samples), rel=1e-5)
            assert record.value("throughput") == pytest.approx(48e9 / record.value("latency"), rel=1e-5)
            phases = sum(max(record.series[f"{p}_ns"]) for p in ("compute", "dispatch", "combine", "waiting", "local"))
            assert record.value("latency") < 10 * phases
        assert found["contiguous"].value("ratio") == 1
        even, uneven = found["eplb-global"].value("token_max_over_mean"), found["contiguous"]
        assert even <= uneven.value("token_max_over_mean")
    printed = capsys.readouterr().out
    assert printed.count("small/r2-t24 ") == 3 and "simulated" in printed and str(run.folder) in printed


WRONG = """
combine = expert_parallel.combine
before = {}
def wrong(out, arrived, rows_ND):
    result = combine(out, arrived, rows_ND)
    copies = out.counts_RS.numel()
    before[copies] = before.get(copies, 0) + 1
    if bad and copies == 10 and before[copies] > 3:
        result[0, 0] += 1.0
    return result
expert_parallel.combine = wrong
"""


def test_a_wrong_result_in_one_rank_has_no_figures_wherever_it_is_noticed(measure, capsys):
    """Both EPLB placements have 10 copies: the first three of their calls are right, so timing takes place."""
    status, run = measure("--ranks", "2", "--skew", "1", body=WRONG)
    assert status == 1
    found = of_case(run, "r2-t24-zipf1")
    assert found["contiguous"].status == "passed" and found["contiguous"].value("latency")
    for name in ("eplb-hierarchical", "eplb-global"):
        record = found[name]
        assert record.status == "incorrect" and not record.figures and record.samples is None
        assert record.reason.startswith("rank 1, after timing: ")
    assert "INCORRECT" in capsys.readouterr().out


def test_a_baseline_that_is_wrong_from_the_start_is_not_timed(measure):
    body = WRONG.replace("copies == 10 and before[copies] > 3", "copies == 8")
    status, run = measure("--ranks", "2", "--skew", "0", body=body)
    found = of_case(run, "r2-t24")
    assert status == 1
    assert found["contiguous"].status == "incorrect" and "rank 1, before timing: " in found["contiguous"].reason
    for name in ("eplb-hierarchical", "eplb-global"):
        assert found[name].value("latency") and "ratio" not in found[name].figures and found[name].baseline is None


LATE = """
trial = parallel_rank.Trial
def started(rank, plan, case, w, flush):
    if bad and case.shape.skew:
        {act}
    return trial(rank, plan, case, w, flush)
parallel_rank.Trial = started
"""


@pytest.mark.parametrize(
    ("act", "status", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "rank 1 was killed by SIGKILL"),
        ("raise RuntimeError('planted')", "error", "rank 1 raised RuntimeError: planted"),
        ("rank.alive('a trap'); time.sleep(600)", "timeout", "rank 1 showed no sign of life for 3 s in a trap"),
    ],
)
def test_a_rank_that_fails_later_costs_its_case_and_no_earlier_one(measure, capsys, act, status, words):
    begin = time.monotonic()
    code, run = measure("--ranks", "2", "--patience", "3", body=LATE.format(act=act), budget=10)
    assert code == 1 and time.monotonic() - begin < 45
    assert all(record.value("latency") for record in of_case(run, "r2-t24").values())
    lost = of_case(run, "r2-t24-zipf1")
    assert tuple(lost) == PLACEMENTS
    for record in lost.values():
        assert record.status == status and record.reason.startswith(words) and not record.figures
    assert words in capsys.readouterr().err


def test_figures_follow_from_what_the_ranks_reported(tmp_path, model):
    """Contiguous: rank 1 computes three times as long as rank 0, which waits. EPLB: both alike, in half the time."""
    small = sized(model, "cpu")
    plan = Plan(small.name, small.shape, 2, "cpu", False, 2, 24, (1.0,), 0.0)
    book, case = parallel_records.Book(plan), next(plan.cases())
    verdict = {"event": "verdict", "case": case.id, "when": "before", "seed": 1, "limit": 1e-6, "precision": "float64"}
    for name in PLACEMENTS:
        compute, waiting, total = (
            ((10, 30), (20, 0), (60, 70)) if name == "contiguous" else ((20, 20), (0, 0), (34, 35))
        )
        for member in (0, 1):
            book.add({**verdict, "contender": name, "member": member, "error": 1e-7 * (member + 1), "worst": 1e-6})
            for number in range(6 + (member == 0)):  # rank 1 did not report the last round: it does not count
                drift = 1.0 + number  # of the machine, which a ratio of paired rounds does not see
                ns = {"local": 1, "dispatch": 2, "combine": 3, "compute": compute[member], "waiting": waiting[member]}
                ns = {phase: value * drift for phase, value in {**ns, "total": total[member]}.items()}
                words = {"case": case.id, "contender": name, "round": number, "member": member}
                book.add({"event": "iteration", **words, "ns": ns, "tokens": 10 + 20 * member, "bytes": 7})
    barrier = {"event": "barrier", "case": case.id, "ns": 5.0}
    assert [book.add({**barrier, "ns": ns}) for ns in (5.0, 6.0)] == [None, None]
    assert [book.add({"event": "case", "case": case.id}) for _ in range(2)] == [None, case.id]
    found = {r.implementation: r for r in book.records(case, RunWriter(tmp_path), None)}
    uneven, even = found["contiguous"], found["eplb-global"]
    assert uneven.value("latency") == pytest.approx(70 * 3.5) and uneven.timing["rounds"] == 6
    assert uneven.value("rank_max_over_mean") == pytest.approx(1.5) and even.value("rank_max_over_mean") == 1
    assert uneven.value("waiting_share") == pytest.approx(10 / 70) and even.value("waiting_share") == 0
    assert even.value("ratio") == pytest.approx(0.5) and even.figures["ratio"].high == pytest.approx(0.5)
    assert even.value("compute_ratio") == pytest.approx(20 / 30)
    assert uneven.value("token_max_over_mean") == pytest.approx(1.5) and uneven.value("exchanged_bytes") == 14
    assert uneven.series["compute_ns"] == pytest.approx([35, 105]) and uneven.series["tokens"] == [10, 30]
    assert uneven.verification["error"] == 2e-7 and uneven.timing["barrier_ns"] == 6.0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ranks", "0"], "RANKS=0: at least one rank"),
        (["--ranks", "-2"], "RANKS=-2: at least one rank"),
        (["--ranks", "3"], "RANKS=3 does not divide n_routed_experts of small, 8"),
        (["--ranks", "16"], "RANKS=16: n_routed_experts of small is 8"),
        (["--ranks", "4", "--nodes", "3"], "--nodes 3 does not divide the 4 ranks"),
        (["--ranks", "2", "--tokens", "0"], "--tokens 0"),
        (["--ranks", "2", "--skew", "-1"], "SKEW=-1: expected 0 (uniform), 1 (Zipf's law)"),
        (["--ranks", "2", "--skew", "1", "nan"], "SKEW=nan"),
        (["--ranks", "2", "--skew", "even"], "SKEW=even: expected 0 (uniform), 1 (Zipf's law), another exponent"),
        (["--ranks", "2", "--model", "no-such-model"], "no-such-model"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_starts(tmp_path, model, capsys, words, reason):
    runs = tmp_path / "runs"
    assert parallel.main(["--device", "cpu", "--runs", str(runs), "--model", model, *words]) == 2
    assert reason in capsys.readouterr().err and not runs.exists()


def test_one_device_playing_all_ranks_measures_shares_and_no_completion(tmp_path, model):
    small = sized(model, "cpu")
    plan = Plan(small.name, small.shape, 4, "cpu", True, 2, 24, (1.0,), time.monotonic() + 8)
    run = parallel.Measurement(plan, tmp_path, {"device": "cpu"})
    run.measure(parallel.PROGRAM, 20.0)
    assert not run.problems and len(run.records) == 3
    for record in read_run(run.folder).records:
        assert record.status == "passed" and record.timing["pairing"] == "simulated" and record.samples is None
        assert not {"latency", "ratio", "throughput", "waiting_share"} & set(record.figures)
        assert (
            set(record.series) == {"local_ns", "compute_ns", "tokens", "expert_load"}
            and len(record.series["compute_ns"]) == 4
        )
        assert record.value("compute_slowest") > 0 and record.value("compute_ratio") > 0
    lines = parallel.table(run.records)
    assert len(lines) == 4 and all(line.split()[2] == "-" for line in lines[1:])
    assert "nothing exchanged" in "\n".join(parallel.notes(plan))


def test_a_plan_is_read_as_it_was_written(tmp_path, model):
    small = sized(model, "cpu")
    plan = Plan(small.name, small.shape, 2, "cpu", False, 2, 24, (0.0, 1.0, "recorded"), 5.0)
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan
    ids = [f"ffn.parallel/small/r2-t24{routing}" for routing in ("", "-zipf1", "-recorded")]
    assert [case.id for case in plan.cases()] == ids


def test_simulated_placements_are_labelled_and_even_out_skewed_routing(monkeypatch):
    monkeypatch.setattr(parallel_simulated, "RANKS", (32, 320))
    found = {(r.sizes, r.implementation): r for r in parallel_simulated.records((0.0, 1.0, "recorded"))}
    assert len(found) == 18
    for record in found.values():
        assert record.implementation.startswith("simulated-") and record.kind == "reference"
        assert "latency" not in record.figures
        assert record.status == "unavailable" or (
            record.value("max_violation") and len(record.series["expert_load"]) == 256
        )
    loads = {n: found["r32-t4096-zipf1", f"simulated-{n}"] for n in PLACEMENTS}
    assert all(
        sum(r.series["tokens"]) == pytest.approx(4096 * 8) and len(r.series["tokens"]) == 32 for r in loads.values()
    )
    values = [loads[name].value("token_max_over_mean") for name in PLACEMENTS]
    assert values == sorted(values, reverse=True) and values[0] > 2 and values[2] < 1.05
    assert loads["eplb-global"].value("replicas") == 288
    learned = found["r32-t4096-recorded", "simulated-contiguous"]
    assert learned.shape["recorded"] == recorded.digest()
    uniform = found["r32-t4096", "simulated-contiguous"].value("token_max_over_mean")
    assert uniform < learned.value("token_max_over_mean") < values[0]
    wide = {name: found["r320-t4096", f"simulated-{name}"] for name in PLACEMENTS}
    assert wide["contiguous"].status == "unavailable" and "ranks is 320" in wide["contiguous"].reason
    assert "nodes is 40" in wide["eplb-hierarchical"].reason
    assert wide["eplb-global"].value("replicas") == 320
