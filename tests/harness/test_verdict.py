"""Verdicts must hold on what timers of shared machines produce: skew, drift, bursts, processes that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.statistics import Estimate, nested_estimate
from harness.verdict import LOOKS, Paired, Rounds, Rule, Unchanged, judged, ratio, stored

RULE = Rule(0.03, cases=10)


def visit(rng, rounds=100, head=1.0, slowed=1.1, noise=0.08, process=0.0, bursts=0.0):
    """Rounds of a process: drift that all arms share, skewed noise, modes of the process, interrupted slots."""
    drift = 1e5 * np.exp(np.cumsum(rng.normal(0, 0.02, rounds)))

    def arm(factor):
        skewed = 1 + rng.gamma(1.5, noise / 1.5, rounds)
        hit = np.where(rng.random(rounds) < bursts, rng.uniform(2, 20, rounds), 1.0)
        return factor * math.exp(rng.normal(0, process)) * drift * skewed * hit

    return Rounds({"base": arm(1.0), "control": arm(1.0), "head": arm(head), "slowed": arm(slowed)})


def kinds(arm, trials=16, **conditions):
    """Verdicts on an arm, each from four processes."""
    rng = np.random.default_rng(len(repr(conditions)))
    return [Paired([visit(rng, **conditions) for _ in range(4)], RULE).verdict(arm).kind for _ in range(trials)]


@pytest.mark.parametrize(
    "conditions", [{}, {"noise": 0.3, "rounds": 60}, {"process": 0.02}, {"bursts": 0.2}, {"rounds": 24, "bursts": 0.3}]
)
def test_equal_code_is_not_called_slower_or_faster(conditions):
    assert not {"slower", "faster"} & set(kinds("head", **conditions))


def test_equal_code_is_called_same_where_noise_is_small():
    assert kinds("head", noise=0.04).count("same") >= 15


@pytest.mark.parametrize("size, caught", [(1.05, 12), (1.10, 16), (1.20, 16)])
def test_slowed_code_is_caught_and_never_called_same(size, caught):
    found = kinds("slowed", slowed=size, rounds=250, noise=0.04)
    assert found.count("slower") >= caught and not {"same", "faster"} & set(found)


def test_slowed_code_in_noise_is_unclear_and_not_same():
    assert not {"same", "faster"} & set(kinds("slowed", slowed=1.05, rounds=24, noise=0.3, bursts=0.3))


def test_faster_code_is_called_so_and_is_no_failure_of_the_tolerance():
    assert kinds("head", head=0.9, noise=0.04).count("faster") >= 15


def test_processes_that_differ_widen_the_interval():
    rng = np.random.default_rng(3)
    alike, apart = ([visit(rng, process=p) for _ in range(6)] for p in (0.0, 0.04))
    widths = [ratio([one.logs("head") for one in visits], 0.99).half_width for visits in (alike, apart)]
    assert widths[1] > 2 * widths[0]


def test_a_process_alone_among_others_does_not_decide():
    rng = np.random.default_rng(4)
    visits = [*(visit(rng) for _ in range(3)), visit(rng, head=1.5)]
    assert Paired(visits, RULE).verdict("head").kind == "unclear"


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(5), 0
    for _ in range(100):
        groups = [rng.normal(rng.normal(0, 0.5), 1.0, 40) for _ in range(8)]
        estimate = nested_estimate(groups, 0.95)
        held += estimate.low <= 0 <= estimate.high
    assert 87 <= held <= 99


def test_noise_within_groups_is_not_counted_twice():
    rng = np.random.default_rng(6)
    found = [nested_estimate([rng.normal(0, 1, 200) for _ in range(4)], 0.95) for _ in range(20)]
    width = np.mean([(estimate.high - estimate.low) / 2 for estimate in found])
    assert 0.8 < width / (1.96 * 1.2533 / math.sqrt(800)) < 1.25


@pytest.mark.parametrize("bad", [[], [np.array([])], [np.array([1.0, np.nan])]])
def test_no_estimate_comes_from_nothing(bad):
    with pytest.raises(ValueError, match="finite"):
        nested_estimate(bad)


def test_too_few_rounds_are_unclear():
    rng = np.random.default_rng(7)
    verdict = Paired([visit(rng, rounds=9)], RULE).verdict("head")
    assert verdict.kind == "unclear" and verdict.ratio.low == 0.0 and verdict.ratio.high == math.inf


def test_equal_code_that_differs_forbids_same_and_widens_slower():
    rng = np.random.default_rng(8)
    visits = [visit(rng, rounds=300) for _ in range(4)]
    shifted = [Rounds({**one.arms, "control": 1.08 * one.arms["control"]}) for one in visits]
    paired = Paired(shifted, RULE)
    assert paired.control.kind != "same" and paired.spread == pytest.approx(0.08, abs=0.01)
    assert paired.verdict("head").kind == "unclear"
    assert "apart" in paired.verdict("slowed").reason and paired.verdict("slowed").kind == "unclear"


def test_nothing_is_the_same_beside_a_control_that_is_unclear():
    rng = np.random.default_rng(9)
    base = np.full(200, 1e5)
    noisy = [{"base": base, "control": base * np.exp(rng.normal(0, 0.3, 200)), "head": base} for _ in range(4)]
    paired = Paired([Rounds(arms) for arms in noisy], RULE)
    verdict = paired.verdict("head")
    assert paired.control.kind == "unclear" and paired.spread < 0.03 and verdict.ratio.high < 1.03
    assert verdict.kind == "unclear" and verdict.reason.startswith("equal code came out unclear")


@pytest.mark.parametrize(
    "low, high, spread, kind",
    [
        (1.031, 1.2, 0.0, "slower"),
        (1.029, 1.2, 0.0, "unclear"),
        (0.98, 1.029, 0.0, "same"),
        (0.98, 1.031, 0.0, "unclear"),
        (0.9, 0.97, 0.0, "faster"),
        (0.9, 0.975, 0.0, "same"),
        (1.031, 1.2, 0.05, "unclear"),
        (1.051, 1.2, 0.05, "slower"),
        (0.99, 1.01, 0.05, "unclear"),
    ],
)
def test_the_rule(low, high, spread, kind):
    assert judged(Estimate((low + high) / 2, low, high), 0.03, spread).kind == kind


def test_permitted_errors_are_divided_among_cases_and_looks():
    assert 1 - Rule(0.03).confidence(0) == pytest.approx(0.05 * LOOKS[0])
    assert 1 - RULE.confidence(0) == pytest.approx(0.005 * LOOKS[0])
    assert sum(1 - RULE.confidence(look) for look in range(len(LOOKS))) == pytest.approx(0.005)
    with pytest.raises(ValueError, match="planned"):
        RULE.confidence(len(LOOKS))


def test_rounds_refuse_what_has_no_ratio():
    with pytest.raises(ValueError, match="equally many"):
        Rounds({"base": np.ones(3), "control": np.ones(3), "head": np.ones(2)})
    with pytest.raises(ValueError, match="above 0"):
        Rounds({"base": np.ones(3), "control": np.ones(3), "head": np.array([1.0, 0.0, 1.0])})
    with pytest.raises(ValueError, match="at least one"):
        Paired([], RULE)


def test_stored_medians_are_judged_by_what_unchanged_code_differs_by():
    before, after = Estimate(100, 99, 101), Estimate(110, 109, 111)
    quiet, loud = Unchanged(np.full(20, 0.01), 0.25), Unchanged(np.full(20, 0.2), 0.25)
    assert stored(before, after, 0.03, quiet).kind == "slower"
    assert stored(after, before, 0.03, quiet).kind == "faster"
    assert stored(before, after, 0.03, loud).kind not in ("slower", "faster")
    assert not Unchanged(np.full(3, 0.01), 0.25).known and Unchanged(np.full(3, 0.01), 0.25).spread == 0.25
    assert stored(Estimate(100, -math.inf, math.inf), after, 0.03, quiet).kind == "unclear"
