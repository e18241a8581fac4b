"""MLA prefill and training on PyTorch's fused attention: keys and values expanded, heads of 192 and 128.

Wins in prefill, where expanding costs one product a token and saves more than three times the attention FLOPs of the
absorbed form. Loses nothing to it but decode. cuDNN takes 192 and 128 as they are on Hopper and newer; flash takes one
head size only, so its values are padded to 192, a fifth more attention work; "efficient" takes both sizes.
Shape suffixes: B batch, T tokens, D hidden, H heads, C latent, R rope, E query and key size, V value size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import implementation

from .inputs import SequenceInputs, SequenceKernelInputs, TrainInputs, TrainKernelInputs, TrainKernelResult, TrainResult
from .plain import Linear, project, unproject
from .reference_mla import latents, mla_scale, queries
from .rope import Rotary
from .sdpa import BACKENDS, CUDNN, FLASH, Backend, attend_causal
from .shape import SequenceShape
from .training import trained_kernel, trained_layer
from .weights import MlaWeights


def attend(backend: Backend, q_BTHE: Tensor, k_BTHE: Tensor, v_BTHV: Tensor, scale: float) -> Tensor:
    """Whole sequences, causal; for flash values are padded to the size of keys and the result is cut."""
    size = v_BTHV.shape[-1]
    if backend is FLASH:
        v_BTHV = F.pad(v_BTHV, (0, k_BTHE.shape[-1] - size))
    return attend_causal(backend, q_BTHE, k_BTHE, v_BTHV, scale)[..., :size]


def layer_with(
    backend: Backend, shape: SequenceShape, like: Tensor, linear: Linear = F.linear
) -> Callable[[MlaWeights, Tensor], Tensor]:
    """The layer over whole sequences on one backend; the rest of it is the reference's, projections by `linear`."""
    rotary, scale = Rotary.of(shape, shape.model.rope_dim, like), mla_scale(shape)
    positions_T = torch.arange(shape.length, device=like.device)
    eps = shape.model.norm_eps

    def forward(w: MlaWeights, x_BTD: Tensor) -> Tensor:
        q_BTHE = torch.cat(queries(w, x_BTD, positions_T, rotary, eps, linear), -1)
        c_BTC, r_BTR = latents(w, x_BTD, positions_T, rotary, eps, linear)
        shared_BTHR = r_BTR.unsqueeze(2).expand(-1, -1, shape.model.heads, -1)
        k_BTHE = torch.cat((project(c_BTC, w.w_uk_HNC, linear), shared_BTHR), -1)
        o_BTHV = attend(backend, q_BTHE, k_BTHE, project(c_BTC, w.w_uv_HVC, linear), scale)
        return unproject(o_BTHV, w.wo_DHV, linear)

    return forward


def prefill_with(backend: Backend) -> Callable[[MlaWeights, SequenceShape], Callable[[SequenceInputs], Tensor]]:
    """attention.prefill on one backend."""

    def setup(w: MlaWeights, shape: SequenceShape) -> Callable[[SequenceInputs], Tensor]:
        forward = layer_with(backend, shape, w.w_kr_RD)
        return lambda inputs: forward(w, inputs.x_BTD)

    return setup


def train_with(backend: Backend) -> Callable[[MlaWeights, SequenceShape], Callable[[TrainInputs], TrainResult]]:
    """attention.train on one backend."""

    def setup(w: MlaWeights, shape: SequenceShape) -> Callable[[TrainInputs], TrainResult]:
        return trained_layer(layer_with(backend, shape, w.w_kr_RD), w)

    return setup


def prefill_kernel_with(backend: Backend) -> Callable[[None, SequenceShape], Callable[[SequenceKernelInputs], Tensor]]:
    """attention.prefill_kernel on one backend."""

    def setup(w: None, shape: SequenceShape) -> Callable[[SequenceKernelInputs], Tensor]:
        return lambda inputs: attend(backend, inputs.q_BTHE, inputs.k_BTGE, inputs.v_BTGV, mla_scale(shape))

    return setup


def train_kernel_with(
    backend: Backend,
) -> Callable[[None, SequenceShape], Callable[[TrainKernelInputs], TrainKernelResult]]:
    """attention.train_kernel on one backend."""

    def setup(w: None, shape: SequenceShape) -> Callable[[TrainKernelInputs], TrainKernelResult]:
        return trained_kernel(lambda q, k, v: attend(backend, q, k, v, mla_scale(shape)))

    return setup


for _backend in BACKENDS:
    _same = {
        "technique": "mla",
        "kind": "library",
        "name": _backend.name,
        "needs": ("sm_90",) if _backend is CUDNN else _backend.needs,
        "supports": _backend.refusal,
    }
    implementation("attention.prefill", **_same)(prefill_with(_backend))
    implementation("attention.train", **_same)(train_with(_backend))
    implementation("attention.prefill_kernel", **_same)(prefill_kernel_with(_backend))
    implementation("attention.train_kernel", **_same)(train_kernel_with(_backend))
