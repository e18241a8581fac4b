"""Verdicts between two runs: what sets the scale, what cannot be compared, and which exit status follows."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pairing import CODES, Pairing, pair
from harness.record import Figure, Header, Run
from harness.verdict import percent
from tests.harness.past import header, record

CASES = 30


def run(latencies, digest="a" * 12, head: Header | None = None, **changes: object) -> Run:
    """A run with one contender a case; None leaves a case out. `digest` may be one for each case."""
    digests = itertools.repeat(digest) if isinstance(digest, str) else iter(digest)
    records = [
        record(case, value, name, **changes)
        for case, (value, name) in enumerate(zip(latencies, digests, strict=False))
        if value is not None
    ]
    return Run(None, head or header(0), tuple(records))  # type: ignore[arg-type]


def kinds(found: Pairing) -> list[str]:
    return [one.verdict.kind for one in sorted(found.pairs, key=lambda one: one.case.split("/n")[1])]


def changed(number: int = CASES, unchanged: int = 20) -> list[str]:
    """Digests of the later run: the last contenders have another file."""
    return ["a" * 12] * unchanged + ["b" * 12] * (number - unchanged)


def test_a_changed_contender_far_beyond_what_equal_code_shows_is_slower_or_faster() -> None:
    times = [1e6] * CASES
    later = [1e6] * 20 + [1.3e6] * 5 + [0.7e6] * 5
    found = pair(run(times), run(later, changed()))
    assert kinds(found) == ["same"] * 20 + ["slower"] * 5 + ["faster"] * 5
    assert found.code == 1 and found.unchanged.known
    worst = found.of("slower")[0].verdict
    assert worst.ratio is not None and worst.ratio.low < 1.3 < worst.ratio.high and worst.ratio.value == 1.3


def test_what_equal_code_differs_by_is_no_difference() -> None:
    """The same change, between runs in which unchanged code came out forty per cent apart."""
    later = [1.4e6, 1e6 / 1.4] * 10 + [1.3e6, 0.75e6] * 5
    found = pair(run([1e6] * CASES), run(later, changed()))
    assert found.unchanged.spread > 0.3
    assert not found.of("slower") and not found.of("faster")


def test_unchanged_code_that_moved_is_unclear_and_says_why() -> None:
    later = [1e6] * 29 + [2e6]
    found = pair(run([1e6] * CASES), run(later))
    assert found.counts == {"same": 29, "unclear": 1}
    assert "its own file is the same in both" in found.of("unclear")[0].verdict.reason


def test_nothing_is_called_the_same_where_equal_code_differs_by_more_than_the_tolerance() -> None:
    times = [1e6, 1.1e6] * 10 + [1e6] * 10
    found = pair(run([1e6] * CASES), run(times, changed()))
    assert found.unchanged.spread > found.tolerance and set(found.counts) == {"unclear"} and found.code == 3
    wide = pair(run([1e6] * CASES), run(times, changed()), tolerance=0.2)
    assert set(wide.counts) == {"same"} and wide.code == 0


def test_without_enough_unchanged_code_a_wide_scale_is_assumed() -> None:
    found = pair(run([1e6] * 4), run([1.2e6, 1.0e6, 1.4e6, 0.6e6], ["b" * 12] * 4))
    assert not found.unchanged.known and found.unchanged.spread == 0.25
    assert kinds(found) == ["unclear", "unclear", "slower", "faster"]
    narrow = pair(run([1e6] * 4), run([1.2e6] * 4, ["b" * 12] * 4), assumed=0.05)
    assert kinds(narrow) == ["slower"] * 4


INCOMPARABLE = {
    "another machine": ({"head": header(1, machine=1)}, "two machines"),
    "another method": ({"head": dataclasses.replace(header(1), method="2")}, "method 1 and by method 2"),
    "other sizes": ({"shape": {"n": -1}}, "other sizes: n"),
    "another clock": ({"timing": {"clock": "events", "caches": "cold"}}, "other clocks: wall and events"),
    "other caches": ({"timing": {"clock": "wall", "caches": "warm"}}, "other states of the caches"),
    "no latency": ({"figures": {"peak": Figure(1.0)}}, "B has no latency"),
    "a latency of nothing": ({"figures": {"latency": Figure(0.0)}}, "no measurement"),
    "an interval beside its value": ({"figures": {"latency": Figure(5.0, 6.0, 7.0)}}, "no measurement"),
}


@pytest.mark.parametrize("what", INCOMPARABLE)
def test_what_is_not_the_same_measurement_is_incomparable(what: str) -> None:
    changes, reason = INCOMPARABLE[what]
    found = pair(run([1e6] * 10), run([2e6] * 10, ["b" * 12] * 10, **changes))
    assert kinds(found) == ["incomparable"] * 10
    assert all(reason in one.verdict.reason for one in found.pairs)
    assert not found.of("slower")


def test_exact_metrics_are_compared_across_machines_and_fail_nothing_under_another_toolchain() -> None:
    worse = {"figures": {"latency": Figure(1e6, 0.99e6, 1.01e6), "peak": Figure(1e6)}}
    found = pair(run([1e6] * 9), run([1e6] * 9, head=header(1, machine=1), **worse))
    assert [deviation.kind for deviation in found.counted] == ["worse"] * 9 and found.code == 1
    other = pair(run([1e6] * 9), run([1e6] * 9, head=header(1, torch="2.13.0"), **worse))
    assert len(other.counted) == 9 and other.loose == "the toolchains differ" and other.code == 0


def test_rounding_of_the_allocator_is_no_difference() -> None:
    near = {"figures": {"latency": Figure(1e6), "peak": Figure(4096.0 + 512)}}
    assert not pair(run([1e6]), run([1e6], **near)).counted


def test_an_unknown_interval_is_unclear() -> None:
    open_ended = {"figures": {"latency": Figure(5e6)}}
    found = pair(run([1e6] * 3), run([5e6] * 3, ["b" * 12] * 3, **open_ended))
    assert kinds(found) == ["unclear"] * 3 and found.code == 3


def test_a_suspect_time_is_never_faster() -> None:
    odd = {"timing": {"clock": "wall", "caches": "cold", "suspect": True}}
    found = pair(run([1e6] * 3), run([1e5] * 3, ["b" * 12] * 3, **odd))
    assert kinds(found) == ["unclear"] * 3 and "suspect" in found.pairs[0].verdict.reason


ENDS = [("incorrect", 5), ("oom", 5), ("crashed", 5), ("unavailable", 4)]


@pytest.mark.parametrize(("status", "code"), ENDS)
def test_a_contender_that_gives_no_result_any_more_is_told_with_its_reason(status: str, code: int) -> None:
    broken = dataclasses.replace(record(1, 1.0), status=status, reason="because", figures={})
    later = Run(None, header(1), (record(0, 1e6), broken))  # type: ignore[arg-type]
    found = pair(run([1e6] * 2), later)
    assert found.code == code and "because" in found.alone[0].reason


def test_a_contender_gone_from_a_case_is_lost_coverage_a_case_not_measured_is_not() -> None:
    other = dataclasses.replace(record(0, 1e6), implementation="slow")
    both = Run(None, header(0), (record(0, 1e6), other))  # type: ignore[arg-type]
    assert pair(both, run([1e6]), assumed=0).code == 4
    assert pair(run([1e6, 1e6]), run([1e6]), assumed=0).code == 0
    assert pair(run([1e6]), run([1e6, 1e6]), assumed=0).code == 0


def test_nothing_in_common_has_its_own_status() -> None:
    assert pair(run([1e6, None]), run([None, 1e6])).code == 4
    apart = pair(run([1e6], figures={"latency": Figure(1.0)}),
                 run([1e6], figures={"latency": Figure(1.0)}, head=header(1, 1)))  # fmt: skip
    assert apart.code == 4 and not apart.compared


def test_damage_is_a_status_of_its_own() -> None:
    torn = dataclasses.replace(run([1e6]), problems=("line 3: not JSON",))
    found = pair(run([1e6]), torn)
    assert found.code == 6 and "line 3" in found.problems[0]


def test_every_code_has_a_meaning() -> None:
    assert set(CODES) == {0, 1, 3, 4, 5, 6}


LATENCY = st.floats(1e3, 1e9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LATENCY, LATENCY, st.booleans()), min_size=1, max_size=25))
def test_swapping_the_runs_swaps_slower_and_faster(items: list[tuple[float, float, bool]]) -> None:
    digests = ["b" * 12 if changed else "a" * 12 for _, _, changed in items]
    one, other = run([a for a, _, _ in items]), run([b for _, b, _ in items], digests)
    there, back = pair(one, other), pair(other, one)
    swapped = {"slower": "faster", "faster": "slower"}
    for one_way, other_way in zip(kinds(there), kinds(back), strict=True):
        assert swapped.get(one_way) == other_way if one_way in swapped else other_way not in swapped
    for a, b in zip(there.pairs, back.pairs, strict=True):
        if a.verdict.ratio and b.verdict.ratio:
            assert math.isclose(a.verdict.ratio.value * b.verdict.ratio.value, 1, rel_tol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(LATENCY, min_size=1, max_size=30), st.sampled_from(["a" * 12, "b" * 12]))
def test_a_run_beside_itself_is_never_slower_or_faster(times: list[float], digest: str) -> None:
    found = pair(run(times), run(times, digest))
    known = found.unchanged.known
    assert set(found.counts) == ({"same"} if known else {"unclear"}) and found.code == (0 if known else 3)


def test_shares_read_as_people_write_them() -> None:
    told = [percent(share) for share in (0.0004, 0.025, 0.256, 1.5, 9.99, math.inf, math.nan)]
    assert told == ["0.04 %", "2.5 %", "26 %", "150 %", "999 %", "more than 10 times", "more than 10 times"]
