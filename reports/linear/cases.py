"""Cases of the linear study as its page reads them: sizes, names, sweeps over rows, and who is compared with whom."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.record import Figure, Record
from harness.units import GAP, digits, full, show, some

from .. import facts
from ..markup import Html, tag
from ..sweep import Sweep
from ..table import row
from ..view import View, link, mapping, page_of, plain

BF16, FP8 = "bf16", "fp8"
TECHNIQUES = {FP8: "tiles and blocks of 128", "fp8-row": "a scale a row", "fp8-tensor": "a scale a tensor"}
PRODUCTS = ("linear.fprop", "linear.dgrad", "linear.wgrad")
TRAIN, QUANTIZE, NUMERICS, LOSS = "linear.layer_train", "linear.quantize", "linear.numerics", "linear.loss"
GROUPED = ("linear.grouped", "linear.grouped_dgrad", "linear.grouped_wgrad")
TIMED = (*PRODUCTS, *GROUPED, TRAIN)
EMULATED = "FP8 payloads"
TABLE_ROWS = 60
SIZES = ("rows", "outs", "ins")


def of(view: View, *operations: str) -> list[facts.Case]:
    """The study's cases of some operations, in the order measured.

    Where the machine has FP8, contenders that emulate it take no part: they are there to be right, and where nothing
    else passed, their time is not FP8's.
    """
    found = [case for case in view.of("linear") if case.first.operation in operations]
    return [real(case) for case in found] if has_fp8(view) else found


def real(case: facts.Case) -> facts.Case:
    """The case without emulations; as it is where nothing else is in it."""
    kept = tuple(record for record in case.records if not emulated(record) or record.operation not in TIMED)
    return facts.Case(case.id, kept) if kept else case


def has_fp8(view: View) -> bool:
    """Whether anything computed with FP8 here without emulating it."""
    timed = [r for case in view.of("linear") for r in case.passed if r.operation in TIMED and r.technique != BF16]
    return view.on_gpu and not all(map(emulated, timed))


def capped(rows: Sequence[Html]) -> list[Html]:
    """As many rows as a page has room for, and how many are left out."""
    left = len(rows) - TABLE_ROWS
    note = f"{some(left, 'more row')} left out; each case has a page of its own."
    return list(rows) if left <= 0 else [*rows[:TABLE_ROWS], row([tag("span", note, class_="quiet")])]


def size(record: Record, name: str) -> float | None:
    """One of a case's sizes, such as `rows`; None where the record does not tell."""
    found = plain(mapping(record.shape).get(name))
    return found if found is not None and found > 0 else None


def values(record: Record) -> str:
    """How its activations are distributed."""
    found = mapping(record.shape).get("values")
    return found if isinstance(found, str) else "gaussian"


def powers(record: Record) -> bool:
    """Whether its scales are powers of two."""
    return bool(mapping(record.shape).get("power_of_two"))


def single(record: Record) -> bool:
    """Whether what is not FP8 is FP32 here, as on a machine without BF16."""
    return mapping(record.shape).get("dtype") == "float32"


def unquantized(view: View) -> str:
    """What FP8 is compared with: BF16, or FP32 where the run has no BF16."""
    records = [r for case in of(view, *PRODUCTS, TRAIN) for r in case.records]
    return "FP32" if records and all(map(single, records)) else "BF16"


def emulated(record: Record) -> bool:
    """Whether FP8 was emulated: the record's layout says so."""
    return record.layout.startswith(EMULATED) if record.layout else False


def name(case: facts.Case) -> str:
    """A case without study, model and the dtype that all of a run share: `fprop m4096-n7168-k2048`."""
    sizes = re.sub(r"-fp32\b", "", case.first.sizes)
    return f"{case.first.operation.split('.', 1)[-1].removeprefix('layer_')} {sizes}"


def linked(case: facts.Case) -> Html:
    """The name, leading to the case's page."""
    return tag("a", name(case), href=link(page_of(case.id)))


def over(view: View, case: facts.Case) -> dict[str, Figure]:
    """The best of each FP8 technique over the best without FP8."""
    base, found = case.best(BF16), {}
    for technique in TECHNIQUES:
        best = case.best(technique)
        value = view.ratio(best, base) if best is not None and base is not None else None
        if value is not None:
            found[technique] = value
    return found


def plainest(cases: Sequence[facts.Case]) -> list[facts.Case]:
    """Cases with Gaussian values and any scales, without those that differ from another in a power of two alone."""
    return [case for case in cases if values(case.first) == "gaussian" and not powers(case.first)]


def sweeps(view: View) -> list[Sweep]:
    """The forward product of each weight over rows, those with most points first."""
    groups: dict[tuple[str, float, float], dict[float, facts.Case]] = {}
    for case in plainest(of(view, PRODUCTS[0])):
        rows, outs, ins = (size(case.first, part) for part in SIZES)
        if rows is not None and outs is not None and ins is not None:
            groups.setdefault((case.first.model, outs, ins), {})[rows] = case
    found = []
    for (model, outs, ins), cases in groups.items():
        setting = f"weight {outs:.0f} \N{MULTIPLICATION SIGN} {ins:.0f}"
        points = tuple(sorted(cases.items()))
        found.append(Sweep(view, points[0][1].first.operation, model, setting, points))
    kept = [sweep for sweep in found if sweep.techniques]
    kept.sort(key=lambda sweep: (-sum(bool(over(view, case)) for _, case in sweep.points), -len(sweep.points)))
    return kept


def span(ratios: Sequence[float]) -> str:
    """The range of ratios, or the only one."""
    ends = sorted(ratios)
    least, most = (show(value, "ratio") for value in (ends[0], ends[-1]))
    return least if least == most else f"{least} to {most}"


def taken(figure: Figure) -> str:
    """A ratio with its interval."""
    return full(figure, "ratio")


def percent(value: float) -> str:
    """A small share, with three digits from one per cent up and two below: `3.72 %`, `0.25 %`."""
    return f"{digits(100 * value, 3 if abs(value) >= 0.01 else 2)}{GAP}%"
