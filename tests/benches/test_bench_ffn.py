"""The ffn study's lists and shapes: sizes, bounds, names, for the default model, every bundled one and a user's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benches.bench_ffn import LAYER_BYTES, SMALL_BYTES, STUDY, Model, workloads
from benches.mixtures import ffn_shape
from benches.models import MODELS
from harness.case import TIERS
from harness.record import read_run
from impls.ffn import recorded
from impls.ffn.shape import FfnShape, Router
from impls.model.shape import parameters

ROOT = Path(__file__).parents[2]
OPERATIONS = {f"ffn.{name}" for name in ("decode", "prefill", "train", "route", "select", "permute", "experts")}
TRIAL = "ffn.balance"
ROUTER = ("ffn.route", "ffn.select")  # of all experts, which take no memory there
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 256,
    "moe_intermediate_size": 48,
    "n_routed_experts": 24,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
}
QWEN = {"model_type": "qwen2_moe", "num_experts": 8}
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 4, "intermediate_size": 64}


@pytest.fixture
def written(tmp_path):
    """Writes a config.json with some fields changed; None leaves one out."""

    def write(**changes) -> str:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps({k: v for k, v in {**DEEPSEEK, **changes}.items() if v is not None}))
        return str(path)

    return write


@pytest.fixture(params=[None, *MODELS, "mine"])
def listed(request, written):
    return workloads(written() if request.param == "mine" else request.param)


def test_ids_are_unique_and_say_what_is_measured(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    seen = {}
    for workload in listed:
        assert workload.study == STUDY and workload.tiers and set(workload.tiers) <= set(TIERS)
        key = (workload.operation, workload.model, workload.shape)
        assert seen.setdefault(key, workload.id) == workload.id
        if workload.operation == TRIAL:
            assert workload.sizes == f"s{workload.shape.recipe.steps}"
            continue
        assert f"t{workload.shape.tokens}" in workload.sizes.split("-")
        assert ("zipf" in workload.sizes) == (workload.shape.skew > 0)
        assert ("recorded" in workload.sizes) == (workload.shape.recorded == recorded.digest())
        assert ("fp32" in workload.sizes) == (workload.shape.model.dtype == "float32")


def test_tiers_cover_every_operation_and_keep_to_their_size(listed):
    by_tier = {tier: [w for w in listed if tier in w.tiers] for tier in TIERS}
    trial = {w.operation for w in listed} & {TRIAL}  # of the study's own models, in the CPU's tiers
    for tier, found in by_tier.items():
        assert {w.operation for w in found} == OPERATIONS | (trial if tier in ("smoke", "cpu") else set()), tier
    assert len(by_tier["smoke"]) == len(OPERATIONS | trial)
    assert len(by_tier["cpu"]) <= 12 and len(by_tier["gpu"]) <= 40
    for tier in ("cpu", "gpu", "full"):
        assert any(w.operation == "ffn.prefill" and "recorded" in w.sizes for w in by_tier[tier]), tier
    assert set(by_tier["gpu"]) <= set(by_tier["full"])


def test_the_default_study_trains_two_arms_and_a_chosen_model_trains_nothing():
    trials = [w for w in workloads(None) if w.operation == TRIAL]
    assert [(w.id, w.tiers) for w in trials] == [
        ("ffn.balance/byte-moe-d64/s60", ("smoke",)),
        ("ffn.balance/byte-moe-d64/s240", ("cpu",)),
    ]
    assert all(w.shape.arms == ("none", "bias") for w in trials)
    assert not [w for w in workloads("v3") if w.operation == TRIAL]


def test_small_machines_get_small_layers_in_fp32(listed):
    for workload in listed:
        small = {"smoke", "cpu"} & set(workload.tiers)
        if workload.operation == TRIAL:
            assert workload.shape.shape.ffn.dtype == "float32" and parameters(workload.shape.shape) < 1e6
            continue
        assert workload.shape.model.dtype == ("float32" if small else "bfloat16")
        if small and workload.operation not in ROUTER:
            assert Model("", workload.shape.model).bytes <= SMALL_BYTES


def test_a_gpu_gets_layers_that_fit():
    for workload in workloads(None):
        if "gpu" in workload.tiers and workload.operation not in ROUTER:
            assert Model("", workload.shape.model).bytes <= LAYER_BYTES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v3", FfnShape(7168, 2048, 1, Router(256, 8, "sigmoid", 8, 4, True, 2.5))),
        ("v2", FfnShape(5120, 1536, 2, Router(160, 6, "softmax", 8, 3, False, 16.0))),
        ("v2-lite", FfnShape(2048, 1408, 2, Router(64, 6))),
        ("mixtral-8x7b", FfnShape(4096, 14336, 0, Router(8, 2, normalise=True))),
        ("qwen3-235b-a22b", FfnShape(4096, 1536, 0, Router(128, 8, normalise=True))),
        ("llama-3.1-8b", FfnShape(4096, 1792, 2, Router(64, 6))),  # converted: as many active parameters
    ],
)
def test_bundled_models_have_their_published_sizes(name, expected):
    assert ffn_shape(name) == (name, expected)


def test_a_file_gives_its_own(written):
    shape = FfnShape(256, 48, 1, Router(24, 3, "sigmoid", 4, 2, True, 1.5))
    assert ffn_shape(written()) == ("mine", shape)
    assert ffn_shape(written(n_shared_experts=None))[1].shared == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_routed_experts": None}, 'missing n_routed_experts; model_type is "deepseek_v3", expected that of a dense'),
        ({"n_routed_experts": None, "moe_intermediate_size": None}, "missing n_routed_experts, moe_intermediate_size"),
        ({"num_experts_per_tok": 25}, "num_experts_per_tok is 25, expected at most n_routed_experts, 24"),
        ({"num_experts_per_tok": 13}, "num_experts_per_tok is 13, expected at most 12: topk_group, 2, of n_group, 4"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0"),
        ({"n_group": 5}, "n_group is 5, expected a divisor of n_routed_experts, 24"),
        ({"n_group": 48}, "n_group is 48, expected a divisor of n_routed_experts, 24"),
        ({"topk_group": 9}, "topk_group is 9, expected at most n_group, 4"),
        ({"routed_scaling_factor": math.nan}, "routed_scaling_factor is NaN"),
        ({**QWEN, "num_experts_per_tok": 9}, "num_experts_per_tok is 9, expected at most num_experts, 8"),
        ({**QWEN, "num_experts": None}, 'missing num_experts; model_type is "qwen2_moe"'),
        ({**QWEN, "shared_expert_intermediate_size": 50}, "shared_expert_intermediate_size is 50, expected a multiple"),
        ({**MIXTRAL, "num_experts_per_tok": 5}, "num_experts_per_tok is 5, expected at most num_local_experts, 4"),
        ({"model_type": "gpt_oss"}, 'model_type is "gpt_oss", expected one of llama, '),
        ({"model_type": "llama", "intermediate_size": 640}, "n_routed_experts is 24, expected none where model"),
        ({"n_routed_experts": "many"}, 'n_routed_experts is "many"'),
        ({"moe_intermediate_size": -4}, "moe_intermediate_size is -4"),
        ({"scoring_func": "tanh"}, 'scoring_func is "tanh"'),
        ({"routed_scaling_factor": 0}, "routed_scaling_factor is 0"),
        ({"model_type": "mixtral"}, "missing"),
        ({"model_type": "llama"}, "missing intermediate_size"),
        ({"model_type": "llama", "intermediate_size": 4}, "intermediate_size is 4"),
    ],
)
def test_impossible_configurations_name_the_field(written, changes, said):
    with pytest.raises(ValueError, match=r"mine\.json") as refused:
        workloads(written(**changes))
    assert said in str(refused.value)


def make_bench(*words: str) -> subprocess.CompletedProcess[str]:
    """`make bench STUDY=ffn TIER=smoke DEVICE=cpu` without its report, as make calls it."""
    words = ("--study", "ffn", "--tier", "smoke", "--device", "cpu", *words)
    command = [sys.executable, "-m", "pytest", "benches", "-q", "-rfE", "-p", "no:cacheprovider", "--benchmark-quiet"]
    return subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_make_bench_says_what_is_wrong_with_a_model_and_nothing_else(written, tmp_path):
    model = written(num_experts_per_tok=25, n_group=5)
    found = make_bench("--model", model, "--runs", str(tmp_path / "runs"))
    assert found.returncode == 4 and not list((tmp_path / "runs").glob("*/*"))
    said = "num_experts_per_tok is 25, expected at most n_routed_experts, 24; n_group is 5, expected a divisor of"
    assert f"{model}: {said}" in found.stdout + found.stderr and "Traceback" not in found.stdout + found.stderr


NAN = """
from dataclasses import replace
import torch
from harness import implementation
from impls.ffn.reference import mixture_forward


@implementation("ffn.decode", technique="moe", kind="optimized", name="lost")
def lost(w, shape):
    "One expert's logits are lost."
    matrix_ED = w.router.matrix_ED.clone()
    matrix_ED[3] = torch.nan
    damaged = replace(w, router=replace(w.router, matrix_ED=matrix_ED))
    return lambda inputs: mixture_forward(damaged, inputs.x_MD)
"""


def test_router_logits_that_are_not_numbers_are_a_wrong_result_with_a_reason(written, tmp_path):
    (tmp_path / "lost.py").write_text(NAN)
    words = ["--model", written(), "--impl", str(tmp_path / "lost.py"), "--runs", str(tmp_path / "runs")]
    found = make_bench(*words, "--budget", "20", "-k", "decode and (lost or reference)")
    records = read_run(next((tmp_path / "runs").iterdir())).records
    lost = next(record for record in records if record.implementation == "lost")
    assert lost.status == "incorrect" and not lost.figures and "holds NaN in " in lost.reason, lost.reason
    assert lost.reason in found.stdout and found.returncode == 1
