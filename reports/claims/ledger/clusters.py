"""Claims about clusters: pipelines, networks between GPUs, and what a step spends its time on."""

from __future__ import annotations

from .. import formulas as f
from ..claim import Claim, Sum
from .sources import DEEP_EP, INSIGHTS, PROFILES, V3

EXPERTS = (1 + 2) * 32 * 9 * 7000
STEP = 2 * EXPERTS / 50e9 * f.V3.layers
FAST = 2 * EXPERTS / 900e9 * f.V3.layers
BUBBLES = {both: f.bubbles(16, 1, 2, 1, both) for both in (3.0, 2.0)}
CLUSTER = "The cluster it was taken on: GPUs of several hosts on InfiniBand."

CLAIMS = (
    Claim(
        "V3-14",
        "model",
        "DualPipe leaves fewer bubbles",
        "DualPipe idles for (PP/2 − 1)(F&B + B − 3W), less than other schedules.",
        "(PP/2 − 1)(F&B + B − 3W)",
        "PP stages; F, B, W: forward, backward, the weights' part of it; F&B: both together",
        V3("table 2"),
        "Idle slots of a simulated schedule",
        "A simulator of the schedules that counts their idle slots.",
        beside="The formulas at PP = 16, F = 1, B = 2, W = 1, in units of F",
        checks=(
            Sum("1F1B", "15 × 3", BUBBLES[3.0]["1F1B"], "count"),
            Sum("ZB1P", "15 × 1", BUBBLES[3.0]["ZB1P"], "count"),
            Sum("DualPipe, no overlap", "7 × 2, F&B = 3", BUBBLES[3.0]["DualPipe"], "count"),
            Sum("DualPipe, full overlap", "7 × 1, F&B = 2", BUBBLES[2.0]["DualPipe"], "count"),
        ),
        note="Against ZB1P nearly all of the gain comes from overlapping communication.",
    ),
    Claim(
        "V3-15",
        "model",
        "20 of 132 SMs fill the network",
        "Twenty multiprocessors saturate InfiniBand and NVLink; a token could use 13 experts at the same cost.",
        "20 SMs; 3.2 experts a node, 13 in all",
        "H800; InfiniBand 50 GB/s, NVLink 160 GB/s, four nodes a token",
        V3("§3.2.2"),
        "Bandwidth of dispatch against multiprocessors used",
        CLUSTER,
        checks=(
            Sum("Experts a node", "160 / 50", 160 / 50, "count", 3.2, 0.05),
            Sum("On four nodes", "4 × 3.2", 4 * 160 / 50, "count", 13, 0.5),
        ),
    ),
    Claim(
        "IS-3",
        "model",
        "The network bounds generation",
        "Expert parallelism over InfiniBand allows 67 tokens a second at best, over NVLink of 900 GB/s about 1200.",
        "120.96 µs, 14.76 ms, 67 tokens a second; 6.72 µs, 0.82 ms, about 1200",
        "32 tokens a device, 9 experts, 7000 elements, FP8 out and BF16 back; no latency, no computation",
        INSIGHTS("§2.3.2"),
        "Bytes a layer over bandwidth",
        identity=(
            Sum("A layer, 50 GB/s", "(1 + 2) B × 32 × 9 × 7000 / 50 GB/s", EXPERTS / 50e9 * 1e9, "ns", 120960, 5),
            Sum("A token, 50 GB/s", "× 2 × 61", STEP * 1e9, "ns", 14.76e6, 5e3),
            Sum("Tokens a second", "1 / 14.76 ms, rounded down", 1 / STEP, "count", 67, 1),
            Sum("A layer, 900 GB/s", "the same / 900 GB/s", EXPERTS / 900e9 * 1e9, "ns", 6720, 5),
            Sum("A token, 900 GB/s", "× 2 × 61", FAST * 1e9, "ns", 0.82e6, 5e3),
            Sum("Tokens a second", "1 / 0.82 ms, “about”, within 50", 1 / FAST, "count", 1200, 50),
        ),
        note="V3's hidden size is 7168, which gives 123.9 µs. A rack of 72 GPUs has fewer than the 257 that one expert "
        "a GPU asks for.",
    ),
    Claim(
        "IS-5",
        "model",
        "Where a training step goes",
        "Times of the stages of one step.",
        "1F 1.13, 1B 1.99, 1W 0.48, 1F1B 13.95, bubble 2.06, optimizer 0.29 s",
        "2048 H800",
        INSIGHTS("table 4"),
        "Those times",
        "That cluster. A schedule simulator could only be fed with them.",
        checks=(
            Sum(
                "Their sum",
                "1.13 + 1.99 + 0.48 + 13.95 + 2.06 + 0.29",
                (1.13 + 1.99 + 0.48 + 13.95 + 2.06 + 0.29) * 1e9,
                "ns",
                19.926e9,
                0.03e9,
            ),
        ),
    ),
    Claim(
        "DE-1",
        "model",
        "DeepEP's bandwidth",
        "Dispatch and combine of large batches.",
        "153 / 158 GB/s in a node; 43 / 43, 58 / 57 and 51 / 50 GB/s over 16, 32 and 64 ranks",
        "H800, 4096 tokens, 4 groups and 8 experts a token, FP8 out and BF16 back; logical bandwidth, above the 50",
        DEEP_EP("docs/legacy.md"),
        "Bandwidth of dispatch and combine",
        CLUSTER,
    ),
    Claim(
        "DE-2",
        "model",
        "DeepEP's latency",
        "Dispatch and combine of small batches.",
        "77 / 114 µs over 8 ranks to 194 / 360 µs over 256",
        "H800, 128 tokens, 7168 elements, 8 experts a token, FP8 out and BF16 back",
        DEEP_EP("docs/legacy.md"),
        "Latency of dispatch and combine",
        CLUSTER,
    ),
    Claim(
        "DE-3",
        "model",
        "DeepEP's second version",
        "The second version is up to 1.3 times as fast with up to four times fewer multiprocessors.",
        "1.3×; 24 → 4 to 6 SMs in V3's training; 90 / 81 GB/s with 12 SMs",
        "8K tokens, logical bandwidth",
        DEEP_EP("README"),
        "Bandwidth against multiprocessors used",
        CLUSTER,
    ),
    Claim(
        "PD-1",
        "model",
        "Traces of overlap",
        "Profiles of training, prefill and decode show communication hidden behind computation.",
        "traces; no figure",
        "4K tokens; 64, 32 and 128 ranks; routing simulated as perfectly even",
        PROFILES("README"),
        "Overlap of communication and computation",
        CLUSTER + " The even routing in these traces is an input, not a measurement of balance.",
    ),
)
