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


RANK = Operation(
    "log.rank",
    weights=lambda shape, technique, generator: None,
    inputs=lambda shape, technique, generator: Step(torch.randn(6, 8, generator=generator), torch.zeros(0)),
    cost=lambda shape, technique: Cost(1, 1, 1, "float32"),
    tokens=lambda shape: 6,
    baseline=("plain/reference",),
    normal=lambda chosen: chosen.sort(-1).values,
)


def rank(setup):
    """The two largest columns of each row, in any order, as an entrant beside topk."""
    registry = Registry()
    with registry.collecting():
        implementation("log.rank", technique="plain", kind="optimized", name="mine")(setup)
    side = Side(RANK, "plain", lambda w, s: lambda step: step.x_BD.topk(2).indices, LogShape(), "cpu", seed=1)
    entrant = Entrant(registry.implementations["log.rank"]["plain/mine"], side, CacheFlush("cpu"), False)
    entrant.prepare(None)
    return entrant


def test_whole_numbers_must_be_equal_in_the_results_one_form():
    rank(lambda w, s: lambda step: step.x_BD.topk(2).indices.flip(-1))

    def nearly(weights, shape):
        def call(step):
            chosen = step.x_BD.topk(2).indices
            chosen[3, 0] = (chosen[3] + 1)[~torch.isin(chosen[3] + 1, chosen[3])][0] % 8
            return chosen

        return call

    with pytest.raises(verify.Incorrect, match=r"output differs in \d+ of 12 whole numbers"):
        rank(nearly)


def test_inputs_change_by_whole_rows_between_rounds():
    side = rank(lambda w, s: lambda step: step.x_BD.topk(2).indices).side
    before = side.inputs.x_BD.clone()
    side.roll()
    assert torch.equal(side.inputs.x_BD, before.roll(1, 0)) and not torch.equal(side.inputs.x_BD, before)
    single = torch.arange(4.0).view(1, 1, 4)
    side.inputs = Step(single, torch.zeros(()))
    side.roll()
    assert single.flatten().tolist() == [3, 0, 1, 2]


def test_bytes_of_8_bit_floats_are_shifted_where_there_is_no_roll_for_them(monkeypatch):
    side = rank(lambda w, s: lambda step: step.x_BD.topk(2).indices).side
    payload = torch.arange(12.0).view(3, 4).to(torch.float8_e4m3fn)
    side.inputs = Step(payload, torch.zeros(()))
    roll, before = torch.Tensor.roll, payload.clone()

    def without_float8(tensor, *words):
        assert tensor.dtype != torch.float8_e4m3fn
        return roll(tensor, *words)

    monkeypatch.setattr(torch.Tensor, "roll", without_float8)
    side.roll()
    assert side.inputs.x_BD is payload
    assert torch.equal(payload.float(), before.float()[[2, 0, 1]])


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_memory_is_poisoned_in_every_format(name):
    given = torch.ones(4, 3).to(getattr(torch, name))
    assert verify.not_a_number(given) is given and bool(given.float().isnan().all())


def test_memory_for_8_bit_floats_is_poisoned_by_bytes(monkeypatch):
    """A GPU has no fill for them; what is handed out next holds NaN all the same."""
    filled, fill = [], torch.Tensor.fill_

    def noted(tensor, value):
        filled.append(tensor.dtype)
        return fill(tensor, value)

    monkeypatch.setattr(torch.Tensor, "fill_", noted)
    monkeypatch.setattr(torch, "full_like", None)
    verify.poison_free_memory({"a": torch.ones(3).to(torch.float8_e4m3fn), "b": torch.ones(3), "c": torch.arange(3)})
    assert filled == [torch.uint8, torch.float32]


def test_a_floor_of_the_contract_allows_what_the_dtype_alone_would_not():
    def off_by(share):
        return lambda w, s: lambda step: append(w, s)(step) * (1 + share)

    def judged(allowed, share):
        contract = replace(APPEND, allowed=lambda shape, device: allowed)
        side = Side(contract, "plain", append, LogShape(), "cpu", 0)
        return verify.check(off_by(share)(side.weights, LogShape())(clone(side.inputs)), side.truth)

    assert judged((1e-3, 1e-2), 5e-4).error == pytest.approx(5e-4, rel=0.01)
    for allowed, share in ((None, 5e-4), ((1e-3, 1e-2), 2e-3)):
        with pytest.raises(verify.Incorrect, match=r"relative Frobenius"):
            judged(allowed, share)
    with pytest.raises(verify.Incorrect, match=r"an element of"):
        judged((1e-3, 1e-5), 5e-4)
    strict, loose = (verify.least_limit(torch.float32, allowed) for allowed in (None, (0.0, 0.0)))
    assert strict == loose and strict.error > 0
