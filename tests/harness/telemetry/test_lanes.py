"""Lanes made thinner keep what stands out, and what is damaged costs itself alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.lanes import thinned


def test_a_dip_of_one_reading_is_kept():
    seconds = [step / 50 for step in range(1001)]
    clock = [1755.0] * 1001
    clock[613] = 900.0
    found = thinned({"gpus": [{"seconds": seconds, "sm_clock_mhz": clock}], "host": {}}, 100)
    lane = found["gpus"][0]
    assert len(lane["seconds"]) == len(lane["sm_clock_mhz"]) == 91 and found["host"] == {}
    at = lane["sm_clock_mhz"].index(900.0)
    assert lane["seconds"][at] <= seconds[613] < lane["seconds"][at + 1]
    assert lane["sm_clock_mhz"].count(1755.0) == 90


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 50))
def test_any_lane_keeps_its_extremes_furthest_from_the_middle(values, most):
    lanes = {"host": {"seconds": list(range(len(values))), "steal": values}}
    found = thinned(lanes, most)["host"]
    assert len(found["seconds"]) <= most
    known = [value for value in values if value is not None]
    assert ("steal" in found) == bool(known)
    if known:
        middle = sorted(known)[len(known) // 2]
        if len(known) % 2:
            assert max(abs(v - middle) for v in found["steal"] if v is not None) == max(abs(v - middle) for v in known)
        assert set(found["steal"]) <= {*known, None}


def test_what_has_no_moments_or_another_length_is_left_out():
    for damaged in ({}, {"gpus": 3, "host": []}, {"gpus": [{"power_w": [1.0]}], "host": {"seconds": []}}):
        found = thinned(damaged, 10)
        assert not any(found["gpus"]) and found["host"] == {}
    one = {"seconds": [0, 1], "power_w": [1.0], "steal": [0.5, "x"]}
    assert thinned({"gpus": [one]}, 10)["gpus"] == [{"seconds": [0, 1], "steal": [0.5, None]}]
