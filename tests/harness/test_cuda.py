"""On a GPU: work on another stream, hidden synchronisation, lost contexts, exhausted memory; which clock is used."""

from __future__ import annotations

import pytest
import torch

from tests.harness.conftest import Checkout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CASE = "toy.product/square/n256"

CONTENDERS = """
def declare(setup):
    return implementation("toy.product", technique="plain", kind="optimized")(setup)

@declare
def on_another_stream(w, shape):
    side = torch.cuda.Stream()
    y = torch.zeros(shape.size, shape.size, device="cuda")
    def call(x):
        with torch.cuda.stream(side):
            torch.mm(x, w, out=y)
        return y
    return call

@declare
def on_another_stream_after_a_wait(w, shape):
    side = torch.cuda.Stream()
    def call(x):
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x @ w
        torch.cuda.current_stream().wait_stream(side)
        y.record_stream(torch.cuda.current_stream())
        return y
    return call

@declare
def synchronises(w, shape):
    def call(x):
        y = x @ w
        return y * 1.0 if y[0, 0].item() < 1e30 else y
    return call

@declare
def waits_on_the_host(w, shape):
    def call(x):
        time.sleep(0.001)
        return x @ w
    return call

@declare
def wants_all_memory(w, shape):
    return lambda x: torch.ones(2**42, device="cuda")

@declare
def asserts_on_the_device(w, shape):
    def call(x):
        return x[torch.full((4,), 10**6, device="cuda")]
    return call

@declare
def returns_a_cpu_tensor(w, shape):
    return lambda x: (x @ w).cpu()

@declare
def honest(w, shape):
    return lambda x: torch.mm(x, w)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("cuda"))
    path = checkout.implementation(CONTENDERS)
    _, run = checkout.measure("--impl", path, "--case", CASE, device="cuda")
    return {r.implementation: r for r in run.records if r.case == CASE}


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("on_another_stream", "incorrect", ""),
        ("wants_all_memory", "oom", ""),
        ("asserts_on_the_device", "crashed", ""),
        ("on_another_stream_after_a_wait", "passed", ""),
        ("synchronises", "passed", ""),
        ("waits_on_the_host", "passed", ""),
        ("honest", "passed", ""),
        ("reference", "passed", ""),
    ],
)
def test_each_ends_as_it_must(records, name, status, said):
    record = records[name]
    assert record.status == status, record.reason
    assert said in (record.reason or "")
    assert (record.status == "passed") == bool(record.figures)


def test_the_record_says_which_clock_was_used(records):
    assert records["honest"].timing["clock"] == "events"
    assert records["on_another_stream_after_a_wait"].timing["clock"] == "events"
    assert records["synchronises"].timing["clock"] == "host-bound"


def test_time_spent_on_the_host_is_not_device_time(records):
    """A queue that is full by the time the gate opens hides a millisecond of host work; the submit time shows it."""
    slow = records["waits_on_the_host"]
    if slow.timing["clock"] == "events":
        assert slow.value("submit") > 1e6
        assert slow.value("latency") < 0.5e6
    else:
        assert slow.value("latency") > 1e6


def test_memory_of_a_call_is_what_it_allocates(records):
    assert 256 * 256 * 4 <= records["honest"].value("peak") <= 2 * 256 * 256 * 4 + 2**20
