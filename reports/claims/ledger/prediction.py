"""Claims about multi-token prediction: quality, acceptance, speed of generation."""

from __future__ import annotations

from ..claim import Claim, Condition, Effect, Join, Sum
from .sources import ARTICLE, PARALLEL_HEADS, V3

UNCHANGED = 0.0015 / 0.657  # the largest printed difference, 0.001, with its rounding
V3_MODEL = Condition("Model", "DeepSeek-V3", ours="a small model of bytes")
TOPICS = Condition("Text", "several topics", ours="bytes kept back from training", essential=False)
SCORED = Condition("Model and data", "15.7B and 228.7B, 0.54T to 1.33T tokens", ours="a small model of bytes, minutes")


def _accepted(operation: str, words: str, of: str, metric: str = "acceptance", pick: str = "first") -> Join:
    """How often a first draft stood."""
    return Join(
        words,
        operation,
        of=of,
        metric=metric,
        pick="mean" if pick == "mean" else "first",
        effect=Effect(0.845, 0.905),
        conditions=(V3_MODEL, TOPICS),
    )


def _bits(operation: str, words: str, of: str, over: str, form: str, effect: Effect, held: Condition = SCORED) -> Join:
    """Validation of the next symbol with a way of predicting further ones, against without."""
    return Join(
        words,
        operation,
        of=of,
        over=over,
        metric="validation_bits",
        form="distance" if form == "distance" else "change",
        pick="mean",
        effect=effect,
        conditions=(held,),
    )


def _speed_up(accepted: float, overhead: float) -> Sum:
    """(1 + p) / (1 + c): tokens a step over the time of one, in plain steps."""
    words = f"(1 + {accepted:.2f}) / (1 + {overhead:.3f})"
    name = f"Acceptance {accepted:.0%}, overhead {overhead:.1%}"
    return Sum(name, words, (1 + accepted) / (1 + overhead), "ratio", 1.8, 0.05)


CLAIMS = (
    Claim(
        "SEED-MTP",
        "objective",
        "Tokens are generated at once and linked",
        "MTP links several tokens that are generated at the same time, and so changes generation itself.",
        "no figure",
        "none stated",
        ARTICLE("on multi-token prediction"),
        "Whether generation with and without the module gives the same tokens, and how fast",
        "The objective study: greedy generation with a trained module, held token by token against plain decoding.",
        note="V3 predicts one further token, in sequence and with the full causal chain. The module is normally "
        "dropped after training; kept, it drafts tokens that the model verifies, and the output stays the same.",
        joins=(
            Join(
                "Speed-up of generation with drafts, whose tokens were verified to be plain decoding's to the last",
                "objective.generate",
                of="mtp/*",
                over="ntp/*",
                metric="latency",
                form="speed-up",
                effect=Effect(none=1.0),
                conditions=(Condition("Tokens", "several at once, linked", ours="those of plain decoding"),),
            ),
        ),
    ),
    Claim(
        "V3-7",
        "objective",
        "The second token is accepted in 85 to 90 % of cases",
        "The token that the module drafts is accepted by the model in 85 to 90 % of cases.",
        "85 to 90 %",
        "several topics of generation; the later ISCA paper says 80 to 90 %",
        V3("§5.4.3"),
        "Acceptance rate of a trained module, greedy and sampled, on held-out text",
        "The objective study with a trained module. With random weights acceptance is an input, not a result; a small "
        "model's rate is its own.",
        joins=(
            _accepted("objective.loss", "First drafts that stood, greedily, mean over seeds", "mtp/*", pick="mean"),
            _accepted(
                "objective.loss",
                "First drafts that stood, drawn at temperature 1, mean over seeds",
                "mtp/*",
                "acceptance_sampled",
                "mean",
            ),
            _accepted("objective.generate", "First drafts that stood in the generation that was timed", "mtp/*"),
            _accepted("model.ladder", "First drafts that stood, one model with all four ideas", "mla-moe-fp8-mtp/*"),
        ),
    ),
    Claim(
        "V3-8",
        "objective",
        "Speculative decoding is 1.8 times as fast",
        "Drafting with the module makes generation 1.8 times as fast.",
        "1.8× tokens a second",
        "with an acceptance of 85 to 90 %",
        V3("§5.4.3"),
        "Tokens a second with and without drafting, and the overhead of draft and verification",
        "The objective study: generation with a trained module beside plain decoding.",
        beside="What 1.8 implies",
        checks=(_speed_up(0.80, 0.0), _speed_up(0.85, 0.028), _speed_up(0.90, 0.056)),
        note="1.8 leaves almost no time for drafting and for verifying two tokens instead of one.",
        joins=(
            Join(
                "Speed-up of generation with drafts over plain decoding, the best of each",
                "objective.generate",
                of="mtp/*",
                over="ntp/*",
                metric="latency",
                form="speed-up",
                effect=Effect(1.75, 1.85, none=1.0),
                conditions=(Condition("Model", "DeepSeek-V3", "model", "v3"),),
            ),
            Join(
                "Cost of a speculative step: time with drafts of which none is kept over plain decoding's, less 1; a "
                "speed-up of 1.8 allows 5.6 %",
                "objective.generate",
                of="mtp/refused*",
                over="ntp/*",
                metric="latency",
                form="change",
                effect=Effect(0.0, 0.056, none=0.056, larger=False),
                conditions=(Condition("Model", "DeepSeek-V3", "model", "v3"),),
            ),
            Join(
                "Speed-up of whole models with MLA and experts, the best of each",
                "model.generate",
                of="mla-moe-bf16-mtp/*",
                over="mla-moe-bf16-ntp/*",
                metric="latency",
                form="speed-up",
                effect=Effect(1.75, 1.85, none=1.0),
                conditions=(V3_MODEL,),
            ),
        ),
    ),
    Claim(
        "V3-9",
        "objective",
        "Training with MTP improves scores",
        "With the module in training most scores rise, while the loss a byte stays.",
        "HumanEval 20.7 → 26.8, GSM8K 25.4 → 31.4, bits a byte 0.729 → 0.729; large: 0.658 → 0.657, MMLU 67.5 → 66.6",
        "15.7B on 1.33T tokens; 228.7B on 540B",
        V3("table 4"),
        "Validation loss of the main head, trained with and without the module, several seeds",
        "The objective study's training on at least five seeds. Expect no difference or a loss: published gains begin "
        "with larger models.",
        note="Scores need a large model; of the claim only the loss a byte can be looked at in a small one.",
        joins=(
            _bits(
                "objective.loss",
                "Distance of validation bits a byte with MTP from those without, mean over seeds; 0.23 % as printed",
                "mtp/*",
                "ntp/*",
                "distance",
                Effect(0.0, UNCHANGED, none=UNCHANGED, larger=False),
            ),
            _bits(
                "objective.loss",
                "The same with its sign: below 0 is better with MTP",
                "mtp/*",
                "ntp/*",
                "change",
                Effect(none=0.0, larger=False),
            ),
            _bits(
                "model.ladder",
                "Change of validation bits a byte with MTP, one model with MLA, experts and FP8: below 0 is better",
                "mla-moe-fp8-mtp/*",
                "mla-moe-fp8-ntp/*",
                "change",
                Effect(none=0.0, larger=False),
            ),
        ),
    ),
    Claim(
        "G24-1",
        "objective",
        "Parallel heads generate three times as fast",
        "Models with four heads generate three times as fast; quality gains grow with size and small models lose.",
        "3.0× code, 2.7× text, 6.4× for bytes",
        "7B, four tokens; 300M to 13B for quality",
        PARALLEL_HEADS("§3"),
        "Speed-up and validation loss with one, two and four heads, also on bytes",
        "The objective study with parallel heads.",
        joins=(
            _bits(
                "objective.loss",
                "Change of validation bits a byte with one parallel head more, mean over seeds: above 0 it loses",
                "mtp-parallel/*",
                "ntp/*",
                "change",
                Effect(none=0.0),
                Condition(
                    "Quality", "scores in code, 300M to 13B, four heads", ours="bits a byte, small model, two heads"
                ),
            ),
        ),
    ),
    Claim(
        "G24-2",
        "objective",
        "Small models learn algorithms better",
        "MTP helps induction up to 30M parameters and polynomial arithmetic more than tripling the size does.",
        "induction better up to 30M, no difference from 100M on",
        "1M to 1B parameters",
        PARALLEL_HEADS("§4"),
        "Accuracy in induction and in F7[X]/(X^5) with one and with two heads",
        "The two tasks as training data of the objective study; at these sizes the claim can be tested as published.",
    ),
)
