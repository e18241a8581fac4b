"""The objective study's lists: what is measured where, names, and weights that are at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benches.bench_objective import STUDY, workloads
from harness.case import TIERS
from harness.registry import load
from impls.objective.weights import MODEL, RECIPE

OPERATIONS = {f"objective.{name}" for name in ("train_step", "generate", "loss")}


@pytest.fixture(scope="module")
def listed():
    return workloads(None)


def test_tiers_cover_every_operation_and_keep_to_their_size(listed):
    for tier, most in (("smoke", 3), ("cpu", 8), ("gpu", 40), ("full", 60)):
        found = [workload for workload in listed if tier in workload.tiers]
        assert {workload.operation for workload in found} == OPERATIONS and len(found) <= most, tier
    assert all("full" in workload.tiers for workload in listed if "gpu" in workload.tiers)


def test_ids_are_unique_and_say_what_is_measured(listed):
    ids = [workload.id for workload in listed]
    assert len(set(ids)) == len(ids)
    for workload in listed:
        assert workload.study == STUDY and workload.tiers and set(workload.tiers) <= set(TIERS)
        model = workload.shape.model
        said = workload.sizes.split("-")
        assert ("fp32" in said) == (model.attention.dtype == "float32")
        assert (f"depth{model.depth}" in said) == (model.depth > 1)
        assert workload.model == f"byte-{model.feed}-{model.technique}-d{model.hidden}"


def test_small_machines_generate_with_recorded_weights_in_fp32(listed):
    for workload in listed:
        if {"smoke", "cpu"} & set(workload.tiers):
            assert workload.shape.model.attention.dtype == "float32"
            if workload.operation == "objective.generate":
                assert (workload.shape.model, workload.shape.recipe) == (MODEL, RECIPE)
        if workload.operation == "objective.generate":  # tokens must be equal, which 16 bits cannot promise
            assert workload.shape.model.attention.dtype == "float32" and workload.shape.model.objective == "mtp"


def test_seeds_differ_in_nothing_else(listed):
    for tier, count in (("smoke", 1), ("cpu", 3), ("gpu", 3)):
        found = [w.shape for w in listed if w.operation == "objective.loss" and tier in w.tiers]
        assert [shape.recipe.seed for shape in found] == list(range(count))
        assert len({replace(shape, recipe=replace(shape.recipe, seed=0)) for shape in found}) == 1


def test_every_case_has_its_pair(listed):
    known = load("impls").implementations
    for workload in listed:
        able = {
            one.contender
            for one in known[workload.operation].values()
            if one.kind != "compiled" and not one.needs and one.supports(workload.shape) is None
        }
        pairs = {"objective.generate": {"ntp/cached", "mtp/cached", "mtp/refused"}}
        pairs["objective.train_step"] = {"ntp/chunked", "mtp/chunked", "mtp-parallel/chunked"}
        assert able >= pairs.get(workload.operation, {"ntp/reference", "mtp/reference", "mtp-parallel/reference"})


def test_a_named_model_has_no_weights_here():
    assert workloads("v3") == []
