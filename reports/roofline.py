"""The roofline page: how far each timed record of a run lies from what the hardware allows, and what limits it.

Williams, Waterman and Patterson's plot: FLOPs a second over FLOPs a byte, both logarithmic, below a slanted roof
(bandwidth) and a level one for each dtype, all measured in the same run. Points and reasons are `intensity`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.units import digits, listed, show, some

from .controls import facet, tools
from .intensity import Left, Point, Roofs, left, limits, points, roofs, shares
from .markup import Child, Html, join, tag
from .page import badges
from .roofline_plot import figure, series, series_of
from .study import contender_name
from .table import Cell, number, table
from .view import View, link, page_of

QUESTION = "How far from the hardware's limits?"
ROWS, NAMED, ABOVE = 420, 12, 1.05
LEAD = (
    "Each point is one contender in one case. Under the slanted roof the memory is the limit, under a level one the "
    "arithmetic. FLOPs and bytes are the cost model's least, with cold caches: work that an implementation does on top "
    "moves its point down, never to the right."
)
LIMITS = (
    "Roofs are this suite's own best reading, copying and square products on this machine, not a data sheet's: better "
    "code could lift them a little.",
    "A mixture of reading and writing moves at a bandwidth between the two, so a point's distance to the slanted roof "
    "is an approximation; the share in the table is not.",
    "Why a point is low. Launches, synchronisation, uneven loads and more traffic than needed all look the same here.",
)


def page(view: View) -> Html:
    """The content of the page."""
    found, ceilings, absent = points(view), roofs(view), left(view)
    return join(
        tag("p", "Roofline", class_="kicker"),
        tag("h1", QUESTION),
        tag("p", answer(view, found, ceilings), class_="answer"),
        above(found),
        placed(view, found, ceilings),
        without(view, absent),
        tag("section", tag("h2", "What this does not show"), tag("ul", [tag("li", item) for item in LIMITS])),
    )


def answer(view: View, found: Sequence[Point], ceilings: Roofs) -> str:
    """What limits the run's records, how near the fastest come, and what FP8 would allow."""
    passed = sum(record.status == "passed" for record in view.run.records)
    if not found:
        return f"Nothing can be placed: none of the {passed} results that passed has a floor; the reasons are below."
    near = max((p for p in found if p.share <= 1), key=lambda point: point.share, default=found[0])
    text = (
        f"Of {some(len(found), 'result')} with a floor, {limits(found)}. {shares(found)} The nearest below its roof is "
    )
    text += f"{near.record.contender} in {near.record.case}, at {show(near.share, 'share')}."
    fp8, bf16 = ceilings.matrix.get("float8_e4m3fn"), ceilings.matrix.get("bfloat16")
    if fp8 and bf16:
        text += f" Products in FP8 reached {show(fp8 / bf16, 'ratio')} the rate of BF16 here."
    return text


def above(found: Sequence[Point]) -> Html | None:
    """What lies above its roof by more than measuring explains: an error, not a win."""
    over = [point for point in found if point.share > ABOVE]
    if not over:
        return None
    names = [f"{point.record.contender} in {point.record.case} ({show(point.share, 'share')})" for point in over]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "lies" if len(over) == 1 else "lie"
    text = f"{some(len(over), 'result')} {verb} more than 5 % above the roof: {listed(names[:3])}{more}. The clock, "
    return tag("p", f"{text}the cost model or the ceiling is wrong there; do not read it as a win.", class_="caution")


def placed(view: View, found: Sequence[Point], ceilings: Roofs) -> Html | None:
    """Filter, a figure a study, and the table of all points."""
    if not found:
        return None
    grouped = {study: [p for p in found if p.record.study == study] for study in view.studies()}
    grouped = {study: mine for study, mine in grouped.items() if mine}
    choices = [
        (f"{study}:{name}", f"{name}" if len(grouped) == 1 else f"{study}: {name}")
        for study, mine in grouped.items()
        for name in series(mine)
    ]
    ordered = sorted(found, key=lambda point: -point.share)
    rest = len(ordered) - ROWS
    return tag(
        "section",
        tag("h2", "Every timed result under the roofs"),
        tag("p", LEAD),
        tools("Filter the table: decode, triton …", facet("series", "Show one technique", choices)),
        [figure(view, study, mine, ceilings).html() for study, mine in grouped.items()],
        tag("h3", "All points, nearest to the roof first"),
        table(COLUMNS, [point_row(view, p, grouped) for p in ordered[:ROWS]], class_="filterable contenders",
              label="Points under the roofs"),
        tag("p", f"{rest} more, further from their roof, stand on the pages of their cases.", class_="note")
        if rest > 0
        else None,
        id="points",
    )  # fmt: skip


COLUMNS = ("Contender", "Case", ">Intensity", ">Achieved", ">Share of floor", "Limit", "Cautions")


def point_row(view: View, point: Point, grouped: dict[str, list[Point]]) -> Html:
    """A point in figures, with the way to its case."""
    record = point.record
    cells: list[Cell | Child] = [
        contender_name(view, record),
        tag("a", record.case, href=link(page_of(record.case))),
        number(f"{digits(point.intensity)} FLOP/B"),
        number(show(point.rate, "FLOP/s")),
        number(show(point.share, "share"), point.share),
        point.limit,
        badges(view, record),
    ]
    name = series_of(point, series(grouped[record.study]))
    return tag("tr", [(c if isinstance(c, Cell) else Cell(c)).html() for c in cells],
               data_series=f"{record.study}:{name}")  # fmt: skip


def without(view: View, absent: Sequence[Left]) -> Html | None:
    """What has no place under the roofs, by reason, and what gave no result at all."""
    failed = sum(record.status != "passed" for record in view.run.records)
    note = f"{some(failed, 'contender')} failed or could not run; the study's page says why." if failed else None
    if not absent:
        return tag("section", tag("h2", "Without a place"),
                   tag("p", "Every result that passed is placed above. ", note), id="without")  # fmt: skip
    rows = [
        tag("tr", tag("td", group.reason), number(len(group.records)).html(), tag("td", named(group)))
        for group in absent
    ]
    return tag(
        "section",
        tag("h2", "Without a place"),
        tag("p", "These passed, and cannot be drawn under a roof. ", note),
        table(["Why", ">Results", "Cases"], rows, class_="prose", label="Results without a place"),
        id="without",
    )


def named(group: Left) -> Html:
    """Links to the cases of a group; beyond a dozen their number."""
    cases = list(dict.fromkeys(record.case for record in group.records))
    links = [tag("a", case, href=link(page_of(case))) for case in cases[:NAMED]]
    rest = len(cases) - NAMED
    return join(*(part for one in links for part in (one, " ")), f"and {rest} more" if rest > 0 else None)
