"""Other people's code: `torch._scaled_mm` for products, autograd and `nn.Linear` for gradients."""

from __future__ import annotations

import pytest
import torch

from harness import verify
from impls.linear.inputs import TrainInputs
from impls.linear.quantize import dequantize, quantize
from impls.linear.reference import product
from impls.linear.reference_train import Fp8Linear, Recipe, bf16
from impls.linear.scaled_mm import rows_on_cpus
from impls.linear.shape import LinearShape

needs_rows = pytest.mark.skipif(not rows_on_cpus(), reason="this PyTorch has no per-row scales on a CPU")
M, N, K = 48, 64, 160


@pytest.mark.parametrize("grain", [pytest.param("row", marks=needs_rows), "tensor"])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_products_are_torchs(grain, power_of_two, draw_generator):
    a, b = (quantize(torch.randn(n, K, generator=draw_generator), grain, power_of_two) for n in (M, N))
    scale_b = b.scale.T if grain == "row" else b.scale
    theirs = torch._scaled_mm(a.payload, b.payload.T, a.scale, scale_b, out_dtype=torch.float32)
    assert verify.distance(product(a, b), theirs).worst < 1e-5


@needs_rows
def test_tiles_and_blocks_are_torchs_where_one_tile_is_all(draw_generator):
    """With 128 summed elements a tile is a row, and with 128 rows a block is all."""
    a, b = (torch.randn(n, 128, generator=draw_generator) for n in (M, 128))
    ours = product(quantize(a, "tile"), quantize(b, "block"))
    x, w = quantize(a, "row"), quantize(b, "tensor")
    theirs = torch._scaled_mm(x.payload, w.payload.T, x.scale, w.scale.repeat(1, 128), out_dtype=torch.float32)
    assert verify.distance(ours, theirs).worst < 1e-5


def test_the_bf16_layer_is_a_linear_module(draw_generator):
    layer = torch.nn.Linear(K, N, bias=False)
    x_MK = torch.randn(M, K, generator=draw_generator, requires_grad=True)
    dy_MN = torch.randn(M, N, generator=draw_generator)
    y_MN = layer(x_MK)
    y_MN.backward(dy_MN)
    y_MN = y_MN.detach()
    made = bf16(layer.weight.detach(), LinearShape(M, N, K, "float32"))(TrainInputs(x_MK.detach(), dy_MN))
    for ours, theirs in ((made.y_MN, y_MN), (made.dx_MK, x_MK.grad), (made.dw_NK, layer.weight.grad)):
        assert verify.distance(ours, theirs).worst < 1e-5


def fp8_layer(x_MK: torch.Tensor, w_NK: torch.Tensor, dy_MN: torch.Tensor, grains=("tile", "block")):
    x_MK, w_NK = x_MK.clone().requires_grad_(), w_NK.clone().requires_grad_()
    y_MN = Fp8Linear.apply(x_MK, w_NK, Recipe(grains, False))
    return y_MN.detach(), *torch.autograd.grad(y_MN, (x_MK, w_NK), dy_MN)


def test_the_fp8_layer_is_exact_where_fp8_is(draw_generator):
    """Small whole numbers with 448 in every tile are E4M3 values with scale 1: the layer is then the plain product."""
    x_MK, w_NK, dy_MN = (
        torch.randint(-4, 5, size, generator=draw_generator).float() for size in ((M, K), (N, K), (M, N))
    )
    for matrix in (x_MK, w_NK, dy_MN):
        matrix[:, ::32] = 448.0
        matrix[::16] = 448.0
    expected = x_MK @ w_NK.T, dy_MN @ w_NK, dy_MN.T @ x_MK
    for ours, exact in zip(fp8_layer(x_MK, w_NK, dy_MN), expected, strict=True):
        assert torch.equal(ours, exact)


def test_kept_activations_are_rounded_twice(draw_generator):
    x_MK, dy_MN = torch.randn(256, K, generator=draw_generator), torch.randn(256, N, generator=draw_generator)
    w_NK = torch.randn(N, K, generator=draw_generator)
    _, _, dw_NK = fp8_layer(x_MK, w_NK, dy_MN)
    dy = quantize(dy_MN.T.contiguous(), "tile")
    kept = dequantize(quantize(x_MK, "tile"))
    twice, once = (product(dy, quantize(x.T.contiguous(), "tile")) for x in (kept, x_MK))
    assert torch.equal(dw_NK, twice)
    exact = dy_MN.T @ x_MK
    assert verify.distance(twice, exact).error > 1.1 * verify.distance(once, exact).error
