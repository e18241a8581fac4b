"""Ceilings: a rate of FP8 where the machine has one, none where it has not; a floor needs its dtype's ceiling."""

from __future__ import annotations

import pytest
import torch

from harness import Cost, roofline

SIDE = 32


@pytest.fixture
def machine(monkeypatch):
    """A machine without a GPU that says it has FP8: small matrices, every product taken once and said to last 2 ms."""
    made = []

    def best(call, device):
        made.append(call())
        return 2e-3

    monkeypatch.setattr(roofline, "_best", best)
    monkeypatch.setattr(roofline, "_buffer_bytes", lambda device: 8 * roofline.ROW)
    monkeypatch.setattr(roofline, "_side", lambda device: SIDE)
    monkeypatch.setattr(roofline, "_has_fp8", lambda device: True)
    return made


def test_the_rate_of_fp8_is_that_of_a_scaled_product(machine, monkeypatch):
    scaled_mm, given = torch._scaled_mm, []

    def noted(a, b, *scales, **words):
        given.append((a, b, *scales))
        assert words["use_fast_accum"]
        return scaled_mm(a, b, *scales, **words)

    monkeypatch.setattr(torch, "_scaled_mm", noted)
    rates = roofline.ceilings("cpu")["matrix"]
    assert set(rates) == {"float32", "bfloat16", "float8_e4m3fn"}
    assert rates["float8_e4m3fn"] == 2 * SIDE**3 / 2e-3
    ((a, b, *scales),) = given
    assert a.dtype == b.dtype == torch.float8_e4m3fn and a.is_contiguous() and b.T.is_contiguous()
    assert [float(scale) for scale in scales] == [1, 1]
    assert machine[-1].dtype == torch.bfloat16 and machine[-1].shape == (SIDE, SIDE)
    assert torch.allclose(machine[-1].float(), a.float() @ b.float(), atol=1e-2, rtol=1e-2)


def test_a_library_that_refuses_costs_this_ceiling_alone(machine, monkeypatch):
    def refuses(*words, **more):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 8.9")

    monkeypatch.setattr(torch, "_scaled_mm", refuses)
    assert set(roofline.ceilings("cpu")["matrix"]) == {"float32", "bfloat16"}


@pytest.mark.parametrize(("capability", "there"), [((8, 0), False), ((8, 9), True), ((9, 0), True), ((10, 0), True)])
def test_fp8_begins_with_compute_capability_8_9(capability, there, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert roofline._has_fp8("cuda") is there and not roofline._has_fp8("cpu")


def test_a_floor_is_of_its_own_dtype():
    measured = {"read_bandwidth": 4e12, "copy_bandwidth": 3e12, "matrix": {"bfloat16": 5e14, "float8_e4m3fn": 1e15}}
    floors = [roofline.floor_ns(Cost(1e15, 1, 1, dtype), measured) for dtype in ("bfloat16", "float8_e4m3fn")]
    assert floors == [2e9, 1e9]
    assert roofline.floor_ns(Cost(1e15, 1, 1, "float16"), measured) is None
