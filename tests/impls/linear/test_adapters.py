"""Library adapters where the library is not: a stand-in checks the layouts the real one demands and multiplies plainly.

Layouts: PyTorch's own checks of block scales (aten ScaledBlas.cpp), DeepGEMM's README, torchao's assertions.
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import verify
from impls.linear import deep_gemm, grouped_mm, scaled_mm, torchao
from impls.linear.shape import GroupedShape, LinearShape

SHAPE = LinearShape(64, 144, 640)
PRODUCTS = ("linear.fprop", "linear.dgrad", "linear.wgrad", "linear.layer_train")


def numbers(payload_RL: Tensor, scale: Tensor) -> Tensor:
    """Payload [R, L] times a scale of [R or R / 128, L / 128]."""
    rows, length = payload_RL.shape
    if scale.shape[0] != rows:
        scale = scale.repeat_interleave(128, 0)[:rows]
    return payload_RL.double() * scale.repeat_interleave(128, 1)[:, :length].double()


def require_rows_fastest(payload_RL: Tensor, scale: Tensor) -> None:
    rows, length = payload_RL.shape
    assert payload_RL.is_contiguous() and payload_RL.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32
    assert scale.shape == (rows, -(-length // 128)) and scale.stride() == (1, rows)


def require_blocks(payload_RL: Tensor, scale: Tensor, multiple: int = 1) -> None:
    rows, length = payload_RL.shape
    tiles = (length + 127) // 128
    columns = (tiles + multiple - 1) // multiple * multiple
    assert scale.shape == (-(-rows // 128), columns) and scale.stride() == (columns, 1)


def stand_in_scaled_mm(a, b, scale_a, kind_a, scale_b, kind_b, output_dtype):
    b, kinds = b.T, F.ScalingType
    assert kind_a == kinds.BlockWise1x128
    require_rows_fastest(a, scale_a)
    if kind_b == kinds.BlockWise128x128:
        scale_b = scale_b.T
        require_blocks(b, scale_b, multiple=4)
    else:
        require_rows_fastest(b, scale_b)
    return (numbers(a, scale_a) @ numbers(b, scale_b).T).to(output_dtype)


def stand_in_deep_gemm() -> types.ModuleType:
    module = types.ModuleType("deep_gemm")

    def fp8_gemm_nt(a, b, d, c=None, recipe=(1, 128, 128), disable_ue8m0_cast=False):
        assert disable_ue8m0_cast and d.is_contiguous()
        require_rows_fastest(*a)
        (require_rows_fastest if recipe == (1, 1, 128) else require_blocks)(*b)
        assert c is None or (c is d and d.dtype == torch.float32 and not c.any())
        d.copy_(numbers(*a) @ numbers(*b).T)

    def m_grouped_fp8_gemm_nt_contiguous(a, b, d, groups, disable_ue8m0_cast=False):
        assert disable_ue8m0_cast and groups.dtype == torch.int32 and groups.is_contiguous()
        require_rows_fastest(*a)
        rows = numbers(*a)
        for group in range(len(b[0])):
            require_blocks(b[0][group], b[1][group])
            d[groups == group] = (rows[groups == group] @ numbers(b[0][group], b[1][group]).T).to(d.dtype)

    module.fp8_gemm_nt, module.m_grouped_fp8_gemm_nt_contiguous = fp8_gemm_nt, m_grouped_fp8_gemm_nt_contiguous
    return module


def stand_in_torchao() -> types.ModuleType:
    module = types.ModuleType("kernels")

    def blocks(a, b, a_s, b_s, block_size, out_dtype):
        assert block_size == 128 and b.T.is_contiguous() and b_s.T.is_contiguous()
        require_rows_fastest(a, a_s)
        return (numbers(a, a_s) @ numbers(b.T, b_s.T).T).to(out_dtype)

    def tiles(a, b, a_s, b_s, block_size, out_dtype):
        assert block_size == 128 and b.T.is_contiguous() and b_s.is_contiguous()
        require_rows_fastest(a, a_s)
        return (numbers(a, a_s) @ numbers(b.T, b_s.T).T).to(out_dtype)

    module.triton_fp8_gemm_1x128_128x128, module.triton_fp8_gemm_1x128_128x1 = blocks, tiles
    return module


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    monkeypatch.setattr(F, "scaled_mm", stand_in_scaled_mm)
    monkeypatch.setitem(sys.modules, "deep_gemm", stand_in_deep_gemm())
    for name in ("torchao", "torchao.prototype", "torchao.prototype.blockwise_fp8_training"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torchao.prototype.blockwise_fp8_training"].kernels = stand_in_torchao()


@pytest.mark.parametrize("operation", PRODUCTS)
@pytest.mark.parametrize("entry", [scaled_mm.PROMOTED, deep_gemm.NAME, torchao.NAME])
def test_operands_go_in_as_the_library_wants_them(entry, operation, judge, registry):
    assert registry.implementations[operation][f"fp8/{entry}"].supports(SHAPE) is None
    judge(operation, f"fp8/{entry}", SHAPE)


@pytest.mark.parametrize("operation", ["linear.grouped", "linear.grouped_dgrad"])
def test_every_row_goes_to_its_group(operation, judge):
    judge(operation, f"fp8/{deep_gemm.NAME}", GroupedShape(4, 512, 144, 272, 1.0))


def test_per_row_scales_go_to_their_group(monkeypatch, registry, draw):
    def scaled_grouped_mm(a, b_EKN, scale_P, scale_EN, offs, out_dtype):
        assert a.is_contiguous() and b_EKN.mT.is_contiguous() and offs.dtype == torch.int32
        assert scale_P.shape == (len(a),) and scale_EN.is_contiguous()
        starts = [0, *offs.tolist()[:-1]]
        parts = [
            (a[start:end].double() * scale_P[start:end, None]) @ (b.double() * scale_N)
            for start, end, b, scale_N in zip(starts, offs.tolist(), b_EKN, scale_EN, strict=True)
        ]
        return torch.cat(parts).to(out_dtype)

    monkeypatch.setattr(torch, "_scaled_grouped_mm", scaled_grouped_mm)
    shape = GroupedShape(4, 512, 144, 272, 1.0)
    for name in ("linear.grouped", "linear.grouped_dgrad"):
        operation, one = registry.operations[name], registry.implementations[name]["fp8-row/scaled-grouped-mm"]
        assert one.setup is grouped_mm._scaled and one.needs == ("cuda", "sm_90")
        w, x = draw(operation, shape, "fp8-row")
        truth = verify.compute_truth(operation, registry.reference(name, "fp8-row").setup, w, x, shape, "cpu")
        verify.check(one.setup(w, shape)(x), truth)


def test_per_row_gradients_of_weights_are_refused_where_they_would_be_bf16(registry):
    one = registry.implementations["linear.wgrad"]["fp8-row/scaled-mm"]
    assert "BF16 only" in one.supports(SHAPE)


@pytest.mark.parametrize("operation", PRODUCTS)
def test_per_tensor_products_on_a_cpu_are_small_ones(operation, registry):
    supports = registry.implementations[operation]["fp8-tensor/scaled-mm"].supports
    assert supports(LinearShape(128, 128, 256, "float32")) is None
    assert "one by one on some CPUs" in supports(LinearShape(144, 128, 256, "float32"))
    assert supports(LinearShape(8192, 7168, 16384)) is None


@pytest.mark.parametrize(("there", "said"), [(True, None), (False, "per-tensor scales alone on a CPU")])
def test_per_row_scales_take_part_on_a_cpu_where_pytorch_has_them(there, said, monkeypatch, registry):
    monkeypatch.setattr(scaled_mm, "rows_on_cpus", lambda: there)
    for operation in PRODUCTS:
        reason = registry.implementations[operation]["fp8-row/scaled-mm"].supports(LinearShape(64, 144, 640, "float32"))
        assert reason is None if said is None else said in reason
