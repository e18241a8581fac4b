"""What counts as exact: declared metrics, whole numbers, operators by name, allocations; and what has no memory."""

from __future__ import annotations

import pytest
import torch

from harness import Cost, Metric, Operation
from harness.baseline import parsed
from harness.binaries import Absent, compiling
from harness.facts import LISTED, Operators, contract_facts, plain, written_out
from harness.memory import measure


def operation(facts, series) -> Operation:
    return Operation(
        "toy.made",
        weights=lambda *_: None,
        inputs=lambda *_: None,
        cost=lambda shape, technique: Cost(12.0, 3.0, 4.0, "float32"),
        tokens=lambda shape: 1,
        baseline=(),
        metrics=(Metric("counted", "count", "lower", "Exact.", exact=0), Metric("felt", "ratio", "lower", "Noisy.")),
        facts=lambda shape, technique: facts,
        series=lambda shape, technique: series,
    )


def test_only_what_is_declared_exact_or_whole_is_kept_of_a_contract():
    one = operation({"counted": 3.0, "felt": 0.1234}, {"load": [2.0, 3], "error": [0.5, 1.0]})
    assert contract_facts(one, None, "any") == {"flops": 12, "bytes": 7, "counted": 3, "load": "2 3"}


def test_numbers_are_written_without_noise():
    assert plain(3.0) == 3 and isinstance(plain(3.0), int)
    assert plain(1 / 3) == plain(1 / 3 + 1e-12) == 0.333333333


def test_a_long_series_is_a_digest_that_any_number_changes():
    long = list(range(LISTED + 1))
    assert written_out(long[:-1]) == " ".join(map(str, long[:-1]))
    assert written_out(long).startswith(f"{LISTED + 1} numbers, digest ")
    assert written_out(long) != written_out([*long[:-1], 0])
    for short in ([], [1.0], [-3.0], [1.0, 2.0]):
        assert parsed(str(written_out(short))) == written_out(short)


def test_operators_are_counted_with_those_of_the_gradient():
    x = torch.ones(3, 3, requires_grad=True)
    with Operators() as seen:
        (x @ x).sum().backward()
    assert seen.counts["mm"] == 3  # one product, and two for its gradients
    assert seen.facts()["operators"] == seen.counts.total()
    assert "mm 3" in str(seen.facts()["operator_list"]).split(", ")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_allocations_are_counted(count):
    assert measure(lambda: [torch.empty(8) for _ in range(count)], "cpu")[1].allocations == count


def test_what_is_drawn_absent_has_sizes_and_no_memory():
    generator = Absent()
    x = torch.randn(1 << 20, 1 << 20, generator=generator, device=generator.device)
    assert x.shape == (1 << 20, 1 << 20) and x.device.type == "meta"
    assert generator.manual_seed(3).initial_seed() == 3


def test_compiling_leaves_triton_and_torch_as_they_were():
    runtime = pytest.importorskip("triton.runtime")
    before = (runtime.jit.JITFunction.run, torch.cuda.get_device_properties)
    with pytest.raises(KeyError), compiling():
        assert torch.cuda.get_device_properties(0).multi_processor_count == 132
        raise KeyError
    assert (runtime.jit.JITFunction.run, torch.cuda.get_device_properties) == before
