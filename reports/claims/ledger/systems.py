"""Claims about whole models: sizes, costs, throughput."""

from __future__ import annotations

from .. import formulas as f
from ..claim import Claim, Condition, Effect, Join, Sum
from .sources import ARTICLE, INSIGHTS, OPEN_INFRA, V2, V3

G = 1e9
HOUR = 3600.0
FLOPS = {
    name: f.training_flops(model) / G
    for name, model in (("V2", f.V2), ("V3", f.V3), ("Qwen", f.QWEN_72B), ("LLaMA", f.LLAMA_405B))
}
RATIO = f.training_flops(f.V2) / f.training_flops(f.DEEPSEEK_67B)


def _pair(printed: float) -> Effect:
    return Effect(printed - 0.005, printed + 0.005, none=1.0)


def _decode(over: str, words: str) -> Join:
    return Join(
        f"Speed-up of one decode layer, MLA over {words}, the best of each",
        "attention.decode",
        sizes="b128-s4096*",
        of="mla/*",
        over=f"{over}/*",
        metric="latency",
        form="speed-up",
        effect=_pair(5.76),
        conditions=(
            Condition("What is timed", "a whole server", ours="one attention layer"),
            Condition("Compared with", "DeepSeek 67B, a dense model", ours=f"the same layer with {words}"),
            Condition("Precision", "FP8 weights, cache at 6 bits", "shape.model.dtype", "float8*"),
        ),
    )


WHOLE = Join(
    "Tokens a second of a small model with MLA, experts and FP8 over one with MHA, dense layers and no FP8",
    "model.ladder",
    of="mla-moe-fp8-ntp/*",
    over="mha-dense-bf16-ntp/*",
    metric="generate_rate_8",
    form="ratio",
    effect=_pair(5.76),
    conditions=(
        Condition("What is timed", "a server at its largest batch", ours="eight sequences, prompts included"),
        Condition("Compared with", "DeepSeek 67B with GQA", ours="as many active parameters, MHA"),
        Condition("Precision", "cache at 6 bits", ours="the cache is not quantized"),
    ),
)


def _step(operation: str, metric: str, who: str, words: str) -> Join:
    return Join(
        f"Saving of a training step's time, {words} over MHA and a dense layer as active, without FP8",
        operation,
        of=f"{who}/*",
        over="mha-dense-bf16-ntp/*",
        metric=metric,
        form="saving",
        effect=Effect(0.4245, 0.4255, none=0.0),
        conditions=(
            Condition("Model", "DeepSeek-V2, 236B", ours="a few layers"),
            Condition("Compared with", "a dense model of 3.2 times the active parameters", ours="as many active"),
        ),
    )


CLAIMS = (
    Claim(
        "V2-2",
        "model",
        "5.76 times the throughput",
        "DeepSeek-V2 generates 5.76 times as many tokens a second as DeepSeek 67B at most.",
        "5.76×, more than 50K tokens a second",
        "one node of 8 H800; FP8 weights, cache at 6 bits, lengths of DeepSeek 67B's real traffic",
        V2("§3.2.3"),
        "Tokens a second of both models at the largest batch that fits, on one node",
        "Both models on such a node. Which part is MLA's and which the mixture's, the model study can show in small.",
        beside="How many more tokens fit in the same memory",
        checks=(
            Sum(
                "Cache of 67B over V2's",
                "389,120 B / 25,920 B",
                f.kv_bytes(f.DEEPSEEK_67B) / f.kv_bytes(f.V2, bits=6),
                "ratio",
            ),
            Sum("of which precision", "16 bits / 6 bits", f.BF16 / 6, "ratio"),
        ),
        note="The figure is MLA, experts, FP8 weights, a smaller cache format and a load at once.",
        joins=(_decode("gqa", "GQA"), _decode("mha", "MHA"), WHOLE),
    ),
    Claim(
        "V2-3",
        "model",
        "100K prompt tokens a second",
        "A node takes in more than 100K tokens of prompts a second.",
        "more than 100K tokens a second",
        "one node of 8 H800",
        V2("§3.2.3"),
        "Tokens a second of prefill of that model",
        "The model on such a node.",
    ),
    Claim(
        "V2-4",
        "model",
        "Training costs 42.5 % less",
        "Training DeepSeek-V2 takes 42.5 % fewer GPU hours a token than DeepSeek 67B.",
        "−42.5 %: 172.8K against 300.6K H800 hours for 1T tokens",
        "both on the same cluster",
        V2("§3.2.3"),
        "Time of a training step of both models, and their FLOPs a token",
        "Training steps of both kinds of model, in small, in the model study.",
        checks=(
            Sum("From the printed hours", "1 − 172.8 / 300.6", 1 - 172.8 / 300.6, "share", 0.425, 0.0005),
            Sum("From FLOPs a token", "1 − 155.3 / 418.6 GFLOP", 1 - RATIO, "share"),
        ),
        note="V2 needs 63 % fewer FLOPs a token and saved 42.5 % of the hours: its experts ran at about 250 TFLOP/s a "
        "GPU, the dense model at about 387.",
        joins=(
            _step("model.train_step", "latency", "mla-moe-bf16-ntp", "MLA and experts"),
            _step("model.train_step", "latency", "mha-moe-bf16-ntp", "experts alone"),
            _step("model.ladder", "step_time", "mla-moe-bf16-ntp", "MLA and experts"),
        ),
    ),
    Claim(
        "V2-5",
        "model",
        "236B parameters, 21B active",
        "DeepSeek-V2 has 236B parameters, of which a token uses 21B.",
        "236B and 21B",
        "its configuration",
        V2("abstract"),
        "Parameters, counted from the configuration",
        identity=(
            Sum("In all", "embedding, 60 layers, head", f.parameters(f.V2), "count", 236 * G, 0.5 * G),
            Sum(
                "A token's", "6 of 160 experts and 2 shared", f.parameters(f.V2, active=True), "count", 21 * G, 0.5 * G
            ),
        ),
    ),
    Claim(
        "V3-1",
        "model",
        "671B parameters, 37B active",
        "DeepSeek-V3 has 671B parameters, of which a token uses 37B.",
        "671B and 37B",
        "its configuration",
        V3("abstract, §4.2"),
        "Parameters, counted from the configuration",
        identity=(
            Sum("In all", "embedding, 61 layers, head", f.parameters(f.V3), "count", 671 * G, 0.5 * G),
            Sum(
                "A token's, without the input embedding",
                "8 of 256 experts and 1 shared",
                f.parameters(f.V3, active=True, embedding=False),
                "count",
                37 * G,
                0.5 * G,
            ),
        ),
        checks=(Sum("With the input embedding", "0.93B more", f.parameters(f.V3, active=True), "count"),),
        note="37B fits only without the input embedding.",
    ),
    Claim(
        "V3-2",
        "model",
        "Trained for 5.576 million dollars",
        "Training DeepSeek-V3 took 2.788M GPU hours, or 5.576 million dollars at 2 dollars an hour.",
        "2.788M H800 hours, $5.576M",
        "14.8T tokens, 2048 GPUs; earlier research and experiments are not in it",
        V3("§1, table 1"),
        "The sum of the published parts",
        identity=(
            Sum("Hours of pre-training", "14.8T tokens × 180K hours a trillion", 14.8 * 180e3, "count", 2.664e6, 500),
            Sum("Dollars", "2.788M × 2", 2.788e6 * 2, "count", 5.576e6, 500),
        ),
        beside="Whether the hours are plausible",
        checks=(
            Sum(
                "FLOP/s a GPU that they imply",
                "250.4 GFLOP × 14.8T / (2.664M × 3600 s)",
                FLOPS["V3"] * G * 14.8e12 / (2.664e6 * HOUR),
                "FLOP/s",
                385e12,
                1.5e12,
            ),
            Sum(
                "Hours at the daily throughput",
                "14.8T / 272.8B × 24 h × 2048",
                14.8e12 / 272.8e9 * 24 * 2048,
                "count",
                2.664e6,
                4e3,
            ),
        ),
        note="The hours cannot be checked here. They agree with a throughput published later (385 TFLOP/s a GPU, "
        "272.8B tokens a day).",
    ),
    Claim(
        "SEED-COST",
        "model",
        "Extremely low costs",
        "DeepSeek's models are trained at extremely low costs.",
        "no figure of its own",
        "none stated",
        ARTICLE("on costs"),
        "Cost of all that led to the models",
        "The company's books. Published is the last training run alone.",
        note="The 5.576 million dollars of V3-2 leave out research and experiments before it; R1 adds 294,000 on top.",
    ),
    Claim(
        "V3-16",
        "model",
        "Twice as fast as DeepSeek-V2",
        "Deployed, DeepSeek-V3 generates more than twice as fast as DeepSeek-V2.",
        "more than 2×",
        "DeepSeek's own deployment",
        V3("§6"),
        "Tokens a second of both deployments",
        "Both models, each as DeepSeek serves it.",
    ),
    Claim(
        "IS-2",
        "model",
        "FLOPs of training on a token",
        "Training computation a token of four models.",
        "155, 250, 394 and 2448 GFLOP: V2, V3, Qwen-72B, LLaMA-405B",
        "sequences of 4096 tokens",
        INSIGHTS("table 2"),
        "FLOPs a token: 6 for each parameter used, the input embedding left out, and 3 times causal attention",
        identity=(
            Sum("DeepSeek-V2", "6 × 20.85B + attention", FLOPS["V2"] * G, "count", 155 * G, 0.5 * G),
            Sum("DeepSeek-V3", "6 × 36.62B + attention", FLOPS["V3"] * G, "count", 250 * G, 0.5 * G),
            Sum(
                "LLaMA-3.1-405B", "6 × 403.7B + attention, within 1.5 %", FLOPS["LLaMA"] * G, "count", 2448 * G, 37 * G
            ),
            Sum("Qwen-72B", "6 × 71.5B + attention, within 1.5 %", FLOPS["Qwen"] * G, "count", 394 * G, 6 * G),
        ),
        note="How the table counts is not stated. One formula gives both DeepSeek rows to the last digit and LLaMA's "
        "within 1 %; Qwen's row is 11 % below it, so the rows are not counted alike.",
    ),
    Claim(
        "IS-4",
        "model",
        "Throughput of training DeepSeek-V3",
        "Training takes in 272.8B tokens a day at 39 % (causal) or 44 % (full) of the BF16 peak.",
        "19.926 s a step, 385 and 432 TFLOP/s, 38.94 and 43.73 %",
        "2048 H800",
        INSIGHTS("table 4"),
        "FLOP/s of a training step over the peak, by both ways of counting attention",
        "That cluster; the model study gives this machine's share for a small model.",
        checks=(
            Sum(
                "FLOP/s a GPU from tokens a day",
                "250.4 GFLOP × 272.8B / (86,400 s × 2048)",
                FLOPS["V3"] * G * 272.8e9 / (24 * HOUR * 2048),
                "FLOP/s",
                385e12,
                1.5e12,
            ),
        ),
    ),
    Claim(
        "IS-7",
        "model",
        "Experts at home",
        "A mixture runs at about 20 tokens a second on one's own machine.",
        "about 20 tokens a second",
        "V2 on a PC with an AI chip; V3 on a box of 10,000 dollars; one request",
        INSIGHTS("§2.2.2"),
        "Tokens a second of those models on such machines",
        "Those machines and the models.",
    ),
    Claim(
        "IN-1",
        "model",
        "Margin of 545 %",
        "A day of serving costs 87,072 dollars and would earn 562,027 at R1's prices.",
        "73.7K tokens in and 14.8K out a second and node; 545 %",
        "24 hours on 27 and 28 February 2025; everything priced as R1; 56.3 % of the input from the cache",
        OPEN_INFRA("day 6"),
        "The sums of the published parts",
        identity=(Sum("Margin", "(562,027 − 87,072) / 87,072", (562027 - 87072) / 87072, "share", 5.45, 0.005),),
        note="Theoretical, as the source says: much of the traffic is free or discounted. Tokens a second cannot be "
        "checked without the cluster.",
    ),
)
