"""Memory of a call is counted, not guessed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.failure import out_of_memory
from harness.memory import measure

KB = 1024


@settings(max_examples=20, deadline=None)
@given(kept=st.integers(1, 64), dropped=st.lists(st.integers(1, 64), max_size=4))
def test_kept_and_peak_are_exact(kept, dropped):
    def call():
        for size in dropped:
            torch.empty(size * KB, dtype=torch.uint8)
        return torch.empty(kept * KB, dtype=torch.uint8)

    result, usage = measure(call, "cpu")
    assert result.numel() == kept * KB
    assert usage.kept == kept * KB
    assert usage.peak == max([kept, *dropped]) * KB


def test_what_lives_at_once_adds_up():
    def call():
        parts = [torch.empty(size * KB, dtype=torch.uint8) for size in (3, 5, 7)]
        del parts
        return torch.empty(2 * KB, dtype=torch.uint8)

    assert measure(call, "cpu")[1].peak == 15 * KB


def test_views_and_returned_inputs_cost_nothing():
    x = torch.empty(100 * KB, dtype=torch.uint8)
    _, usage = measure(lambda: x.view(10, -1)[2:5], "cpu")
    assert (usage.kept, usage.peak) == (0, 0)


def test_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("bad stride"))
