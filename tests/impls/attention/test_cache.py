"""The FP8 row: 656 bytes, exact rotated keys, latents within half a step of E4M3."""

from __future__ import annotations

import pytest
import torch

from impls.attention.cache import FP8_ROW, Fp8LatentCache, KvCache, LatentCache, dequantize, numbers, quantize


@pytest.mark.parametrize("magnitude", (1e-6, 1.0, 300.0))
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32, torch.float64))
def test_round_trip(dtype, magnitude):
    generator = torch.Generator().manual_seed(0)
    c = (torch.randn(3, 5, 512, generator=generator) * magnitude).to(dtype)
    r = torch.randn(3, 5, 64, generator=generator).to(dtype)
    rows = quantize(c, r)
    assert rows.dtype == torch.uint8 and rows.shape == (3, 5, 656) and FP8_ROW == 656
    back_c, back_r = dequantize(rows, torch.float64)
    assert torch.equal(back_r, r.to(torch.bfloat16).double())
    groups, back = c.double().unflatten(-1, (4, 128)), back_c.unflatten(-1, (4, 128))
    peak = groups.abs().amax(-1, keepdim=True)
    step = torch.maximum(groups.abs() * 2**-3, peak / 448 * 2**-9)  # E4M3: 3 bits of mantissa, least step 2^-9
    assert ((back - groups).abs() <= step * 0.51).all()
    assert torch.allclose(back.abs().amax(-1, keepdim=True), peak, rtol=1e-6)  # the largest is exact


def test_layout_of_a_row():
    c = torch.zeros(1, 512)
    c[0, 130] = -7.0  # second group: scale 7 / 448, value -448 in E4M3 = 0xFE
    r = torch.full((1, 64), 1.5)
    row = quantize(c, r)[0]
    assert row[130] == 0xFE and int(row[:512].ne(0).sum()) == 1
    assert row[512:528].view(torch.float32)[1] == pytest.approx(7 / 448)
    assert row[528:].view(torch.bfloat16).tolist() == [1.5] * 64


def test_a_group_of_zeros_stays_zero():
    c, r = dequantize(quantize(torch.zeros(2, 512), torch.zeros(2, 64)), torch.float32)
    assert not c.any() and not r.any()


def test_quantizing_what_was_quantized_changes_nothing():
    rows = quantize(torch.randn(4, 512, generator=torch.Generator().manual_seed(1)), torch.ones(4, 64))
    again = quantize(*dequantize(rows, torch.float32))
    torch.testing.assert_close(numbers(again), numbers(rows), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", (KvCache, LatentCache, Fp8LatentCache))
def test_write_touches_its_slots_only(kind):
    before = torch.randn(2, 7, 3, 4), torch.randn(2, 7, 3, 4)
    new = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4)
    if kind is not KvCache:
        before, new = ((torch.randn(2, s, 512), torch.randn(2, s, 64)) for s in (7, 2))
    cache = Fp8LatentCache(quantize(*before)) if kind is Fp8LatentCache else kind(*(t.clone() for t in before))
    start = [t.clone() for t in vars(cache).values()]
    positions = torch.tensor([[0, 1], [4, 5]])
    for _ in range(2):
        cache.write(*new, positions)
        written = [quantize(*new)] if kind is Fp8LatentCache else new
        for now, was, expected in zip(vars(cache).values(), start, written, strict=True):
            assert torch.equal(torch.stack((now[0, 0:2], now[1, 4:6])), expected)
            assert torch.equal(now[0, 2:], was[0, 2:]) and torch.equal(now[1, :4], was[1, :4])
            assert torch.equal(now[1, 6:], was[1, 6:])
