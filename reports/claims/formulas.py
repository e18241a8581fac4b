"""Cache, parameters and FLOPs a token of published models, from their configurations: plain integers, no torch.

The suite's own cost models (`impls/`) need torch; tests hold these formulas against them. Sizes are those of the
DeepSeek-V2 report (section 3.1.2, appendix B), the V3 report (section 4.2), DeepSeek LLM (arXiv 2401.02954), Llama 3.1
(arXiv 2407.21783) and Qwen2.5 (arXiv 2412.15115). Norms' vectors and biases are left out: they are below 0.01 %.
"""

from __future__ import annotations

from dataclasses import dataclass

BF16, FP8 = 16, 8


@dataclass(frozen=True)
class Latent:
    """Multi-head Latent Attention: sizes of latents and of a head's parts; no query latent where it is 0."""

    latent: int = 512
    query_latent: int = 1536
    nope: int = 128
    rope: int = 64
    value: int = 128


@dataclass(frozen=True)
class Experts:
    """Mixture layers: all but the first `dense_layers`; widths are of one expert."""

    routed: int
    shared: int
    top_k: int
    width: int
    dense_layers: int


@dataclass(frozen=True)
class Model:
    """A decoder. `width` is that of its dense feed-forward layers."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    width: int
    vocabulary: int
    head: int = 128
    latent: Latent | None = None
    experts: Experts | None = None


V2_LITE = Model(27, 2048, 16, 16, 10944, 102400, latent=Latent(query_latent=0), experts=Experts(64, 2, 6, 1408, 1))
V2 = Model(60, 5120, 128, 128, 12288, 102400, latent=Latent(), experts=Experts(160, 2, 6, 1536, 1))
V3 = Model(61, 7168, 128, 128, 18432, 129280, latent=Latent(), experts=Experts(256, 1, 8, 2048, 3))
DEEPSEEK_67B = Model(95, 8192, 64, 8, 22016, 102400)
QWEN_72B = Model(80, 8192, 64, 8, 29568, 152064)
LLAMA_405B = Model(126, 16384, 128, 8, 53248, 128256)


def kv_elements(model: Model, heads: int | None = None) -> int:
    """Elements that one token leaves in the caches of all layers; with `heads`, as if keys and values had so many.

    DeepSeek-V2 section 2.1.4, table 1.
    """
    if model.latent is None or heads is not None:
        return 2 * (model.kv_heads if heads is None else heads) * model.head * model.layers
    return (model.latent.latent + model.latent.rope) * model.layers


def kv_bytes(model: Model, bits: int = BF16, heads: int | None = None) -> float:
    """The same in bytes, at so many bits an element."""
    return kv_elements(model, heads) * bits / 8


def attention_parameters(model: Model) -> int:
    """Entries of one attention layer's matrices."""
    part = model.latent
    if part is None:
        return 2 * model.hidden * model.head * (model.heads + model.kv_heads)
    query = model.heads * (part.nope + part.rope)
    queries = part.query_latent * (model.hidden + query) if part.query_latent else model.hidden * query
    keys_values = model.hidden * (part.latent + part.rope) + part.latent * model.heads * (part.nope + part.value)
    return queries + keys_values + model.heads * part.value * model.hidden


def feed_forward_parameters(model: Model, active: bool) -> int:
    """Entries of all feed-forward layers, or of those that one token uses."""
    one = model.experts
    if one is None:
        return model.layers * 3 * model.hidden * model.width
    count = (one.top_k if active else one.routed) + one.shared
    mixture = 3 * model.hidden * one.width * count + one.routed * model.hidden
    return one.dense_layers * 3 * model.hidden * model.width + (model.layers - one.dense_layers) * mixture


def parameters(model: Model, active: bool = False, embedding: bool = True) -> int:
    """All entries, or those one token uses; the output head is counted, the input embedding if asked for."""
    ends = model.vocabulary * model.hidden * (1 + embedding)
    return model.layers * attention_parameters(model) + feed_forward_parameters(model, active) + ends


def attention_flops(model: Model, length: int) -> float:
    """Forward FLOPs of scores and sums a token, causal, mean over a sequence of `length`; keys and values expanded."""
    part = model.latent
    size = 2 * model.head if part is None else part.nope + part.rope + part.value
    return model.layers * model.heads * size * 2 * length / 2


def training_flops(model: Model, length: int = 4096) -> float:
    """FLOPs of training on a token: 6 for each parameter used, the input embedding left out, and 3 times attention."""
    return 6.0 * parameters(model, active=True, embedding=False) + 3.0 * attention_flops(model, length)


def cached_token_products(model: Model, absorbed: bool) -> int:
    """Multiplications and additions of one query with one cached token, all heads of a layer.

    Absorbed: in the latent (DeepSeek-V2 section 2.1.2); otherwise heads as MHA has them.
    """
    part = model.latent
    if part is None or not absorbed:
        return model.heads * 2 * model.head
    return model.heads * (2 * part.latent + part.rope)


def bubbles(stages: int, forward: float, backward: float, weights: float, overlapped: float) -> dict[str, float]:
    """Idle time of a pipeline by schedule (DeepSeek-V3 table 2); `overlapped` is a forward and a backward together."""
    return {
        "1F1B": (stages - 1) * (forward + backward),
        "ZB1P": (stages - 1) * (forward + backward - 2 * weights),
        "DualPipe": (stages / 2 - 1) * (overlapped + backward - 3 * weights),
    }
