"""What the timing gate compares: small cases of optimized implementations, at most about 1 ms a call on one thread.

Short calls make short slots, and slots shorter than a scheduler's make the gate indifferent to what else the machine
does. Sizes are toys on purpose: 2 heads, 4 experts. What only shows at real sizes is left to the exact gate and to
recorded runs. The GPU's cases are real shapes whose calls take tens of microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benches.bench_attention import Model as AttentionModel
from benches.bench_attention import decode, sequence
from benches.bench_ffn import Model as FfnModel
from benches.bench_ffn import workload
from benches.bench_linear import GROUPED_PRODUCTS, PRODUCTS, Layer, grouping, linear, quantizing
from benches.bench_linear import Model as LinearModel
from benches.mixtures import ffn_shape
from benches.models import attention_shape
from harness import Workload
from impls.attention.shape import AttentionShape
from impls.ffn.shape import FfnShape, Router
from impls.linear.shape import FORMS

Cases = Sequence[tuple[Workload, tuple[str, ...]]]

LAYER = AttentionShape(
    hidden=128,
    heads=2,
    kv_heads=1,
    layers=1,
    head_dim=32,
    latent=32,
    nope_dim=32,
    rope_dim=16,
    value_dim=32,
    dtype="float32",
)
MIXTURE = FfnShape(hidden=64, width=32, shared=1, router=Router(experts=4, top_k=2), dtype="float32")


def cases(device: str) -> Cases:
    """Workloads with the contenders to gate, on a CPU or a GPU ("cpu", "cuda")."""
    return gpu() if device == "cuda" else cpu()


def cpu() -> Cases:
    """Ten."""
    layer, mixture = AttentionModel("tiny", LAYER), FfnModel("tiny", MIXTURE)
    return [
        (decode(layer, 2, 64), ("mla/absorbed", "mha/sdpa")),
        (decode(layer, 2, 128, kernel=True), ("mla/absorbed",)),
        (sequence("prefill", layer, 32), ("mla/fused",)),
        (sequence("prefill", layer, 64, kernel=True), ("mla/sdpa",)),
        (sequence("train", layer, 16, kernel=True), ("mla/sdpa",)),
        (workload("decode", mixture, 4), ("moe/sorted",)),
        (workload("prefill", mixture, 32), ("moe/sorted",)),
        (workload("train", mixture, 8), ("moe/sorted",)),
        (workload("experts", mixture, 64), ("moe/sorted",)),
    ]


def gpu() -> Cases:
    """Ten."""
    v3 = AttentionModel(*attention_shape("v3")).rank(8)
    small = FfnModel(*ffn_shape("v2-lite"))
    return [
        (decode(v3, 16, 4096), ("mla/absorbed", "mla/triton")),
        (decode(v3, 16, 4096, kernel=True), ("mla/absorbed", "mla/triton")),
        (sequence("prefill", v3, 1024), ("mla/fused",)),
        (sequence("train", v3, 512), ("mla/fused",)),
        (workload("decode", small, 16), ("moe/triton",)),
        (workload("prefill", small, 1024), ("moe/triton",)),
        (workload("route", small, 1024), ("moe/triton",)),
        (workload("experts", small, 1024), ("moe/triton",)),
    ]


def kernels() -> Sequence[Workload]:
    """What Triton's interpreter carries out without a GPU, with every contender that needs Triton; it has no BF16."""
    sizes = {"latent": 512, "rope_dim": 64, "nope_dim": 64, "value_dim": 64, "head_dim": 64}  # what the kernels take
    latent = AttentionModel("narrow", replace(LAYER, dtype="float16", **sizes))
    mixture = FfnModel("tiny", replace(MIXTURE, dtype="float16"))
    small = Layer("", 144, 256)
    layers = LinearModel("tiny", (small,))
    return [
        decode(latent, 2, 40),
        decode(latent, 2, 40, kernel=True),
        *(workload(name, mixture, 8) for name in ("decode", "train", "route", "select", "permute", "experts")),
        *(linear(name, layers, small, 48, dtype="float16") for name in (*PRODUCTS, "layer_train")),
        *(quantizing(layers, 40, 256, form, dtype="float16") for form in FORMS),
        *(grouping(name, layers, small, 3, 256, dtype="float16") for name in GROUPED_PRODUCTS),
    ]
