"""What does a mixture of experts buy over a dense layer, of equal active and of equal total parameters?

Measured as whole layers and by what they are made of: routing, permutation, the experts' products; and what balancing
does over training, in a shortened form of `make balance`. Wins to look for:
many tokens, where arithmetic binds and a token pays for few experts of many. Losses: a few tokens, each of which wakes
other experts, whose weights must be read; uneven routing, where the busiest experts decide: by Zipf's law, and as this
suite's own small model came to route (`recorded`). Slices (`v3-ep8`) are what
one expert-parallel rank computes for as many tokens as it has itself.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from benches.arms import short_plan, tier_plan
from benches.mixtures import RECORDED, Skew, ffn_shape, token_shape
from benches.tiers import tiered
from harness import Workload
from impls.ffn.shape import FfnShape

STUDY = "ffn"
K = 1024
NEIGHBOURS = ("v2", "mixtral-8x7b", "qwen3-30b-a3b", "qwen3-235b-a22b")
LAYER_BYTES = 3e9
SMALL_BYTES, SMOKE_BYTES = 200e6, 16e6


def bench_ffn(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


class Model(NamedTuple):
    """A shape under the name it has in case ids."""

    name: str
    shape: FfnShape

    @property
    def bytes(self) -> float:
        """Of the routed experts."""
        return 3.0 * self.shape.hidden * self.shape.width * self.shape.router.experts * self.shape.torch_dtype.itemsize

    def slice(self, ranks: int, cuts: int = 1) -> Model:
        """One rank's experts, each cut by width."""
        words = [self.name, *([f"ep{ranks}"] if ranks > 1 else []), *([f"tp{cuts}"] if cuts > 1 else [])]
        return Model("-".join(words), self.shape.sliced(ranks, cuts))

    def at_most(self, size: float, least_experts: int = 1) -> Model:
        """The largest slice whose experts take up to `size` bytes: fewer experts first, then narrower ones."""
        experts = self.shape.router.experts
        ranks = [n for n in range(1, experts + 1) if experts % n == 0 and experts // n >= least_experts]
        cuts = [n for n in range(1, self.shape.width + 1) if self.shape.width % n == 0]
        slices = ((n, 1) for n in ranks), ((ranks[-1], n) for n in cuts)
        return next((one for pairs in slices for n in pairs if (one := self.slice(*n)).bytes <= size), self)

    def single(self) -> Model:
        """In FP32, for machines without a GPU."""
        return Model(self.name, replace(self.shape, dtype="float32"))


def workload(operation: str, model: Model, tokens: int, skew: Skew = 0.0) -> Workload:
    """One operation on so many tokens."""
    shape = token_shape(model.shape, tokens, skew)
    words = filter(None, (f"t{tokens}", shape.routing, "fp32" if model.shape.dtype == "float32" else ""))
    return Workload(f"ffn.{operation}", model.name, "-".join(words), shape, tiers=())


def smoke(model: Model) -> Iterator[Workload]:
    """Each operation once, on a few narrow experts."""
    few = model.single().at_most(SMOKE_BYTES, least_experts=8)
    for operation, tokens in (("decode", 4), ("prefill", 64), ("train", 32)):
        yield workload(operation, few, tokens)
    for operation in ("route", "select", "permute", "experts"):
        yield workload(operation, few, 64)


def cpu(model: Model) -> Iterator[Workload]:
    """16 experts: latency over tokens, skewed and recorded routing, each inner operation once."""
    few = model.single().at_most(SMALL_BYTES, least_experts=min(16, model.shape.router.experts))
    for tokens in (1, 16):
        yield workload("decode", few, tokens)
    for skew in (0.0, 1.0, RECORDED):
        yield workload("prefill", few, 256, skew)
    yield workload("train", few, 64)
    for operation in ("route", "select"):
        yield workload(operation, model.single(), 256)
    yield workload("permute", few, 256)
    yield workload("experts", few, 256)


def gpu(model: Model, ranks: int) -> Iterator[Workload]:
    """One rank's experts: latency over tokens, skew, inner operations."""
    one = model.slice(ranks)
    for tokens in (1, 16, 64, 128, 512):
        yield workload("decode", one, tokens)
    for skew in (1.0, RECORDED):
        yield workload("decode", one, 128, skew)
    for tokens in (K, 4 * K, 16 * K):
        yield workload("prefill", one, tokens)
    for skew in (1.0, RECORDED):
        yield workload("prefill", one, 4 * K, skew)
    yield workload("train", one, 4 * K)
    for tokens in (1, 128, K, 4 * K):
        yield workload("route", model, tokens)
    for tokens in (1, 64, K, 4 * K):
        yield workload("select", model, tokens)
    yield workload("permute", one, 4 * K)
    for skew in (0.0, 1.0):
        yield workload("experts", one, 4 * K, skew)


def small_gpu(model: Model) -> Iterator[Workload]:
    """A small model whole: decode, prefill and training."""
    for tokens in (1, 16, 128):
        yield workload("decode", model, tokens)
    for skew in (0.0, 1.0):
        yield workload("prefill", model, 8 * K, skew)
    yield workload("prefill", model, 32 * K)
    yield workload("train", model, 8 * K)
    yield workload("experts", model, 8 * K)


def full(model: Model) -> Iterator[Workload]:
    """The grid: tokens x skew, as a whole where the layer fits and as slices."""
    for ranks in (1, 4, 8, 16):
        if model.shape.router.experts % ranks == 0 and model.slice(ranks).shape.router.experts >= 8:
            for skew in (0.0, 0.5, 1.0, 1.5, RECORDED):
                for tokens in (1, 8, 32, 64, 128, 256, 512):
                    yield workload("decode", model.slice(ranks), tokens, skew)
                for tokens in (4 * K, 8 * K, 32 * K):
                    yield workload("prefill", model.slice(ranks), tokens, skew)
                    yield workload("experts", model.slice(ranks), tokens, skew)


def fitting(model: Model) -> int:
    """The fewest ranks of 1, 2, 4, ... among which the experts fit in memory, or as many as there are."""
    counts = [n for n in (1, 2, 4, 8, 16, 32) if model.shape.router.experts % n == 0]
    return next((n for n in counts if model.slice(n).bytes <= LAYER_BYTES), counts[-1])


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads: DeepSeek-V3 and V2-Lite with their neighbours and a small model in training, or one model,
    bundled or a config.json.

    Raises ValueError for a model that is unknown or whose configuration is wrong.
    """
    large = Model(*ffn_shape(model or "v3"))
    small = large if model else Model(*ffn_shape("v2-lite"))
    tiers = {
        "smoke": list(smoke(small)),
        "cpu": list(cpu(small)),
        "gpu": list(gpu(large, fitting(large))),
        "full": list(full(large)),
    }
    if model is None:
        tiers["smoke"].append(short_plan().trial())
        tiers["cpu"].append(tier_plan().trial())
        tiers["gpu"] += small_gpu(small)
        for name in NEIGHBOURS:
            neighbour = Model(*ffn_shape(name))
            neighbour = neighbour.slice(fitting(neighbour))
            tiers["gpu"] += [workload("decode", neighbour, 64), workload("prefill", neighbour, 4 * K)]
    return tiered(tiers)
