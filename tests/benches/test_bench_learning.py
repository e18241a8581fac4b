"""The learning study's lists: what is measured where, and at what sizes."""

from __future__ import annotations

import pytest

from benches.bench_learning import STUDY, V3_SYMBOLS, workloads
from harness.case import TIERS
from harness.registry import load
from impls.learning.learner import FORMS
from impls.model.shape import parameters

OPERATIONS = {f"learning.{name}" for name in ("rollout", "reward", "update", "logprob", "step")}


@pytest.fixture(scope="module")
def listed():
    return workloads(None)


def test_tiers_cover_every_operation_and_keep_to_their_size(listed):
    for tier, most in (("smoke", 5), ("cpu", 12), ("gpu", 40), ("full", 60)):
        found = [workload for workload in listed if tier in workload.tiers]
        assert {workload.operation for workload in found} == OPERATIONS and len(found) <= most, tier


def test_ids_are_unique_and_name_the_study(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    assert all(one.study == STUDY and one.tiers and set(one.tiers) <= set(TIERS) for one in listed)


def test_a_gpu_takes_a_model_of_a_hundred_million_parameters_and_v3s_symbols(listed):
    gpu = [workload for workload in listed if "gpu" in workload.tiers]
    for workload in gpu:
        if workload.operation in ("learning.rollout", "learning.update", "learning.step"):
            assert parameters(workload.shape.model) >= 100e6
    logged = [one.shape for one in gpu if one.operation == "learning.logprob"]
    assert logged and all((shape.rows, shape.symbols) == (4096, V3_SYMBOLS) for shape in logged)


def test_symbols_that_must_be_equal_are_sampled_in_fp32(listed):
    for workload in listed:
        if workload.operation == "learning.rollout":
            assert workload.shape.model.attention.dtype == "float32" and workload.sizes.endswith("fp32")


def test_every_case_has_its_pair(listed):
    known = load("impls").implementations
    pairs = {"learning.rollout": {"grpo/reference", "grpo/shared"}, "learning.reward": {"grpo/reference"}}
    pairs |= {"learning.logprob": {"grpo/reference", "grpo/chunked"}}
    pairs |= {"learning.step": {f"{technique}/{form}" for technique in ("ppo", "grpo") for form in FORMS}}
    for workload in listed:
        able = {
            one.contender
            for one in known[workload.operation].values()
            if not one.needs and one.kind != "compiled" and one.supports(workload.shape) is None
        }
        assert able >= pairs.get(workload.operation, {"ppo/reference", "grpo/reference", "ppo/chunked", "grpo/chunked"})


def test_a_named_model_has_no_weights_here():
    assert workloads("v3") == []
