"""Feed-forward sizes of a model configuration: its mixture of experts, or the one a dense model would have.

A dense model is converted in the proportions of DeepSeek-V2-Lite: 64 routed experts, 6 of them active, and 2 shared,
each an eighth of its width, so that as many parameters are active as before.
"""

from __future__ import annotations

from benches.models import GROUPED, LATENT, Config, configuration
from impls.ffn import recorded
from impls.ffn.shape import FfnShape, Router, TokenShape

ROUTED, ACTIVE, SHARED = 64, 6, 2
SOFTMAX = {"mixtral": "num_local_experts", "qwen2_moe": "num_experts", "qwen3_moe": "num_experts"}
COUNTS = SOFTMAX | dict.fromkeys(LATENT, "n_routed_experts")
RECORDED = "recorded"
Skew = float | str
TOP_K, GROUPS, TOP_GROUPS = "num_experts_per_tok", "n_group", "topk_group"


def ffn_shape(name_or_path: str) -> tuple[str, FfnShape]:
    """Label and sizes of a bundled model or a config.json, in BF16.

    Raises ValueError for configurations that do not describe such a layer, naming the file and the fields.
    """
    label, config = configuration(name_or_path)
    kind = config.word("model_type", (*GROUPED, *LATENT))
    config.check()  # of another type no field means anything
    if kind in LATENT:
        shape = _deepseek(config)
    elif kind in SOFTMAX:
        shape = _softmax(config, SOFTMAX[kind], normalise=kind == "mixtral")
    else:
        shape = _converted(config)
    config.check()
    return label, shape


def token_shape(model: FfnShape, tokens: int, skew: Skew) -> TokenShape:
    """So many tokens through one layer, routed by an exponent or as a trained router was recorded to."""
    if isinstance(skew, str):
        return TokenShape(model, tokens, recorded=recorded.digest())
    return TokenShape(model, tokens, skew)


def skew_of(word: str) -> Skew:
    """An exponent of at least 0, or "recorded". Raises ValueError for another word."""
    if word == RECORDED:
        return word
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"SKEW={word}: expected 0 (uniform), 1 (Zipf's law), another exponent above 0, or {RECORDED}")
    return found


def experts_field(name_or_path: str) -> str | None:
    """What the model's configuration calls the number of its routed experts; None for a dense model."""
    return COUNTS.get(str(configuration(name_or_path)[1].fields.get("model_type")))


def _read(config: Config, count: str) -> None:
    """Raises ValueError where a field of the mixture is missing or wrong by itself."""
    if config.missing:
        config.problem("model_type", f"that of a dense model, such as llama, if there is no {count} and the like")
    config.check()


def _deepseek(config: Config) -> FfnShape:
    count = COUNTS[config.word("model_type")]
    router = {
        "experts": config.whole(count),
        "top_k": config.whole(TOP_K),
        "score": config.word("scoring_func", ("softmax", "sigmoid")),
        "groups": config.whole(GROUPS, default=1),
        "top_groups": config.whole(TOP_GROUPS, default=1),
        "normalise": bool(config.fields.get("norm_topk_prob")),
        "scale": config.number("routed_scaling_factor", default=1.0),
    }
    shared = config.whole("n_shared_experts") if config.has("n_shared_experts") else 0
    hidden, width = config.whole("hidden_size"), config.whole("moe_intermediate_size")
    _read(config, count)
    _fit_together(config, count, **{name: router[name] for name in ("experts", "top_k", "groups", "top_groups")})
    return FfnShape(hidden, width, shared, Router(**router))


def _softmax(config: Config, count: str, normalise: bool) -> FfnShape:
    """Mixtral, whose gate is a softmax over the chosen, and the Qwen mixtures."""
    hidden = config.whole("hidden_size")
    width = config.whole("intermediate_size" if normalise else "moe_intermediate_size")
    experts, top_k = config.whole(count), config.whole(TOP_K)
    wide = "shared_expert_intermediate_size"
    shared_width = config.whole(wide) if config.has(wide) else 0
    _read(config, count)
    if shared_width % width:
        config.problem(wide, f"a multiple of moe_intermediate_size, {width}")
    _fit_together(config, count, experts, top_k)
    normalise = normalise or bool(config.fields.get("norm_topk_prob"))
    return FfnShape(hidden, width, shared_width // width, Router(experts, top_k, normalise=normalise))


def _fit_together(config: Config, count: str, experts: int, top_k: int, groups: int = 1, top_groups: int = 1) -> None:
    """Raises ValueError for numbers that are right one by one and not together, by the names the file gives them."""
    if top_k > experts:
        config.problem(TOP_K, f"at most {count}, {experts}")
    if experts % groups:
        config.problem(GROUPS, f"a divisor of {count}, {experts}")
    elif top_groups > groups:
        config.problem(TOP_GROUPS, f"at most {GROUPS}, {groups}")
    elif top_groups * (experts // groups) < top_k <= experts:
        most = top_groups * (experts // groups)
        config.problem(
            TOP_K, f"at most {most}: {TOP_GROUPS}, {top_groups}, of {GROUPS}, {groups}, have that many experts"
        )
    config.check()


def _converted(config: Config) -> FfnShape:
    hidden, width = config.whole("hidden_size"), config.whole("intermediate_size")
    config.check()
    if width < ACTIVE + SHARED:
        config.problem("intermediate_size", f"at least {ACTIVE + SHARED}, the experts it would be divided among")
    for count in sorted({*COUNTS.values()}):
        if config.has(count) and config.fields[count] not in (0, 1):
            config.problem(count, f"none where model_type is {config.word('model_type')}, a dense model")
    config.check()
    return FfnShape(hidden, width // (ACTIVE + SHARED), SHARED, Router(ROUTED, ACTIVE))
