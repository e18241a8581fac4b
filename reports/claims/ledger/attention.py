"""Claims about Multi-head Latent Attention: cache, arithmetic, kernels, quality."""

from __future__ import annotations

from .. import formulas as f
from ..claim import Claim, Condition, Effect, Join, Sum
from .sources import ARTICLE, FLASH_MLA, INSIGHTS, V2

BASELINE_BYTES = f.kv_bytes(f.DEEPSEEK_67B)
SIX_BITS = f.kv_bytes(f.V2, bits=6)
GQA_LAYER = f.kv_elements(f.DEEPSEEK_67B) / f.DEEPSEEK_67B.layers
MLA_LAYER = f.kv_elements(f.V2) / f.V2.layers
MHA_BYTES = f.kv_bytes(f.V2, heads=f.V2.heads)
SMALL_SHARE = f.kv_elements(f.V2_LITE) / f.kv_elements(f.V2_LITE, heads=f.V2_LITE.heads)
LARGE_SHARE = f.kv_elements(f.V2) / f.kv_elements(f.V2, heads=56)
MACS = f.cached_token_products(f.V3, absorbed=True), f.cached_token_products(f.V3, absorbed=False)


def _state(over: str, words: str, saving: float, heads: Condition) -> Join:
    return Join(
        f"Memory of one layer's cache as allocated, MLA against {words}, equal precision; held against the sum",
        "attention.decode",
        of="mla/*",
        over=f"{over}/*",
        metric="state",
        form="saving",
        exact=True,
        effect=Effect(saving - 0.0005, saving + 0.0005, none=0.0),
        conditions=(heads,),
    )


def _flops(operation: str, words: str) -> Join:
    return Join(
        f"FLOPs of {words}, MLA over MHA: by the cost model",
        operation,
        of="mla/*",
        over="mha/*",
        metric="flops",
        form="ratio",
        exact=True,
        effect=Effect(none=1.0, larger=False),
    )


def _bytes(model: str, technique: str, printed: float) -> Join:
    return Join(
        f"Cache bytes a token over all layers, {model}, {technique.upper()}: as the case has it",
        "attention.decode",
        model=model,
        of=f"{technique}/*",
        metric="kv_bytes_per_token",
        times="model.layers",
        exact=True,
        effect=Effect(printed - 0.5, printed + 0.5),
        conditions=(
            Condition("Precision", "BF16", "shape.model.dtype", "bfloat16"),
            Condition("Cache", "as computed with", "shape.cache", "native"),
        ),
    )


CLAIMS = (
    Claim(
        "V2-1",
        "attention",
        "KV cache 93.3 % smaller",
        "DeepSeek-V2's KV cache takes 93.3 % less memory a token than DeepSeek 67B's.",
        "−93.3 %",
        "V2's cache at 6 bits an element, against DeepSeek 67B with 8 KV heads, 95 layers and 16 bits",
        V2("abstract, figure 1b, §3.2.3"),
        "Cache bytes a token of one model's MLA and of a baseline, at equal precision",
        identity=(
            Sum(
                "Saving as published",
                "1 − (576 × 60 × 6/8 B) / (2 × 8 × 128 × 95 × 2 B)",
                1 - SIX_BITS / BASELINE_BYTES,
                "share",
                0.933,
                0.0005,
            ),
        ),
        beside="What it is made of",
        checks=(
            Sum("Architecture", "one layer: 2 × 8 × 128 elements of GQA to 512 + 64", GQA_LAYER / MLA_LAYER, "ratio"),
            Sum("Baseline", "95 layers against 60", f.DEEPSEEK_67B.layers / f.V2.layers, "ratio"),
            Sum("Precision", "16 bits against 6", f.BF16 / 6, "ratio"),
            Sum("All three", "product of the factors", BASELINE_BYTES / SIX_BITS, "ratio"),
            Sum("Without the precision", "both at 16 bits", 1 - f.kv_bytes(f.V2) / BASELINE_BYTES, "share"),
            Sum("Architecture alone", "one layer, both at 16 bits", 1 - MLA_LAYER / GQA_LAYER, "share"),
            Sum(
                "Against MHA instead",
                "V2's own 128 heads and 60 layers, 16 bits",
                1 - f.kv_bytes(f.V2) / MHA_BYTES,
                "share",
            ),
        ),
        note="The figure is not MLA's alone. Of the factor 15, MLA in place of GQA gives 3.6, the baseline's greater "
        "depth 1.6 and the lower precision 2.7. Against MHA with as many heads MLA saves more than is claimed.",
        joins=(
            _state(
                "gqa",
                "keys and values of 8 heads",
                1 - MLA_LAYER / GQA_LAYER,
                Condition("KV heads", "8", "shape.model.kv_heads", "8"),
            ),
            _state(
                "mha",
                "keys and values of 128 heads",
                1 - f.kv_bytes(f.V2) / MHA_BYTES,
                Condition("Heads", "128", "shape.model.heads", "128"),
            ),
        ),
    ),
    Claim(
        "IS-1",
        "attention",
        "KV cache a token of three models",
        "A token leaves 70 kB in DeepSeek-V3's cache, 4.66 times that in Qwen2.5-72B's, 7.28 in LLaMA-3.1-405B's.",
        "70.272 kB, 327.680 kB (4.66×), 516.096 kB (7.28×)",
        "BF16, 1 kB = 1000 B",
        INSIGHTS("table 1"),
        "Cache bytes a token, from the layer's shape",
        identity=(
            Sum("DeepSeek-V3, MLA", "(512 + 64) × 61 layers × 2 B", f.kv_bytes(f.V3), "bytes", 70272, 0.5),
            Sum("Qwen2.5-72B, GQA", "2 × 8 × 128 × 80 × 2 B", f.kv_bytes(f.QWEN_72B), "bytes", 327680, 0.5),
            Sum("LLaMA-3.1-405B, GQA", "2 × 8 × 128 × 126 × 2 B", f.kv_bytes(f.LLAMA_405B), "bytes", 516096, 0.5),
            Sum("Qwen over V3", "327,680 / 70,272", f.kv_bytes(f.QWEN_72B) / f.kv_bytes(f.V3), "ratio", 4.66, 0.005),
            Sum("LLaMA over V3", "516,096 / 70,272", f.kv_bytes(f.LLAMA_405B) / f.kv_bytes(f.V3), "ratio", 7.28, 0.005),
        ),
        note="Bytes and the first multiple are right; 7.28 should read 7.34.",
        joins=(
            _bytes("v3", "mla", 70272),
            _bytes("qwen2.5-72b", "gqa", 327680),
            _bytes("llama-3.1-405b", "gqa", 516096),
        ),
    ),
    Claim(
        "SEED-MLA",
        "attention",
        "MLA needs less computation",
        "MLA reduces the computational complexity of attention.",
        "less arithmetic; no figure",
        "none stated",
        ARTICLE("on MLA"),
        "FLOPs of decoding with MLA and with MHA of as many heads",
        beside="Multiplications and additions of one query with one cached token",
        checks=(
            Sum("MHA", "128 heads × (128 + 128)", MACS[1], "count"),
            Sum("MLA, absorbed", "128 heads × (512 + 64 + 512)", MACS[0], "count"),
            Sum("MLA over MHA", "139,264 / 32,768", MACS[0] / MACS[1], "ratio"),
        ),
        note="MLA trades bytes for arithmetic: in decode it reads far less of the cache and computes more on it. What "
        "it buys is time where bytes bind. Only its projections are smaller, so that a whole prefill layer can need "
        "fewer FLOPs on short sequences.",
        joins=(
            _flops("attention.decode_kernel", "the inner decode kernel"),
            _flops("attention.decode", "a decode layer, projections included"),
            _flops("attention.prefill", "a prefill layer, projections included"),
            Join(
                "Speed-up of the inner decode kernel, MLA over MHA, the best of each",
                "attention.decode_kernel",
                of="mla/*",
                over="mha/*",
                metric="latency",
                form="speed-up",
                effect=Effect(none=1.0),
            ),
        ),
    ),
    Claim(
        "V2-6",
        "attention",
        "MLA models are better than MHA models",
        "Models of two sizes with MLA score higher than the same with MHA.",
        "BBH 37.9 → 39.0, MMLU 48.7 → 50.0 (16B); 46.6 → 50.7, 57.5 → 59.0 (250B); C-Eval 51.6 → 50.9 (16B)",
        "16B on 1.33T tokens and 250B on 420B; the MLA model keeps 14 % and 4 % of the cache",
        V2("appendix D.2, table 9"),
        "Validation loss of MLA, MHA, GQA and MQA models of matched parameters, several seeds",
        "Training runs of one small model with each attention, at least five seeds; differences this small may stay "
        "within the spread of seeds.",
        beside="The caches it states",
        checks=(
            Sum("16B: MLA over MHA", "576 / (2 × 16 × 128) elements a layer", SMALL_SHARE, "share", 0.14, 0.005),
            Sum("250B: MLA over MHA", "576 / (2 × 56 × 128) elements a layer", LARGE_SHARE, "share", 0.04, 0.005),
        ),
        note="One score of the smaller model drops. The larger MHA model's cache fits 56 heads of 128, not V2's 128.",
        joins=(
            Join(
                "Change of validation bits a byte, a dense model with MLA over one with MHA: below 0 MLA is better",
                "model.ladder",
                of="mla-dense-bf16-ntp/*",
                over="mha-dense-bf16-ntp/*",
                metric="validation_bits",
                form="change",
                effect=Effect(none=0.0, larger=False),
                conditions=(
                    Condition("Model and data", "16B and 250B, mixtures", ours="a small dense model of bytes, minutes"),
                    Condition("Quality", "scores", ours="bits a byte", essential=False),
                    Condition("Parameters", "about equal", ours="equal heads; counts differ", essential=False),
                ),
            ),
        ),
    ),
    Claim(
        "V2-7",
        "attention",
        "MHA better than GQA better than MQA",
        "At 7B parameters, models with more KV heads score higher.",
        "MMLU 45.2 / 41.2 / 37.9",
        "7B dense, 1.33T tokens",
        V2("appendix D.1, table 8"),
        "Validation loss of MHA, GQA and MQA models of matched parameters, several seeds",
        "The same training runs as for MLA against MHA.",
    ),
    Claim(
        "FM-1a",
        "attention",
        "FlashMLA reads 3000 GB/s",
        "Decode that is bound by memory reaches 3000 GB/s.",
        "3000 GB/s, 89.6 % of the card's 3.35 TB/s",
        "H800 SXM5, CUDA 12.8, BF16 cache, absorbed form (576 and 512)",
        FLASH_MLA("README"),
        "Bytes a second of an absorbed decode kernel with few heads, as a share of bandwidth",
        note="Held against the bandwidth measured in the same run, because an H200 has 4.8 TB/s and not 3.35.",
        joins=(
            Join(
                "Share of measured read bandwidth, inner decode kernel of one rank",
                "attention.decode_kernel",
                model="v3-tp*",
                sizes="b128-s4096",
                device="cuda",
                of="mla/*",
                metric="byte_rate",
                per="read_bandwidth",
                pick="best",
                effect=Effect(0.89, 0.90),
                conditions=(
                    Condition("Kernel", "FlashMLA", "contender", "mla/flash?mla*"),
                    Condition("Hardware", "H800 SXM5", "device", "*H800*", essential=False),
                    Condition("Precision", "BF16", "shape.model.dtype", "bfloat16"),
                ),
            ),
        ),
    ),
    Claim(
        "FM-1b",
        "attention",
        "FlashMLA computes 660 TFLOP/s",
        "Decode that is bound by arithmetic reaches 660 TFLOP/s; at launch it was 580.",
        "660 TFLOP/s, 76 % of about 865 sustained",
        "H800 SXM5, CUDA 12.8, BF16 cache, absorbed form; clocks near 1600 MHz under this load",
        FLASH_MLA("README and deep-dive; launch figure in open-infra-index"),
        "FLOP/s of an absorbed decode kernel with 128 heads, as a share of the sustained rate",
        note="Held against the BF16 rate measured in the same run.",
        joins=(
            Join(
                "Share of measured BF16 rate, inner decode kernel of all 128 heads",
                "attention.decode_kernel",
                model="v3",
                sizes="b*-s*",
                device="cuda",
                of="mla/*",
                metric="flop_rate",
                per="matrix.bfloat16",
                pick="best",
                effect=Effect(0.757, 0.769),
                conditions=(
                    Condition("Kernel", "FlashMLA", "contender", "mla/flash?mla*"),
                    Condition("Hardware", "H800 SXM5", "device", "*H800*", essential=False),
                    Condition("Cache", "BF16", "shape.cache", "native"),
                ),
            ),
        ),
    ),
    Claim(
        "FM-2",
        "attention",
        "FlashMLA's sparse attention",
        "Sparse decode with an FP8 cache reaches 410 TFLOP/s, sparse prefill 640, and 1450 on a B200.",
        "410, 640 and 1450 TFLOP/s",
        "DeepSeek-V3.2's sparse attention; H800 and B200",
        FLASH_MLA("README"),
        "FLOP/s of sparse MLA kernels",
        "Operations for sparse attention, which this suite does not have: it compares what V2 and V3 use.",
    ),
)
