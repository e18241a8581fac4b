"""Rotation and YaRN: relative positions, and the constants that DeepSeek's configurations give."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from impls.attention.rope import Rotary, active_yarn, context, frequencies, softmax_scale
from impls.attention.shape import AttentionShape, DecodeShape, SequenceShape, Yarn

V3 = AttentionShape(hidden=7168, heads=128, kv_heads=8, layers=61, query_latent=1536, yarn=Yarn(), dtype="float64")
LIKE = torch.empty(0, dtype=torch.float64)


def test_scores_depend_on_distance_only(model):
    rotary = Rotary.of(SequenceShape(model, 1, 40), 8, LIKE)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = [
        (rotary.rotate(q, torch.tensor([[at]])) * rotary.rotate(k, torch.tensor([[at - 7]]))).sum()
        for at in (7, 20, 39)
    ]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])
    near = (rotary.rotate(q, torch.tensor([[7]])) * rotary.rotate(k, torch.tensor([[1]]))).sum()
    assert not torch.allclose(near, scores[0])


def test_pairs_are_neighbours_and_turn_by_position(model):
    rotary = Rotary.of(SequenceShape(model, 1, 10), 8, LIKE)
    x = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0], dtype=torch.float64).view(1, 1, 1, 8)
    turned = rotary.rotate(x, torch.tensor([[3]])).flatten()
    assert turned[:2].tolist() == pytest.approx([math.cos(3), math.sin(3)])
    assert not turned[2:].any()


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
def test_both_forms_agree(model, dtype):
    x = torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    rotary = Rotary.of(SequenceShape(model, 1, 30), 8, x)
    positions = torch.tensor([[0, 1, 2, 3, 4], [9, 17, 25, 28, 29]])
    assert rotary.cos_SP.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    one, other = rotary.rotate(x, positions), rotary.rotate_complex(x, positions)
    assert one.dtype == other.dtype == dtype
    torch.testing.assert_close(one, other)


def test_yarn_starts_past_the_original_context():
    assert active_yarn(SequenceShape(V3, 1, 4096)) is None
    assert active_yarn(SequenceShape(V3, 1, 4097)) is V3.yarn
    assert active_yarn(DecodeShape(V3, 1, 4096)) is V3.yarn
    assert active_yarn(DecodeShape(replace(V3, yarn=None), 1, 9000)) is None
    assert context(DecodeShape(V3, 1, 4096, new_tokens=2)) == 4098


def test_softmax_scale_of_deepseek():
    assert softmax_scale(SequenceShape(V3, 1, 4096), 192) == pytest.approx(192**-0.5)
    assert softmax_scale(SequenceShape(V3, 1, 8192), 192) * 192**0.5 == pytest.approx(1.8739, abs=1e-4)
    lite = replace(V3, yarn=Yarn(mscale=0.707))
    assert softmax_scale(SequenceShape(lite, 1, 8192), 192) * 192**0.5 == pytest.approx(1.5896, abs=1e-4)


def test_yarn_slows_pairs_from_10_to_23():
    """Pairs below 10 turn often enough to be kept, pairs from 23 on are interpolated by the whole factor of 40."""
    ratio = frequencies(V3, 64, None) / frequencies(V3, 64, V3.yarn)
    assert ratio[:11].tolist() == pytest.approx([1.0] * 11)
    assert ratio[23:].tolist() == pytest.approx([40.0] * 9)
    assert ((ratio[11:23] > 1) & (ratio[11:23] < 40)).all() and (ratio.diff() >= 0).all()
    assert frequencies(V3, 64, None).tolist() == pytest.approx([10000 ** (-2 * j / 64) for j in range(32)])
