"""The lists of the study of whole models: what is measured where, and who takes part."""

from __future__ import annotations

import pytest
import torch

from benches.bench_model import IN_FP8, PLAIN, SIXTEEN, STUDY, workloads
from benches.ladder_plan import METRICS
from harness.case import TIERS
from harness.registry import load
from impls.composed.combination import FEW, Combination
from impls.composed.ladder_trial import METRICS as TRIAL
from impls.composed.operations import TURNED

OPERATIONS = {f"model.{name}" for name in ("train_step", "prefill", "generate", "ladder")}


@pytest.fixture(scope="module")
def listed():
    return workloads(None)


def able(workload, gpu: bool = False) -> set[str]:
    """Contenders that can run a case, without a GPU or with one and all packages."""
    return {
        one.contender
        for one in load("impls").implementations[workload.operation].values()
        if one.kind != "compiled" and (gpu or not one.needs) and one.supports(workload.shape) is None
    }


def test_tiers_cover_every_operation_and_keep_to_their_size(listed):
    for tier, most in (("smoke", 4), ("cpu", 8), ("gpu", 12), ("full", 30)):
        found = [workload for workload in listed if tier in workload.tiers]
        assert {workload.operation for workload in found} == OPERATIONS and len(found) <= most, tier
    assert all("full" in workload.tiers for workload in listed if "gpu" in workload.tiers)


def test_ids_are_unique_and_say_what_is_measured(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    for workload in listed:
        assert workload.study == STUDY and workload.tiers and set(workload.tiers) <= set(TIERS)
        said, model = workload.sizes.split("-"), workload.shape.model
        assert f"d{model.hidden}" in workload.model and f"l{model.layers}" in workload.model
        if workload.operation != "model.ladder":
            assert ("fp32" in said) == (model.attention.dtype == "float32")


def test_no_combination_that_is_asked_for_is_refused(listed):
    """Each takes part with a reference and an optimized implementation."""
    for workload in listed:
        found = able(workload, gpu=workload.shape.model.attention.dtype == "bfloat16")
        assert {name.split("/")[0] for name in found} == set(workload.shape.combinations), workload.id
        if workload.operation != "model.ladder":
            assert len(found := able(workload)) == 2 * len(workload.shape.combinations), workload.id


def test_all_sixteen_take_a_step_and_a_few_climb_on_a_cpu(listed):
    cpu = [workload for workload in listed if "cpu" in workload.tiers]
    steps = [workload.shape for workload in cpu if workload.operation == "model.train_step"]
    assert {name for shape in steps for name in shape.combinations} == set(SIXTEEN) == {*PLAIN, *IN_FP8}
    assert len({shape.batch * shape.length for shape in steps}) == 1
    assert [w.shape.combinations for w in cpu if w.operation == "model.ladder"] == [FEW]
    assert sorted(w.shape.batch for w in cpu if w.operation == "model.generate") == [1, 1, 8]


def test_limits_are_tight_wherever_nothing_is_in_fp8(listed):
    operations = load("impls").operations
    for workload in listed:
        name = workload.operation.split(".")[1]
        if name in TURNED:
            floor = operations[workload.operation].allowed(workload.shape, "cpu")
            single = workload.shape.model.attention.torch_dtype == torch.float32
            any_in_fp8 = any(Combination.named(one).linear == "fp8" for one in workload.shape.combinations)
            assert floor == ((TURNED[name] if any_in_fp8 else None) if single else (2**-8, 2**-5))


def test_the_ladder_and_its_shortened_form_have_one_vocabulary():
    assert {metric.name: metric for metric in TRIAL}.items() <= METRICS.items()


def test_a_named_model_has_no_weights_here():
    assert workloads("v3") == []


def test_no_contender_is_compiled_ahead_of_time_at_a_gpus_sizes():
    """The exact gate sets up whoever needs Triton on a machine without a GPU: gigabytes of weights, and loops over
    experts that ask what they chose."""
    known = load("impls").implementations
    assert not [one for name in OPERATIONS - {"model.ladder"} for one in known[name].values() if "triton" in one.needs]
