"""Claims joined to records, and the page: which records count, what becomes of them, nothing quoted looks ours."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.record import Figure, Header, Record, Run
from reports import claims
from reports.claims import LEDGER, card, verdict
from reports.claims.claim import Claim, Condition, Effect, Join, Source
from reports.claims.evidence import Evidence, evidence, judge
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_objective
from tests.reports.conftest import Built
from tests.reports.test_browser import BROWSER
from tests.reports.test_hostile import EVIL, OURS, Elements

CLAIMS = {claim.id: claim for claim in LEDGER}
SPEED = Join("speed", "a.run", of="new/*", over="old/*", metric="latency", form="speed-up", effect=Effect(none=1.0))


def record(contender: str, value: float = 10.0, operation: str = "a.run", sizes: str = "s1", **more: Any) -> Record:
    """A record that passed, its latency known within 1 %."""
    technique, name = contender.split("/")
    figures = {"latency": Figure(value, 0.99 * value, 1.01 * value), **more.pop("figures", {})}
    known: dict[str, Any] = {"shape": {"model": {"layers": 61, "dtype": "bfloat16"}}, "status": "passed", **more}
    model = known.pop("model", "v3")
    case = f"{operation}/{model}/{sizes}"
    study = operation.split(".")[0]
    return Record(case, study, operation, model, sizes, technique=technique, implementation=name, kind="optimized",
                  figures=figures if known["status"] == "passed" else {}, **known)  # fmt: skip


def view(*records: Record, device: str = "cuda", **header: Any) -> View:
    """A run of these records."""
    found = replace(made.header(f"run-{device}", device), **header)
    run = Run(Path("nowhere"), found, records)
    return View(run, f"run-{device}", "newest", Palette(records), Path("nowhere"))


def found(join: Join, *views: View) -> Evidence:
    one = evidence(join, views)
    assert one is not None
    return one


def verdicts(*views: View) -> dict[str, str]:
    return {one.claim.id: one.verdict for one in judge(LEDGER, views)}


@pytest.mark.parametrize(
    ("form", "value", "low", "high"),
    [
        ("ratio", 0.25, 0.25 * 0.99 / 1.01, 0.25 * 1.01 / 0.99),
        ("speed-up", 4.0, 4 * 0.99 / 1.01, 4 * 1.01 / 0.99),
        ("saving", 0.75, 1 - 0.25 * 1.01 / 0.99, 1 - 0.25 * 0.99 / 1.01),
        ("change", -0.75, 0.25 * 0.99 / 1.01 - 1, 0.25 * 1.01 / 0.99 - 1),
        ("distance", 0.75, 1 - 0.25 * 1.01 / 0.99, 1 - 0.25 * 0.99 / 1.01),
    ],
)
def test_forms_of_a_quotient_of_the_best_on_both_sides(form: Any, value: float, low: float, high: float):
    here = view(record("new/a", 10.0), record("new/slow", 30.0), record("old/a", 40.0), record("old/slow", 90.0))
    one = found(replace(SPEED, form=form), here)
    assert (one.record.contender, one.over and one.over.contender) == ("new/a", "old/a")
    assert (one.figure.value, one.figure.low, one.figure.high) == pytest.approx((value, low, high))
    assert one.unit == ("ratio" if form in ("ratio", "speed-up") else "share")


def test_a_distance_around_nothing_begins_at_zero():
    one = found(replace(SPEED, form="distance"), view(record("new/a", 10.0), record("old/a", 10.05)))
    assert one.figure.low == 0.0 and one.figure.value == pytest.approx(0.05 / 10.05)


@pytest.mark.parametrize("missing", ["new/a", "old/a"])
def test_what_failed_or_is_not_there_counts_for_nothing(missing: str):
    records = [record("new/a"), record("old/a")]
    failed = [replace(r, status="incorrect", reason="no", figures={}) if r.contender == missing else r for r in records]
    assert evidence(SPEED, [view(*failed)]) is None
    assert evidence(SPEED, [view(*(r for r in records if r.contender != missing))]) is None
    assert evidence(replace(SPEED, operation="a.other"), [view(*records)]) is None
    assert evidence(replace(SPEED, sizes="s2"), [view(*records)]) is None
    assert evidence(replace(SPEED, device="cpu"), [view(*records)]) is None


def test_nothing_is_divided_by_nothing():
    zero = {"figures": {"peak": Figure(0.0)}}
    one = replace(SPEED, metric="peak", form="saving")
    assert evidence(one, [view(record("new/a", **zero), record("old/a", **zero))]) is None
    rate = Join("r", "a.run", of="new/*", metric="latency", per="read_bandwidth", effect=Effect())
    assert evidence(rate, [view(record("new/a"), ceilings={})]) is None
    assert evidence(rate, [view(record("new/a"), ceilings={"read_bandwidth": 0})]) is None
    assert evidence(replace(rate, per="", times="model.depth"), [view(record("new/a"))]) is None


def test_a_count_is_its_own_interval_and_a_rate_has_its_latencys():
    counted = Join("c", "a.run", of="new/*", metric="state", times="model.layers", exact=True, effect=Effect())
    one = found(counted, view(record("new/a", figures={"state": Figure(1152.0)})))
    assert one.figure == Figure(70272.0, 70272.0, 70272.0) and one.unit == "bytes"
    rate = Join("r", "a.run", of="new/*", metric="byte_rate", per="read_bandwidth", effect=Effect())
    figures = {"byte_rate": Figure(2e12)}
    here = view(record("new/a", figures=figures), ceilings={"read_bandwidth": 4e12})
    one = found(rate, here)
    assert (one.figure.value, one.figure.low, one.figure.high) == pytest.approx((0.5, 0.5 / 1.01, 0.5 / 0.99))
    assert one.unit == "share"


def seeds(*gains: float, operation: str = "a.run") -> View:
    pairs = [
        (record("new/a", 10.0, operation, f"s9-seed{n}"), record("old/a", 10.0 * gain, operation, f"s9-seed{n}"))
        for n, gain in enumerate(gains)
    ]
    return view(*(r for pair in pairs for r in pair), record("new/a", 1.0, sizes="s8-seed0"))


def test_a_mean_over_seeds_has_a_t_interval_from_three_on():
    join = replace(SPEED, pick="mean")
    one = found(join, seeds(1.1, 1.2, 1.3))
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (one.figure.value, one.figure.low, one.figure.high) == pytest.approx((1.2, 1.2 - half, 1.2 + half))
    assert one.cases == 3 and one.verdict == verdict.INCONCLUSIVE
    two = found(join, seeds(1.1, 1.2))
    assert two.figure.low is None and two.verdict == verdict.INCONCLUSIVE


def test_the_distance_of_a_mean_keeps_the_signs_of_its_seeds():
    here = seeds(1 / 0.996, 1 / 1.003, 1 / 1.002)  # changes of -0.4, +0.3 and +0.2 %
    one = found(replace(SPEED, pick="mean", form="distance"), here)
    assert one.figure.value == pytest.approx(0.001 / 3) and one.figure.low == 0.0
    assert one.figure.high == pytest.approx(4.303 * 0.003786 / math.sqrt(3) + 0.001 / 3, rel=1e-3)


def test_the_interval_of_a_share_ends_at_its_bounds():
    figures = [{"acceptance": Figure(value)} for value in (0.3, 0.9, 0.95)]
    records = [record("new/a", sizes=f"s9-seed{n}", figures=each) for n, each in enumerate(figures)]
    join = Join("accepted", "a.run", of="new/*", metric="acceptance", pick="mean", effect=Effect(0.8, 0.9))
    one = found(join, view(*records, metrics=made_objective.METRICS))
    assert (one.figure.low, one.figure.high, one.cases) == (0.0, 1.0, 3)


def test_the_best_case_is_told_from_how_many_and_follows_the_claims_direction():
    pairs = [(record("new/a", 10.0, sizes=s), record("old/a", v, sizes=s)) for s, v in (("s1", 12.0), ("s2", 25.0))]
    here = view(*(r for pair in pairs for r in pair))
    one = found(replace(SPEED, pick="best"), here)
    assert (one.case.first.sizes, one.cases) == ("s2", 2)
    less = replace(SPEED, pick="best", form="ratio", effect=Effect(none=1.0, larger=False))
    assert found(less, here).case.first.sizes == "s2"
    assert found(SPEED, here).case.first.sizes == "s1"


def test_a_gpu_comes_before_a_cpu_and_matching_conditions_before_both():
    cpu = view(record("new/a", 10.0), record("old/a", 20.0), device="cpu")
    gpu = view(record("new/a", 10.0), record("old/a", 30.0))
    assert found(SPEED, cpu, gpu).view is gpu
    narrow = replace(SPEED, conditions=(Condition("Machine", "CPU", "device", "*8480*|AMD*"),))
    one = found(narrow, gpu, cpu)
    assert one.view is cpu and one.comparable and one.verdict == verdict.REPRODUCED


CONDITIONS = [
    (Condition("Dtype", "BF16", "shape.model.dtype", "bfloat16"), True, "bfloat16"),
    (Condition("Dtype", "FP8", "shape.model.dtype", "float8*|fp8"), False, "bfloat16"),
    (Condition("Dtype", "FP8", "shape.model.dtype", "float8*", essential=False), True, "bfloat16"),
    (Condition("Depth", "61", "shape.model.depth", "61"), False, "not recorded"),
    (Condition("Kernel", "theirs", "contender", "new/theirs*"), False, "new/a"),
    (Condition("Over", "old", "over", "old/?"), True, "old/a"),
    (Condition("Model", "16B", ours="small"), False, "small"),
    (Condition("Model", "16B", ours="16B", same=True), True, "16B"),
]


@pytest.mark.parametrize(("condition", "comparable", "ours"), CONDITIONS)
def test_an_essential_condition_that_differs_makes_it_not_comparable(condition: Condition, comparable: bool, ours: str):
    one = found(replace(SPEED, conditions=(condition,)), view(record("new/a", 10.0), record("old/a", 20.0)))
    assert one.comparable is comparable and one.held[0].ours == ours
    assert (one.verdict == verdict.NOT_COMPARABLE) is not comparable


def linear(speed: float) -> list[Record]:
    """FP8 in the linear study, `speed` times as fast as BF16, and trainings that hardly differ."""
    found = []
    for operation, sizes in (("linear.fprop", "m4096-n7168-k16384"), ("linear.layer_train", "m8192-n4096-k7168")):
        found += [record("bf16/mm", 10.0 * speed, operation, sizes), record("fp8/triton", 10.0, operation, sizes)]
    for seed, change in enumerate((1.001, 0.9995, 1.0005)):
        for contender, bits in (("bf16/reference", 2.0), ("fp8/scaled-mm", 2.0 * change)):
            figures = {"smoothed_loss": Figure(bits)}
            found.append(record(contender, 5.0, "linear.loss", f"s120-seed{seed}", model="byte", figures=figures))
    return found


def test_claims_of_other_studies_join_as_soon_as_they_have_records():
    assert {verdicts()[name] for name in ("SEED-1", "V3-5", "V3-3", "SEED-MOE", "GR-1")} == {verdict.NOT_MEASURED}
    words = verdicts(view(*linear(1.6)))
    assert words["SEED-1"] == verdict.REPRODUCED
    assert words["V3-5"] == verdict.WEAKER
    assert words["V3-3"] == verdict.NOT_COMPARABLE
    assert words["DG-1"] == verdict.NOT_MEASURED
    assert verdicts(view(*linear(0.9)))["V3-5"] == verdict.CONTRADICTED
    assert verdicts(view(*linear(1.6), device="cpu"))["SEED-1"] == verdict.NOT_MEASURED
    mixture = [record("moe/triton", 10.0, "ffn.prefill"), record("dense-total/reference", 90.0, "ffn.prefill")]
    assert verdicts(view(*mixture))["SEED-MOE"] == verdict.REPRODUCED
    steps = [record("grpo/r", 1.0, "learning.step", figures={"peak": Figure(5e9)}),
             record("ppo/r", 1.0, "learning.step", figures={"peak": Figure(9e9)})]  # fmt: skip
    assert verdicts(view(*steps))["GR-1"] == verdict.REPRODUCED


def balance(seed: int, level: float, bits: float) -> list[Record]:
    values = {"bias": (level, bits), "expert-loss": (0.6, 1.45)}
    return [
        record(f"moe/{name}", 1.0, "ffn.balance", f"s60-seed{seed}",
               figures={"max_violation_global": Figure(most), "validation_bits": Figure(loss)})
        for name, (most, loss) in values.items()
    ]  # fmt: skip


def test_one_seed_concludes_nothing_about_balancing_three_may():
    one = verdicts(view(*balance(0, 0.2, 1.44)))
    assert one["LF-1"] == one["LF-2"] == verdict.INCONCLUSIVE
    three = verdicts(view(*(r for n in range(3) for r in balance(n, 0.2 + 0.01 * n, 1.45 + 0.02 * (n - 1)))))
    assert three["LF-1"] == verdict.WEAKER and three["LF-2"] == verdict.INCONCLUSIVE


def test_arithmetic_is_not_overruled_and_evidence_stands_beside_it():
    cache = [record("mla/x", 1.0, "attention.decode", figures={"state": Figure(1152.0)}),
             record("gqa/x", 1.0, "attention.decode", figures={"state": Figure(4096.0)})]  # fmt: skip
    shape = {"model": {"kv_heads": 8, "heads": 128}}
    judged = {one.claim.id: one for one in judge(LEDGER, [view(*(replace(r, shape=shape) for r in cache))])}
    one = judged["V2-1"]
    assert one.verdict == verdict.ARITHMETIC and [e.verdict for e in one.evidence] == [verdict.REPRODUCED]
    assert one.evidence[0].figure.value == pytest.approx(0.71875)


@pytest.fixture(scope="module")
def page(built: Built) -> str:
    return built.pages["claims.html"]


def cards(page: str) -> dict[str, str]:
    """Each card's markup by its claim's id."""
    parts = re.split(r'(?=<article class="card claim)', page)[1:]
    return {html.unescape(re.search(r'id="claim-([^"]+)"', part)[1]): part.split("</article>")[0] for part in parts}  # type: ignore[index]


def test_every_claim_has_a_card_with_verdict_quote_and_source(page: str):
    found = cards(page)
    assert set(found) == set(CLAIMS)
    for name, text in found.items():
        claim = CLAIMS[name]
        word = re.search(r'data-verdict="([^"]+)"', text)[1]  # type: ignore[index]
        assert word in verdict.RULES and f"</b> {word}</span>" in text
        assert f'data-study="{claim.study}"' in text
        quoted = text.split('class="side quoted"')[1].split("</div>")[0]
        assert ">Quoted<" in quoted and html.escape(claim.printed) in quoted
        assert html.escape(claim.source.document) in text and html.escape(claim.measure) in text
        assert (word == verdict.NOT_MEASURED) == (">Not measured here</p>" in text)


def test_nothing_quoted_looks_measured(page: str):
    for name, text in cards(page).items():
        quoted, ours = text.split('class="side quoted"')[1].split('class="side ours', 1)
        assert "here" not in re.sub(r"<[^>]+>", " ", quoted).split()
        label = re.search(r'class="label">([^<]+)<', ours)[1]  # type: ignore[index]
        assert label.split(" here")[0] in ("Measured", "Counted", "Simulated", "Recomputed", "Not measured"), name
        if " here ·" in label:
            assert 'href="' in ours and "/case/" in ours, "a figure of ours leads to its case"
        if label == "Not measured here":
            assert 'class="figure"' not in ours.split("</div>")[0]


def test_counts_and_rules_are_complete(page: str):
    found = Counter(re.findall(r'data-verdict="([^"]+)"', page))
    chips = page.split('data-name="verdict"')[1].split("</div>")[0]
    told = {html.unescape(word): int(n) for n, word in re.findall(r"</b> (\d+) ([^<]+)</button>", chips)}
    assert told == dict(found) and sum(told.values()) == len(LEDGER)
    lead = re.search(r'class="answer">([^<]+)<', page)[1]  # type: ignore[index]
    assert f"{len(LEDGER)} published claims" in lead and f"{told[verdict.NOT_MEASURED]} were not measured" in lead
    for rule in verdict.RULES.values():
        assert html.escape(rule) in page
    assert len(page.encode()) < 600_000


def test_the_page_is_in_the_navigation_and_on_the_overview(built: Built):
    for name, text in built.pages.items():
        if name == "summary.html":  # one file for itself
            continue
        up = "../" * name.count("/")
        assert f'<a href="{up}claims.html"' in text.split("<main")[0], name
    overview = built.pages["index.html"].split('id="claims"')[1].split("</section>")[0]
    assert "claims.html#claim-IS-1" in overview and "published claims" in overview


def test_no_word_of_a_claim_or_record_becomes_markup():
    evil = Claim(EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, Source(EVIL, EVIL, EVIL), EVIL, EVIL, EVIL, beside=EVIL,
                 joins=(replace(SPEED, what=EVIL, conditions=(Condition(EVIL, EVIL, "shape.x", EVIL),)),))  # fmt: skip
    shape = {"x": EVIL}
    records = [replace(record(f"{t}/a", 9.0, model=EVIL), implementation=EVIL, shape=shape) for t in ("new", "old")]
    judged = judge([evil], [view(*records, machine={"label": EVIL})])
    assert judged[0].evidence
    found = Elements(claims.page(judged) + claims.line(judged, "claims.html"))
    assert found.tags <= set(OURS.split()) and not [name for name in found.attributes if name.startswith("on")]
    assert sum("<img src=x" in text for text in found.texts) > 8


def test_a_run_of_nonsense_costs_nothing():
    broken: list[Any] = [None, [], "text", {"model": 3}, {"model": {"layers": "many"}}]
    records = [
        replace(record("mla/a", 1.0, "attention.decode", f"b128-s{n}", figures={"kv_bytes_per_token": Figure(0.0)}),
                shape=shape) for n, shape in enumerate(broken)
    ]  # fmt: skip
    header: dict[str, Any] = {"ceilings": {"matrix": 3}, "machine": {"label": None}}
    assert set(verdicts(view(*records, **header))) == set(CLAIMS)
    assert set(verdicts(View(Run(Path("x"), Header("r", "s", {}, {}, {}), ()), "r", "newest", Palette([]), Path("x"))))


PROBE = """<script>addEventListener("load", function () { setTimeout(function () {
  var shown = function () {
    return Array.from(document.querySelectorAll(".claim")).filter(function (c) { return c.offsetParent; }).length;
  };
  var first = shown(), heads = Array.from(document.querySelectorAll(".claims > .group"));
  var visible = heads.filter(function (h) { return h.offsetParent; }).length;
  document.querySelector('[data-name="study"] [value="linear"]').click();
  var both = shown(), hash = location.hash;
  document.querySelector('[data-name="verdict"] [aria-pressed="true"]').click();
  var wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.probe = [first, visible, both, shown(), wide, hash].join(" ");
}, 800); });</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [500, 1440])
def test_filters_and_permalinks_in_a_browser(built: Built, page: str, width: int, tmp_path: Path):
    assert BROWSER is not None
    shutil.copytree(built.folder, tmp_path / "site")
    target = tmp_path / "site" / "claims.html"
    target.write_text(page.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--enable-logging=stderr"]
    words += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([BROWSER, *words, f"{target.as_uri()}#verdict=arithmetic"], capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    probe = re.search(r'data-probe="(\d+) (\d+) (\d+) (\d+) (-?\d+) ([^"]+)"', done.stdout)
    assert probe is not None, done.stderr[-2000:]
    shown, groups, both, study, overflow = map(int, probe.groups()[:5])
    counted = Counter(re.findall(r'data-verdict="([^"]+)"', page))[verdict.ARITHMETIC]
    assert shown == counted and 0 < groups < len(card.STUDIES)
    assert both == sum(
        c.study == "linear" and verdict.settle(c.identity) == verdict.ARITHMETIC for c in LEDGER if c.identity
    )
    assert study == sum(c.study == "linear" for c in LEDGER)
    assert "verdict=arithmetic" in probe[6] and "study=linear" in probe[6]
    assert overflow <= 0, "the page scrolls sideways"
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
