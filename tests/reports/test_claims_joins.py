"""The ledger's joins: each finds contenders and metrics that exist; what they make of the newer studies' records."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from benches import arms, ladder_plan, learn_plan, parallel_plan, parallel_records
from harness import Workload
from harness.metrics import COMMON
from harness.record import read_run
from harness.registry import load
from impls.learning.trial import ARMS
from reports.claims import LEDGER, judge, verdict
from reports.claims.claim import Join
from reports.claims.evidence import Judged
from reports.palette import Palette
from reports.view import View
from tests.reports import made_learning, made_model, made_objective

ROOT = Path(__file__).parents[2]
OF_COMMANDS = {"model.ladder": ladder_plan.METRICS, "ffn.parallel": parallel_records.METRICS,
               "ffn.balance": arms.METRICS, "learning.step": learn_plan.METRICS}  # fmt: skip
JOINS = [(claim.id, join) for claim in LEDGER for join in claim.joins]
OF_BENCHES = [(claim, join) for claim, join in JOINS if join.operation not in OF_COMMANDS]


def known(join: Join) -> tuple[set[str], set[str]]:
    """Contenders and metrics that the suite has of a join's operation."""
    registry = load("impls")
    contenders = set(registry.implementations.get(join.operation, ()))
    if join.operation == "ffn.parallel":
        contenders |= {f"moe/{said}{name}" for name in parallel_plan.PLACEMENTS for said in ("", "simulated-")}
    if join.operation == "learning.step":
        contenders |= {f"{arm.technique}/{name}" for name, arm in ARMS.items()}
    operation = registry.operations.get(join.operation)
    own = {metric.name for metric in operation.metrics} if operation else set()
    return contenders, {*COMMON, *own, *OF_COMMANDS.get(join.operation, {})}


@pytest.mark.parametrize(("claim", "join"), JOINS, ids=[f"{claim}-{join.operation}" for claim, join in JOINS])
def test_a_join_asks_for_what_the_suite_can_record(claim: str, join: Join) -> None:
    contenders, metrics = known(join)
    assert join.metric in metrics
    for pattern in filter(None, (join.of, join.over)):
        assert any(fnmatchcase(name, pattern) for name in contenders), f"{claim}: no contender is {pattern}"


@cache
def studies() -> list[Workload]:
    """The workloads of every bench, of all tiers."""
    files = sorted((ROOT / "benches").glob("bench_*.py"))
    return [one for path in files for one in import_module(f"benches.{path.stem}").workloads(None)]


@pytest.mark.parametrize(("claim", "join"), OF_BENCHES, ids=[f"{claim}-{join.operation}" for claim, join in OF_BENCHES])
def test_a_bench_has_a_case_with_both_sides_of_a_join(claim: str, join: Join) -> None:
    """Of `make bench`; commands that write records themselves (`make ladder`, `bench-ep`, `balance`) have more."""
    implementations = load("impls").implementations[join.operation]
    patterns = [pattern for pattern in (join.of, join.over) if pattern]
    for case in studies():
        asked = ((case.operation, join.operation), (case.model, join.model), (case.sizes, join.sizes))
        if all(fnmatchcase(name, pattern) for name, pattern in asked):
            able = [name for name, one in implementations.items() if one.supports(case.shape) is None]
            if all(any(fnmatchcase(name, pattern) for name in able) for pattern in patterns):
                return
    raise AssertionError(f"{claim}: no workload of {join.operation} has {' and '.join(patterns)}")


def view(folder: Path) -> View:
    run = read_run(folder)
    return View(run, folder.name, "newest", Palette(run.records), folder)


def test_bytes_and_accuracy_of_the_learning_study(tmp_path: Path) -> None:
    judged = judge(LEDGER, [view(made_learning.run(tmp_path / "learning", "courses"))])
    found = {one.claim.id: one for one in judged}
    owned, peak = found["GR-1"].evidence
    assert owned.figure.value == pytest.approx(1 - 18 / 34) and peak.figure.value == pytest.approx(0.5)
    assert found["GR-1"].verdict == verdict.REPRODUCED
    late, whole = found["GR-3"].evidence
    assert late.cases == whole.cases == 3 and late.figure.value < whole.figure.value < 0
    assert found["GR-3"].verdict == verdict.NOT_COMPARABLE


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    """The ledger judged by made-up runs of the objective study and of a ladder."""
    top = tmp_path_factory.mktemp("claims")
    runs = [made_objective.run(top / "objective", "generation", "loss"), made_model.run(top / "model", "ladder")]
    return {one.claim.id: one for one in judge(LEDGER, [view(folder) for folder in runs])}


SMALL = ["SEED-MTP", "V3-7", "V3-8", "V3-9", "G24-1", "V2-6", "MoE-2", "V2-2", "V2-4", "V3-3"]


@pytest.mark.parametrize("claim", SMALL)
def test_a_small_model_of_bytes_decides_no_claim_about_a_large_one(claim: str, found: dict[str, Judged]) -> None:
    one = found[claim]
    assert one.evidence and one.verdict == verdict.NOT_COMPARABLE
    assert {each.verdict for each in one.evidence} == {verdict.NOT_COMPARABLE}
    assert all(any(not held.same for held in each.held) for each in one.evidence), "the card must say why"


def test_acceptance_is_the_mean_over_seeds_then_that_of_other_runs(found: dict[str, Judged]) -> None:
    greedy, sampled, timed, ladder = found["V3-7"].evidence
    assert (greedy.figure.value, greedy.cases, greedy.unit) == (pytest.approx(0.7), 3, "share")
    assert (sampled.figure.value, timed.figure.value, ladder.figure.value) == pytest.approx((0.6, 0.8, 0.8))
    assert ladder.record.technique == "mla-moe-fp8-mtp"


def test_speed_of_generation_and_the_cost_of_a_speculative_step(found: dict[str, Judged]) -> None:
    speed, cost = found["V3-8"].evidence
    assert speed.figure.value == pytest.approx(1.8 / 1.2, rel=0.01) and speed.record.contender == "mtp/cached"
    assert cost.figure.value == pytest.approx(0.2, abs=0.02) and cost.record.contender == "mtp/refused"
    assert cost.unit == "share" and cost.figure.low is not None


def test_the_loss_with_mtp_over_seeds_its_sign_and_that_of_parallel_heads(found: dict[str, Judged]) -> None:
    distance, signed, ladder = found["V3-9"].evidence
    assert distance.figure.value == signed.figure.value == pytest.approx(0.0044 / 2.035, rel=0.02)
    assert distance.cases == 3 and distance.figure.low is not None
    assert ladder.figure.value == pytest.approx(-0.01 / (2.5 + 0.01 - 0.05 + 0.002)) and ladder.figure.low is None
    (parallel,) = found["G24-1"].evidence
    assert parallel.figure.value == pytest.approx(0.033 / 2.035, rel=0.02)


def test_whole_models_of_a_ladder(found: dict[str, Judged]) -> None:
    values = {claim: found[claim].evidence[0].figure.value for claim in ("V2-6", "MoE-2", "V2-2", "V2-4", "V3-3")}
    assert values["V2-6"] == pytest.approx(0.01 / 2.5) and values["MoE-2"] == pytest.approx(-0.05 / 2.5)
    assert values["V2-2"] == pytest.approx(1 / (0.9 * 1.4 * 0.8)) and values["V2-4"] == pytest.approx(1 - 1.2 * 1.5)
    assert values["V3-3"] == pytest.approx(0.002 / 2.46)
