"""Claims about FP8: the speed of products, what quantizing costs, and what it does to a loss."""

from __future__ import annotations

from ..claim import Claim, Condition, Effect, Join, Sum
from .sources import ARTICLE, DEEP_GEMM, INSIGHTS, V3

HOPPER = Condition("Hardware", "H800", "device", "*H800*|*H100*|*H200*|*GH200*")
KERNEL = Condition("Kernel", "DeepGEMM", "contender", "fp8/deep-gemm*")
TABLE = (
    ("m4096-n7168-k16384", 1358),
    ("m4096-n4096-k7168", 1304),
    ("m4096-n2112-k7168", 1058),
    ("m4096-n24576-k1536", 990),
    ("m4096-n32768-k512", 590),
    ("m64-n2112-k7168", 206),
)


def _product(sizes: str, low: float, high: float, words: str, pick: str = "first") -> Join:
    return Join(
        words,
        "linear.fprop",
        sizes=sizes,
        device="cuda",
        of="fp8/*",
        metric="flop_rate",
        pick="best" if pick == "best" else "first",
        effect=Effect(low * 1e12, high * 1e12),
        conditions=(KERNEL, HOPPER),
    )


CLAIMS = (
    Claim(
        "SEED-1",
        "linear",
        "FP8 is 1.6 times as efficient",
        "Native FP8 makes DeepSeek-V3 about 1.6 times as efficient.",
        "about 1.6×",
        "none stated",
        ARTICLE("on FP8"),
        "Time of a training step in BF16 and in FP8, quantizing included",
        "make bench STUDY=linear on a GPU with FP8 (Hopper and newer).",
        note="The V3 report has no such figure: it says that FP8 doubles the rate of products in theory. FP8-LM, which "
        "it cites, reports 64 % (another version of its abstract 75 %) over BF16 for a GPT of 175B on H100; that "
        "1.6 comes from there is a guess.",
        joins=(
            Join(
                "Speed-up of a whole model's training step, MHA and dense layers, quantizing included, best of each",
                "model.train_step",
                device="cuda",
                of="mha-dense-fp8-ntp/*",
                over="mha-dense-bf16-ntp/*",
                metric="latency",
                form="speed-up",
                effect=Effect(1.55, 1.65, none=1.0),
                conditions=(
                    Condition("Model", "DeepSeek-V3", ours="two layers of V2-Lite's width, one GPU", essential=False),
                ),
            ),
            Join(
                "Speed-up of a linear layer in training, all three products and quantizing, the best of each",
                "linear.layer_train",
                device="cuda",
                of="fp8/*",
                over="bf16/*",
                metric="latency",
                form="speed-up",
                effect=Effect(1.55, 1.65, none=1.0),
                conditions=(
                    Condition("What is timed", "not stated", ours="one linear layer, three products", essential=False),
                ),
            ),
        ),
    ),
    Claim(
        "V3-5",
        "linear",
        "FP8 doubles the speed of products",
        "Products in FP8 are twice as fast as in BF16.",
        "2×, in theory",
        "tensor cores of an H800",
        V3("§3.3.1"),
        "Latency of an FP8 and a BF16 product at V3's shapes, operands quantized already",
        "make bench STUDY=linear on a Hopper GPU.",
        joins=(
            Join(
                "Speed-up of the forward product, the best of each, at the shape where it is largest",
                "linear.fprop",
                model="v3",
                sizes="m4096-*[!w][0-9]",  # scales of any value: not the case of powers of two
                device="cuda",
                of="fp8/*",
                over="bf16/*",
                metric="latency",
                form="speed-up",
                pick="best",
                effect=Effect(1.95, 2.05, none=1.0),
                conditions=(HOPPER,),
            ),
        ),
    ),
    Claim(
        "DG-1",
        "linear",
        "DeepGEMM reaches 1550 TFLOP/s",
        "FP8 products with fine-grained scales reach 1550 TFLOP/s; at launch it was over 1350.",
        "up to 1550 TFLOP/s",
        "H800, FP8",
        DEEP_GEMM("README of April 2025; launch figure in open-infra-index"),
        "FLOP/s of block-scaled FP8 products at V3's shapes",
        "DeepGEMM installed on a Hopper GPU, then make bench STUDY=linear.",
        note="H100, H800 and H200 have the same tensor cores; clocks and power limits may differ.",
        joins=(_product("*", 1545, 1555, "The fastest forward product in FP8, over all shapes", "best"),),
    ),
    Claim(
        "DG-2",
        "linear",
        "DeepGEMM's first table",
        "Rates of DeepGEMM at the shapes of DeepSeek-V3.",
        "1358, 1304, 1058, 990 and 590 TFLOP/s at M = 4096; 206 TFLOP/s and 1688 GB/s at M = 64",
        "H800, NVCC 12.8; (N, K) of the products below; the last is 2.7 times CUTLASS 3.6",
        DEEP_GEMM("README before 15 March 2025"),
        "FLOP/s of block-scaled FP8 products at those shapes",
        "DeepGEMM installed on a Hopper GPU, then make bench STUDY=linear.",
        joins=tuple(
            _product(f"{sizes}*", rate - 0.5, rate + 0.5, f"Forward product {sizes}, {rate} TFLOP/s published")
            for sizes, rate in TABLE
        ),
    ),
    Claim(
        "V3-3",
        "linear",
        "FP8 leaves the loss as it is",
        "Training in FP8 changes the loss by less than 0.25 %.",
        "relative error below 0.25 %",
        "16B on 1.33T tokens and 230B on 0.9T; curves smoothed with a factor of 0.9",
        V3("§3.3, appendix B.1, figure 10"),
        "Distance of the FP8 loss from the BF16 loss, same seed and data, beside the spread of BF16 seeds",
        "make bench STUDY=linear: its trial trains one model both ways from three seeds.",
        joins=(
            Join(
                "Distance of the smoothed training loss in FP8 from that in BF16, mean over seeds",
                "linear.loss",
                of="fp8/*",
                over="bf16/*",
                metric="smoothed_loss",
                form="distance",
                pick="mean",
                effect=Effect(0.0, 0.0025, none=0.0025, larger=False),
                conditions=(
                    Condition(
                        "Model and data", "16B, 1.33T tokens", ours="a small model of bytes, minutes of training"
                    ),
                    Condition("Smoothing", "factor 0.9", ours="factor 0.9", same=True),
                    Condition("Routing", "mixture of experts", ours="dense layers", essential=False),
                ),
            ),
            Join(
                "Distance of validation bits a byte in FP8, the small model with MLA and experts",
                "model.ladder",
                of="mla-moe-fp8-ntp/*",
                over="mla-moe-bf16-ntp/*",
                metric="validation_bits",
                form="distance",
                pick="mean",
                effect=Effect(0.0, 0.0025, none=0.0025, larger=False),
                conditions=(
                    Condition(
                        "Model and data", "16B, 1.33T tokens", ours="a small model of bytes, minutes of training"
                    ),
                    Condition("Loss", "training, smoothed", ours="validation", essential=False),
                ),
            ),
        ),
    ),
    Claim(
        "V3-4",
        "linear",
        "Tensor cores accumulate too coarsely",
        "Hopper's FP8 products keep about 14 bits of a sum; over a length of 4096 the largest error is nearly 2 %, and "
        "promoting sums to FP32 every 128 elements removes it.",
        "about 14 bits; nearly 2 %",
        "H800, K = 4096, random matrices of a distribution that is not stated",
        V3("§3.3.2"),
        "Error of an FP8 product with and without promotion, for a stated distribution",
        "make bench STUDY=linear, on any machine: the accumulator is emulated.",
        joins=(
            Join(
                "Error of sums of 4096 positive products without promotion, emulated",
                "linear.numerics",
                sizes="*k4096-positive*",
                of="fp8/*",
                metric="accumulation_error",
                exact=True,
                effect=Effect(0.015, 0.02, none=0.0),
                conditions=(
                    Condition("Error", "the largest relative one", ours="relative Frobenius norm"),
                    Condition("Sum", "the tensor core's own", ours="emulated", essential=False),
                    Condition("Values", "random, not stated", ours="uniform and positive", essential=False),
                ),
            ),
            Join(
                "The same with sums promoted every 128",
                "linear.numerics",
                sizes="*k4096-positive*",
                of="fp8/*",
                metric="promoted_error",
                exact=True,
                effect=Effect(),
                conditions=(Condition("Error", "no figure", ours="relative Frobenius norm"),),
            ),
        ),
    ),
    Claim(
        "V3-6",
        "linear",
        "Blocks of gradients diverge",
        "Quantizing activation gradients in blocks of 128 × 128 made training diverge.",
        "divergence",
        "mixture of 16B at about 300B tokens",
        V3("appendix B.2"),
        "Signal to quantization noise of gradients in tiles of 1 × 128 and in blocks of 128 × 128",
        "A technique with gradients in blocks, beside tiles, in linear.dgrad; divergence itself is out of reach.",
    ),
    Claim(
        "IS-6",
        "linear",
        "FP8 halves dispatch",
        "Sending tokens to experts in FP8 halves the bytes on the network.",
        "−50 % of BF16's bytes",
        "expert-parallel dispatch",
        INSIGHTS("§3.2"),
        "Bytes a token in both formats, scales included",
        identity=(Sum("Payload alone", "1 B against 2 B an element", 1 - 1 / 2, "share", 0.5, 0.005),),
        checks=(Sum("With an FP32 scale for each 128", "(1 + 4/128) B against 2 B", 1 - (1 + 4 / 128) / 2, "share"),),
        note="With its scales FP8 saves 48.4 %.",
    ),
)
