"""The ledger as data: every claim whole, sums against numbers worked out by hand and the suite's cost models, rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benches.mixtures import ffn_shape
from benches.models import attention_shape
from harness.record import Figure
from impls.attention import cost as attention_cost
from impls.ffn import cost as ffn_cost
from reports.claims import LEDGER, card, formulas, verdict
from reports.claims.claim import Claim, Effect, Sum
from reports.claims.evidence import Judged

ROOT = Path(__file__).parents[2]
IDS = (
    [f"V2-{n}" for n in range(1, 9)] + [f"MoE-{n}" for n in range(1, 7)] + [f"LF-{n}" for n in range(1, 4)]
    + [f"V3-{n}" for n in range(1, 17)] + [f"IS-{n}" for n in range(1, 8)] + ["FM-1a", "FM-1b", "FM-2", "DG-1", "DG-2"]
    + [f"DE-{n}" for n in range(1, 4)] + ["EP-1", "IN-1", "PD-1", "GR-1", "GR-2", "GR-3", "R1-1", "R1-1b"]
    + [f"R1-{n}" for n in range(2, 6)] + ["G24-1", "G24-2"]
    + ["SEED-1", "SEED-MOE", "SEED-MLA", "SEED-MTP", "SEED-GRPO", "SEED-PRICE", "SEED-COST"]
)  # fmt: skip
CLAIMS = {claim.id: claim for claim in LEDGER}


def sums(claim: str) -> dict[str, Sum]:
    return {one.what: one for one in (*CLAIMS[claim].identity, *CLAIMS[claim].checks)}


def test_every_published_claim_is_there_once():
    assert sorted(claim.id for claim in LEDGER) == sorted(IDS)


@pytest.mark.parametrize("claim", LEDGER, ids=lambda claim: claim.id)
def test_a_claim_says_what_where_and_how(claim: Claim):
    texts = (claim.title, claim.statement, claim.printed, claim.conditions, claim.measure, claim.source.document)
    assert all(text.strip() == text and text for text in texts)
    assert claim.study in card.STUDIES
    assert claim.source.place or "repository" in claim.source.document
    assert claim.identity or claim.joins or claim.takes, "nothing would ever answer it"
    for join in claim.joins:
        assert join.operation.count(".") == 1 and join.what and (join.over or join.form == "value")
        effect = join.effect
        assert (effect.low is None) == (effect.high is None)
        assert effect.low is None or effect.low <= effect.high
        for one in join.conditions:
            assert bool(one.field) == bool(one.match) and bool(one.field) != bool(one.ours)


PRINTED = {
    "V2-1": {"Saving as published": 0.93339, "Architecture": 3.5556, "Baseline": 1.5833, "Precision": 2.6667,
             "All three": 15.0123, "Without the precision": 0.82237, "Against MHA instead": 0.98242},
    "IS-1": {"DeepSeek-V3, MLA": 70272, "Qwen2.5-72B, GQA": 327680, "LLaMA-3.1-405B, GQA": 516096,
             "Qwen over V3": 4.6630, "LLaMA over V3": 7.3443},
    "V2-5": {"In all": 235.741e9, "A token's": 21.3751e9},
    "V3-1": {"In all": 671.025e9, "With the input embedding": 37.5513e9,
             "A token's, without the input embedding": 36.6246e9},
    "IS-2": {"DeepSeek-V2": 155.304e9, "DeepSeek-V3": 250.450e9, "LLaMA-3.1-405B": 2473.22e9, "Qwen-72B": 444.856e9},
    "V2-4": {"From the printed hours": 0.42515, "From FLOPs a token": 0.62902},
    "V2-6": {"16B: MLA over MHA": 0.140625, "250B: MLA over MHA": 0.040179},
    "V3-14": {"1F1B": 45, "ZB1P": 15, "DualPipe, no overlap": 14, "DualPipe, full overlap": 7},
    "IS-3": {"A layer, 50 GB/s": 120960, "A layer, 900 GB/s": 6720, "A token, 50 GB/s": 14.75712e6},
    "IN-1": {"Margin": 5.45474},
    "R1-5": {"Dollars": 294e3, "R1-Zero's hours": 101376},
    "SEED-MLA": {"MHA": 32768, "MLA, absorbed": 139264, "MLA over MHA": 4.25},
    "IS-6": {"With an FP32 scale for each 128": 0.484375},
    "SEED-PRICE": {"Input": 0.036667, "Output": 0.0365},
}  # fmt: skip


@pytest.mark.parametrize("claim", PRINTED)
def test_sums_are_what_was_worked_out_by_hand(claim: str):
    found = sums(claim)
    for what, value in PRINTED[claim].items():
        assert found[what].value == pytest.approx(value, rel=5e-5), what


def test_decomposition_of_the_cache_multiplies_out():
    found = sums("V2-1")
    factors = [found[name].value for name in ("Architecture", "Baseline", "Precision")]
    assert factors[0] * factors[1] * factors[2] == pytest.approx(found["All three"].value)
    assert 1 - 1 / found["All three"].value == pytest.approx(found["Saving as published"].value)
    assert 1 - 1 / (factors[0] * factors[1]) == pytest.approx(found["Without the precision"].value)
    assert 1 - 1 / factors[0] == pytest.approx(found["Architecture alone"].value)


def test_two_claims_are_inconsistent_as_published_and_why():
    wrong = {claim.id: [one.what for one in claim.identity if not one.agrees] for claim in LEDGER if claim.identity}
    assert {name: found for name, found in wrong.items() if found} == {"IS-1": ["LLaMA over V3"], "IS-2": ["Qwen-72B"]}
    assert verdict.settle(CLAIMS["IS-1"].identity) == verdict.INCONSISTENT
    assert verdict.settle(CLAIMS["V2-1"].identity) == verdict.ARITHMETIC


SHAPES = {"v2-lite": formulas.V2_LITE, "v2": formulas.V2, "v3": formulas.V3, "qwen2.5-72b": formulas.QWEN_72B,
          "llama-3.1-405b": formulas.LLAMA_405B}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_formulas_are_the_suites_own_cost_models(name: str):
    model = SHAPES[name]
    _, shape = attention_shape(name)
    technique = "mla" if model.latent else "gqa"
    assert formulas.attention_parameters(model) == attention_cost.parameters(shape, technique)
    assert formulas.kv_bytes(model) == attention_cost.kv_bytes(shape, technique) * model.layers
    assert formulas.kv_bytes(model, heads=model.heads) == attention_cost.kv_bytes(shape, "mha") * model.layers
    if model.experts:
        _, mixture = ffn_shape(name)
        for active in (False, True):
            layers = model.layers - model.experts.dense_layers
            dense = model.experts.dense_layers * 3 * model.hidden * model.width
            expected = layers * ffn_cost.parameters(mixture, "moe", active) + dense
            assert formulas.feed_forward_parameters(model, active) == expected


def test_arithmetic_of_absorption_is_the_cost_models():
    _, shape = attention_shape("v3")
    sizes = {name: sum(attention_cost._cached_sizes(shape, name)) * shape.heads for name in ("mla", "mha")}
    assert formulas.cached_token_products(formulas.V3, absorbed=True) == sizes["mla"]
    assert formulas.cached_token_products(formulas.V3, absorbed=False) == sizes["mha"]


GAIN = Effect(1.55, 1.65, none=1.0)
LOSS = Effect(0.05, 0.08, none=1.0, larger=False)
BOUND = Effect(0.0, 0.0025, none=0.0025, larger=False)
RATE = Effect(890.0, 900.0)
WAY = Effect(none=1.0)
LESS = Effect(none=1.0, larger=False)


@pytest.mark.parametrize(
    ("low", "high", "effect", "expected"),
    [
        (1.50, 1.56, GAIN, verdict.REPRODUCED),
        (1.64, 1.90, GAIN, verdict.REPRODUCED),
        (1.66, 1.90, GAIN, verdict.STRONGER),
        (1.10, 1.54, GAIN, verdict.WEAKER),
        (0.80, 0.99, GAIN, verdict.CONTRADICTED),
        (0.90, 1.70, GAIN, verdict.INCONCLUSIVE),
        (1.20, 1.60, GAIN, verdict.INCONCLUSIVE),
        (0.06, 0.07, LOSS, verdict.REPRODUCED),
        (0.01, 0.04, LOSS, verdict.STRONGER),
        (0.20, 0.40, LOSS, verdict.WEAKER),
        (1.20, 1.40, LOSS, verdict.CONTRADICTED),
        (0.07, 0.70, LOSS, verdict.INCONCLUSIVE),
        (0.001, 0.002, BOUND, verdict.REPRODUCED),
        (0.003, 0.004, BOUND, verdict.CONTRADICTED),
        (0.001, 0.004, BOUND, verdict.INCONCLUSIVE),
        (880.0, 895.0, RATE, verdict.REPRODUCED),
        (700.0, 710.0, RATE, verdict.WEAKER),
        (910.0, 920.0, RATE, verdict.STRONGER),
        (300.0, 895.0, RATE, verdict.INCONCLUSIVE),
        (1.01, 9.00, WAY, verdict.REPRODUCED),
        (0.50, 0.90, WAY, verdict.CONTRADICTED),
        (0.90, 1.10, WAY, verdict.INCONCLUSIVE),
        (4.25, 4.25, LESS, verdict.CONTRADICTED),
        (1.00, 1.00, LESS, verdict.CONTRADICTED),
        (0.42, 0.42, LESS, verdict.REPRODUCED),
    ],
)
def test_rules(low: float, high: float, effect: Effect, expected: str):
    figure = Figure((low + high) / 2, low, high)
    assert verdict.judge(figure, effect) == expected
    assert verdict.judge(figure, effect, comparable=False) == verdict.NOT_COMPARABLE


def test_without_an_interval_nothing_is_concluded():
    assert verdict.judge(Figure(1.6), GAIN) == verdict.INCONCLUSIVE


def test_each_verdict_has_a_rule_a_sign_and_a_place():
    assert set(verdict.RULES) == set(verdict.SIGNS) and len(set(verdict.SIGNS.values())) == len(verdict.SIGNS) == 9
    assert set(card.KINDS) < set(verdict.RULES)


def test_a_claim_is_arithmetic_first_and_not_measured_last():
    assert Judged(CLAIMS["V2-1"], ()).verdict == verdict.ARITHMETIC
    assert Judged(CLAIMS["V3-5"], ()).verdict == verdict.NOT_MEASURED


def test_the_ledger_needs_no_torch():
    code = "import reports.claims, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
