"""The parts of a page: markup that cannot be broken by what is in it, axes, looks, thinned samples."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest

from harness.record import Record
from harness.units import MISSING
from reports.contest import ended
from reports.figure import log_axis
from reports.markup import Html, data, join, tag
from reports.palette import DASHES, HUES, Palette
from reports.samples import drift, spaced


def test_log_ticks_cover_the_values_and_carry_units() -> None:
    axis = log_axis("Latency", [180.0, 2.1e6], "ns")
    assert axis["tickvals"][0] < 180 < 2.1e6 < axis["tickvals"][-1]
    assert "1\u202fµs" in axis["ticktext"] and len(axis["tickvals"]) == len(axis["ticktext"])
    low, high = axis["range"]
    assert 10**low < 180 and 10**high > 2.1e6


@pytest.mark.parametrize("ratio", [1.0, 1.1, 1.3, 1.5, 1.6, 2.0, 2.5, 3.0])
@pytest.mark.parametrize("low", [0.5, 0.83, 1.0, 2.1, 6.5])
def test_labels_of_a_short_axis_do_not_touch_on_a_telephone(low: float, ratio: float) -> None:
    axis = log_axis("Time over", [low, low * ratio], "ratio")
    near, far = axis["range"]
    ticks = [math.log10(v) for v in axis["tickvals"] if near <= math.log10(v) <= far]
    pixels = [230 * (b - a) / (far - near) for a, b in pairwise(ticks)]  # of 390, beside the names of rows
    assert ticks and all(gap > 34 for gap in pixels)


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b", Html("<br>"), title='"x"') == '<p title="&quot;x&quot;">a &lt; b<br></p>'
    assert join(None, False, True, [1, "&"]) == "1&amp;"


def test_a_data_island_cannot_be_closed_from_inside() -> None:
    text = data({"name": "</script><script>alert(1)</script>"})
    assert text.count("</script>") == 1
    body = text.split(">", 1)[1].rsplit("</script>", 1)[0]
    assert json.loads(body)["name"] == "</script><script>alert(1)</script>"


def record(technique: str, name: str, kind: str) -> Record:
    return Record("o/m/s", "st", "o", "m", "s", {}, technique, name, kind, "passed")


def test_a_contender_looks_the_same_everywhere_and_unlike_its_neighbours() -> None:
    records = [record(t, n, k) for t in ("b", "a", "c") for n, k in (("reference", "reference"), ("fast", "optimized"))]
    palette = Palette(records)
    looks = [palette.look(r) for r in records]
    assert len({(x.colour, x.dash, x.marker) for x in looks}) == len(records)
    assert looks == [Palette(records[::-1]).look(r) for r in records]
    assert {x.colour for x in looks} <= set(HUES)
    assert len(set(DASHES.values())) == len(DASHES)


@pytest.mark.parametrize("count", [1, 2, 199, 200, 201, 100_000])
def test_thinning_keeps_order_first_and_last(count: int) -> None:
    picked = spaced(count, 200)
    assert picked[0] == 0 and picked[-1] == count - 1 and len(picked) == min(count, 200)
    assert (np.diff(picked) > 0).all()


def test_drift_is_the_move_of_the_median() -> None:
    assert drift(np.array([1.0, 1.0, 1.1, 1.1])) == pytest.approx(0.1)
    assert drift(np.array([5.0])) == 0.0


def test_what_stopped_a_contest_is_told_with_its_share_of_the_budget() -> None:
    assert ended({"stopped": "budget", "given_s": 11.5, "preparing_s": 2.0}) == "budget, 11.5 s"
    assert ended({"stopped": "narrow", "given_s": 11.5}) == "narrow"
    assert ended({"stopped": "budget"}) == "budget"
    assert ended({}) == MISSING
