"""Experts on stretches of rows against one expert's formula at a time, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from impls.ffn.reference import swiglu
from impls.ffn.stretches import expert_rows, mixture


def drawn(chosen: list[list[int]], experts: int, hidden: int, width: int, dtype=torch.float64):
    """Inputs of `mixture` for tokens that chose these experts."""
    generator = torch.Generator().manual_seed(0)
    pairs = sorted((expert, token) for token, those in enumerate(chosen) for expert in those)
    loads = torch.tensor([sum(expert == e for e, _ in pairs) for expert in range(experts)])
    shapes = (len(chosen), hidden), (len(pairs),), (experts, 2 * width, hidden), (experts, hidden, width)
    x, gates, w_in, w_out = (torch.randn(s, dtype=dtype, generator=generator, requires_grad=True) for s in shapes)
    token_P = torch.tensor([token for _, token in pairs], dtype=torch.int64)
    return x, gates, token_P, loads.cumsum(0).int(), w_in, w_out


def plain(x_MD, gates_P, token_P, ends_E, w_in_EUD, w_out_EDW):
    """One row after the other."""
    y_MD = 0 * x_MD
    for row, (token, gate) in enumerate(zip(token_P.tolist(), gates_P, strict=True)):
        expert = int((ends_E <= row).sum())
        y_D = gate * swiglu(x_MD[token], w_in_EUD[expert], w_out_EDW[expert])
        y_MD = y_MD.index_add(0, token_P[row : row + 1], y_D[None])
    return y_MD


def floating(tensors):
    return [t for t in tensors if t.is_floating_point()]


@given(
    st.integers(1, 5).flatmap(
        lambda experts: st.tuples(
            st.just(experts), st.lists(st.lists(st.integers(0, experts - 1), unique=True), min_size=1, max_size=7)
        )
    ),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_sums_and_gradients_are_those_of_one_row_at_a_time(chosen, hidden, width):
    tensors = drawn(chosen[1], chosen[0], hidden, width)
    found, expected = mixture(*tensors), plain(*tensors)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(mixture(*tensors), expected.detach())
    upstream = torch.randn_like(found)
    pairs = (torch.autograd.grad(y, floating(tensors), upstream, allow_unused=True) for y in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_gradients_are_those_of_finite_differences():
    x, gates, token, ends, w_in, w_out = drawn([[0, 2], [2], [0, 3]], 4, 4, 3)
    assert torch.autograd.gradcheck(lambda a, b, c, d: mixture(a, b, token, ends, c, d), (x, gates, w_in, w_out))


@pytest.mark.parametrize("needed", [0, 1, 4, 5])
def test_gradients_of_some_factors_alone(needed):
    tensors = drawn([[0, 2], [2], [0, 3]], 4, 4, 3)
    for tensor in floating(tensors):
        tensor.requires_grad_(tensor is tensors[needed])
    (found,) = torch.autograd.grad(mixture(*tensors).sum(), tensors[needed])
    (expected,) = torch.autograd.grad(plain(*tensors).sum(), tensors[needed])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loads", [[3, 0, 2], [0, 0], [5]])
def test_rows_alone(loads):
    x, _, _, _, w_in, w_out = drawn([[0]] * sum(loads), len(loads), 6, 4)
    ends = torch.tensor(loads).cumsum(0).int()
    expert = torch.arange(len(loads)).repeat_interleave(torch.tensor(loads)).tolist()
    rows = [swiglu(row, w_in[e], w_out[e]) for row, e in zip(x, expert, strict=True)]
    with torch.no_grad():
        torch.testing.assert_close(expert_rows(x, ends, w_in, w_out), torch.stack(rows) if rows else x)
