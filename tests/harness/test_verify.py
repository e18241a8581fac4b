"""How a result is judged: distances, limits, what a call may write, and layouts of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import Cost, Operation, Prepared, verify
from harness.clock import CacheFlush
from harness.entrant import Entrant, Side
from harness.registry import Registry, implementation
from harness.tree import cast, clone, named_tensors, storage_bytes


@dataclass(frozen=True)
class Step:
    """A new row for a log whose slot is preallocated, and the log."""

    x_BD: torch.Tensor
    log_BSD: torch.Tensor


@dataclass(frozen=True)
class LogShape:
    rows: int = 3
    slots: int = 5
    size: int = 8


def draw_step(shape, technique, generator):
    x = torch.randn(shape.rows, shape.size, generator=generator)
    return Step(x, torch.randn(shape.rows, shape.slots, shape.size, generator=generator))


APPEND = Operation(
    "log.append",
    weights=lambda shape, technique, generator: torch.randn(shape.size, shape.size, generator=generator),
    inputs=draw_step,
    cost=lambda shape, technique: Cost(1, 1, 1, "float32"),
    tokens=lambda shape: shape.rows,
    baseline=("plain/reference",),
    mutable=("log_BSD",),
    written=lambda inputs: {"log_BSD": (slice(None), -1)},
    pieces=lambda inputs: (Step(inputs.x_BD[i : i + 1], inputs.log_BSD[i : i + 1]) for i in range(len(inputs.x_BD))),
)


def append(weights, shape):
    def call(step):
        step.log_BSD[:, -1] = step.x_BD @ weights
        return step.log_BSD.sum(1)

    return call


def judge(setup):
    """Prepare `setup` as an entrant beside the reference; raises what the harness would record."""
    registry = Registry()
    with registry.collecting():
        implementation("log.append", technique="plain", kind="optimized", name="mine")(setup)
    side = Side(APPEND, "plain", append, LogShape(), "cpu", seed=1)
    entrant = Entrant(registry.implementations["log.append"]["plain/mine"], side, CacheFlush("cpu"), False)
    entrant.prepare(None)
    entrant.slot(0)
    entrant.verify_second()
    return entrant


def test_the_reference_passes_and_its_state_is_counted():
    entrant = judge(append)
    assert entrant.figures["state"] == 3 * 5 * 8 * 4
    assert entrant.figures["resident"] == 8 * 8 * 4 + entrant.figures["state"]
    assert entrant.distance.error < 1e-6


def test_a_layout_of_ones_own_is_checked_through_unpack():
    def slots_first(weights, shape):
        def call(step):
            step.log_BSD[-1] = step.x_BD @ weights
            return step.log_BSD.sum(0)

        return Prepared(
            call,
            lambda step: replace(step, log_BSD=step.log_BSD.transpose(0, 1).contiguous()),
            lambda step: replace(step, log_BSD=step.log_BSD.transpose(0, 1)),
            "slots first",
        )

    assert judge(slots_first).layout == "slots first"


def wrong(change):
    def setup(weights, shape):
        right = append(weights, shape)

        def call(step):
            result = right(step)
            change(step, weights)
            return result

        return call

    return setup


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (lambda w, s: lambda step: torch.cat([step.log_BSD[:, :-1], (step.x_BD @ w)[:, None]], 1).sum(1), "written"),
        (wrong(lambda step, w: step.log_BSD[:, 0].add_(1)), "changed its input log_BSD"),
        (wrong(lambda step, w: step.log_BSD[:, -1].mul_(1.001)), "written log_BSD is off"),
        (wrong(lambda step, w: step.x_BD.mul_(2)), "changed its input x_BD"),
        (wrong(lambda step, w: w.mul_(2)), "changed its weights"),
    ],
)
def test_state_is_judged_like_a_result(setup, words):
    with pytest.raises(verify.Incorrect, match=words):
        judge(setup)


def test_swapped_rows_do_not_hide_from_the_digest():
    tensor = torch.randn(4, 6)
    assert verify.digest(tensor) != verify.digest(tensor.flip(0))
    assert verify.digest(tensor) == verify.digest(tensor.t().contiguous().t())


def test_a_digest_in_pieces_sees_every_element(monkeypatch):
    tensor = torch.randn(3, 5, 7).transpose(0, 2)
    for limit in (1000, 20, 4):
        monkeypatch.setattr(verify, "DIGEST_ELEMENTS", limit)
        before = verify.digest(tensor)
        for place in ((0, 0, 0), (6, 4, 2), (3, 2, 1)):
            changed = tensor.clone()
            changed[place] += 1
            assert verify.digest(changed) != before


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from([torch.float32, torch.bfloat16, torch.uint8]))
def test_digests_ignore_only_the_writable_part(rows, columns, dtype):
    tensor = torch.randn(rows, columns).mul(50).abs().to(dtype)
    writable = {"output": (slice(None), 0)}
    before = verify.digest(tensor, writable)
    tensor[:, 0] += 1
    assert verify.digest(tensor, writable) == before
    if columns > 1:
        tensor[0, 1] += 1
        assert verify.digest(tensor, writable) != before


def test_distances():
    truth = torch.tensor([3.0, 4.0], dtype=torch.float64)
    off = verify.distance(torch.tensor([3.0, 4.5]), truth)
    assert off.error == pytest.approx(0.1) and off.worst == pytest.approx(0.5 / 12.5**0.5)
    assert verify.distance(torch.tensor([3.0, float("nan")]), truth).error == float("inf")
    assert verify.distance(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) == verify.Distance(0.0, 0.0)


def test_trees_are_walked_cloned_and_cast():
    step = Step(torch.zeros(2), torch.zeros(2, dtype=torch.uint8))
    tree = {"a": [step, 3], "b": (step.x_BD[:1],)}
    assert set(named_tensors(tree)) == {"a.0.x_BD", "a.0.log_BSD", "b.0"}
    assert storage_bytes(tree) == 2 * 4 + 2
    wide = cast(tree, torch.float64)
    assert wide["a"][0].x_BD.dtype == torch.float64 and wide["a"][0].log_BSD.dtype == torch.uint8
    copy = clone(tree)
    copy["a"][0].x_BD.fill_(1)
    assert step.x_BD.sum() == 0 and copy["a"][1] == 3
