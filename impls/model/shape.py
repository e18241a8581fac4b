"""Sizes and axes of the language model: which attention, which feed-forward layer, multiplied how, trained for what."""

from __future__ import annotations

from dataclasses import dataclass

from ..attention import cost as attention_cost
from ..attention.shape import AttentionShape
from ..ffn import cost as ffn_cost
from ..ffn.shape import FfnShape, Router
from .linear import LINEARS

SYMBOLS = 256
ATTENTIONS = ("mha", "gqa", "mqa", "mla")
FEEDS = ("dense", "dense-total", "moe", "moe-coarse")
OBJECTIVES = ("ntp", "mtp", "mtp-parallel")


@dataclass(frozen=True)
class ModelShape:
    """A decoder of `attention.layers` blocks over `symbols` symbols.

    technique  of attention: mha, gqa, mqa or mla
    feed       of the feed-forward layers: dense, dense-total, moe or moe-coarse, in the words of the ffn study
    leading    how many blocks at the front are dense whatever `feed` is, of as many active parameters as the mixture
               (DeepSeek-V2: 1, V3: 3; the first layer's load evens out slowest, DeepSeekMoE §5.1.2)
    linear     of the projections: "bf16", the dtype computed in whatever that is, or fp8, fp8-row and fp8-tensor in the
               words of the linear study; what stays out of FP8 is told in `linear.py`
    objective  "ntp": the next symbol; "mtp": also `depth` symbols after it, each by a module that follows the one
               before (DeepSeek-V3); "mtp-parallel": the same symbols by heads beside the last block (`ahead.py`)
    Both shapes hold the same hidden size and dtype, which is the one computed in; parameters are kept in FP32.
    Raises ValueError for axes that are unknown and sizes that do not fit together.
    """

    attention: AttentionShape
    ffn: FfnShape
    technique: str = "mla"
    feed: str = "moe"
    leading: int = 1
    symbols: int = SYMBOLS
    linear: str = "bf16"
    objective: str = "ntp"
    depth: int = 1

    def __post_init__(self) -> None:
        axes = (("technique", ATTENTIONS), ("feed", FEEDS), ("linear", LINEARS), ("objective", OBJECTIVES))
        for name, value, known in ((name, getattr(self, name), known) for name, known in axes):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if (self.attention.hidden, self.attention.dtype) != (self.ffn.hidden, self.ffn.dtype):
            raise ValueError(
                f"attention has hidden size {self.attention.hidden} in {self.attention.dtype}, ffn {self.ffn.hidden} "
                f"in {self.ffn.dtype}: they must be the same"
            )
        if not 0 <= self.leading <= self.layers:
            raise ValueError(f"leading is {self.leading}, expected 0 to {self.layers}, the number of layers")
        if self.depth < 1:
            raise ValueError(f"depth is {self.depth}, expected at least 1")

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.attention.hidden

    @property
    def in_fp8(self) -> bool:
        """Whether the projections are in FP8."""
        return self.linear != "bf16"

    @property
    def layers(self) -> int:
        """Blocks."""
        return self.attention.layers

    @property
    def ahead(self) -> int:
        """How many symbols after the next one are predicted."""
        return 0 if self.objective == "ntp" else self.depth

    def feed_of(self, layer: int) -> str:
        """The feed-forward layer of a block, counted from 0."""
        return "dense" if layer < self.leading and self.feed.startswith("moe") else self.feed

    @property
    def mixtures(self) -> tuple[int, ...]:
        """The blocks that have a mixture of experts, counted from 0."""
        return tuple(layer for layer in range(self.layers) if self.feed_of(layer).startswith("moe"))

    @property
    def rule(self) -> Router:
        """How tokens of the mixtures choose."""
        return self.ffn.of(self.feed).router


def parameters(shape: ModelShape, active: bool = False) -> int:
    """Entries of all matrices, or of those one token uses where only the next one is predicted, which is what a model
    can be served with whatever it was trained for; the norms' vectors are left out, as in the cost models."""
    layers = shape.layers if active else shape.layers + shape.ahead
    blocks = sum(ffn_cost.parameters(shape.ffn, shape.feed_of(layer), active) for layer in range(layers))
    blocks += layers * attention_cost.parameters(shape.attention, shape.technique)
    if shape.objective == "mtp" and not active:
        blocks += shape.ahead * 2 * shape.hidden**2
    return blocks + (shape.hidden if active else shape.symbols * shape.hidden) + shape.symbols * shape.hidden


def small_shape(
    hidden: int = 128,
    layers: int = 4,
    head_dim: int = 32,
    width: int = 64,
    router: Router | None = None,
    technique: str = "mla",
    feed: str = "moe",
    leading: int = 1,
    dtype: str = "float32",
    linear: str = "bf16",
    objective: str = "ntp",
    depth: int = 1,
) -> ModelShape:
    """A model in DeepSeek's proportions at any size: MLA with a latent of 2 heads and RoPE of half a head, GQA with
    half the heads, one shared expert; by default the 16 experts, 4 of them active, of the balance study."""
    heads = hidden // head_dim
    attention = AttentionShape(
        hidden=hidden,
        heads=heads,
        kv_heads=max(1, heads // 2),
        layers=layers,
        head_dim=head_dim,
        latent=2 * head_dim,
        nope_dim=head_dim,
        rope_dim=head_dim // 2,
        value_dim=head_dim,
        dtype=dtype,
    )
    rule = router or Router(16, 4, score="sigmoid", groups=4, top_groups=2, normalise=True)
    ffn = FfnShape(hidden, width, 1, rule, dtype)
    return ModelShape(attention, ffn, technique, feed, leading, linear=linear, objective=objective, depth=depth)
