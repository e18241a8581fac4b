"""What does caching a latent instead of keys and values buy, and what does it cost?

Measured as whole layers (hidden state in, hidden state out) and as their inner kernels, on the same hidden size,
heads, lengths and dtype. Wins to look for: decoding over long contexts and large batches, where the cache's bytes
bind. Losses: short contexts, where the latent's extra products show, and many heads, where decoding turns from
memory to arithmetic. Tensor-parallel slices (`v3-tp8`) are what one rank of a server computes.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from benches.models import attention_shape
from benches.tiers import tiered
from harness import Workload
from impls.attention.cache import no_fp8_row
from impls.attention.shape import AttentionShape, DecodeShape, SequenceShape

STUDY = "attention"
K = 1024
CACHE_BYTES = 36e9
COMPILED = ("mha", "mla")
NEIGHBOURS = ("v2-lite", "llama-3.1-8b", "llama-3.1-70b", "qwen2.5-72b", "llama-3.1-405b")


def bench_attention(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


class Model(NamedTuple):
    """A shape under the name it has in case ids."""

    name: str
    shape: AttentionShape

    def ranks(self) -> Iterator[Model]:
        """What one of 2, 4 and 8 tensor-parallel ranks computes, where that leaves each rank 8 heads or more."""
        for ranks in (2, 4, 8):
            if _divides(self.shape, ranks) and self.shape.heads >= 8 * ranks:
                yield self.rank(ranks)

    def rank(self, ranks: int) -> Model:
        """One rank's slice, named so."""
        return self if ranks == 1 else Model(f"{self.name}-tp{ranks}", self.shape.sliced(ranks))

    def at_most(self, heads: int) -> Model:
        """The largest slice of up to `heads` heads, in FP32 for machines without a GPU."""
        ranks = range(1, self.shape.heads + 1)
        fits = next(n for n in ranks if _divides(self.shape, n) and self.shape.heads <= n * heads)
        single = replace(self.shape, dtype="float32")
        return Model(self.name, single).rank(fits)


def _divides(shape: AttentionShape, ranks: int) -> bool:
    return shape.heads % ranks == 0 and (shape.heads // ranks) % max(1, shape.kv_heads // ranks) == 0


def mha_cache_bytes(shape: DecodeShape) -> int:
    """Bytes of one layer's keys and values of all heads: the largest cache among a case's contenders."""
    token = 2 * shape.model.heads * shape.model.head_dim * shape.model.torch_dtype.itemsize
    return shape.batch * shape.slots * token


def decode(model: Model, batch: int, length: int, kernel: bool = False, **options: Any) -> Workload:
    """Decoding, `options` as `DecodeShape` has them; the batch is halved until the MHA cache fits its bound."""
    shape = DecodeShape(model.shape, batch, length, **options)
    while mha_cache_bytes(shape) > CACHE_BYTES and shape.batch > 1:
        shape = replace(shape, batch=shape.batch // 2)
    words = [f"b{shape.batch}-s{length}"]
    words += [f"t{shape.new_tokens}"] if shape.new_tokens > 1 else []
    words += ["ragged"] if shape.ragged else []
    words += [shape.cache] if shape.cache != "native" else []
    return _workload("attention.decode", model, words, shape, kernel)


def sequence(phase: str, model: Model, length: int, batch: int = 1, kernel: bool = False) -> Workload:
    """Prefill or training ("train") of whole sequences."""
    shape = SequenceShape(model.shape, batch, length)
    return _workload(f"attention.{phase}", model, [f"b{batch}-s{length}"], shape, kernel)


def _workload(
    operation: str, model: Model, words: list[str], shape: DecodeShape | SequenceShape, kernel: bool
) -> Workload:
    sizes = "-".join([*words, *(["fp32"] if model.shape.dtype == "float32" else [])])
    return Workload(operation + "_kernel" * kernel, model.name, sizes, shape, tiers=())


def graphed(workload: Workload) -> Workload:
    """The same calls replayed from a CUDA graph, as servers do for small batches."""
    return replace(workload, sizes=f"{workload.sizes}-graph", graph=True)


def smoke(model: Model) -> Iterator[Workload]:
    """Each operation once, on four heads; lengths of the inner kernel are ragged, so that a mask left out shows."""
    few = model.at_most(4)
    for kernel in (False, True):
        yield decode(few, 2, 64, kernel, ragged=kernel)
        yield sequence("prefill", few, 64, kernel=kernel)
        yield sequence("train", few, 32, kernel=kernel)


def cpu(model: Model) -> Iterator[Workload]:
    """16 heads: latency over length, and each variation once."""
    few = model.at_most(16)
    for length in (256, K, 4 * K):
        yield replace(decode(few, 1, length), compiled=COMPILED if length == K else ())
    yield decode(few, 4, K, ragged=True)
    yield decode(few, 1, K, new_tokens=2)
    yield from _fp8([few], 1, K)
    yield decode(few, 4, K, kernel=True, ragged=True)
    yield sequence("prefill", few, 256)
    yield sequence("prefill", few, 512, kernel=True)
    yield sequence("train", few, 128)
    yield sequence("train", few, 256, kernel=True)


def gpu(model: Model) -> Iterator[Workload]:
    """Ranks with fewer heads in both cache formats, latency over length and batch, variations, kernels, sequences."""
    ranks = list(model.ranks())
    for rank in [model, *ranks]:
        yield decode(rank, 128, 4 * K)
    yield from _fp8([model, *ranks], 128, 4 * K)
    for length in (K, 4 * K, 16 * K, 64 * K, 128 * K):
        yield decode(model, 4, length)
    yield graphed(decode(model, 1, 4 * K))
    for batch in (1, 16, 32):
        yield replace(decode(model, batch, 4 * K), compiled=COMPILED if batch == 32 else ())
    yield decode(model, 128, 4 * K, ragged=True)
    for rank in [model, *ranks[-1:]]:
        yield decode(rank, 128, 4 * K, new_tokens=2)
        yield decode(rank, 128, 4 * K, kernel=True)
        yield from _fp8([rank], 128, 4 * K, kernel=True)
    yield decode(model, 128, 4 * K, kernel=True, new_tokens=2)
    yield replace(decode(model, 32, 16 * K, kernel=True), compiled=COMPILED)
    for length in (K, 4 * K, 8 * K, 16 * K):
        yield replace(sequence("prefill", model, length), compiled=COMPILED if length == 4 * K else ())
    yield sequence("prefill", model, 8 * K, kernel=True)
    for length in (2 * K, 4 * K):
        yield sequence("train", model, length)
    yield sequence("train", model, 4 * K, kernel=True)


def full(model: Model) -> Iterator[Workload]:
    """The grid: batch x length x heads x cache x new tokens, where the cache fits as asked; longer sequences."""
    for rank in [model, *model.ranks()]:
        for batch in (1, 8, 32, 128):
            for length in (K, 4 * K, 16 * K, 64 * K, 128 * K):
                for new_tokens in (1, 2):
                    cases = [decode(rank, batch, length, new_tokens=new_tokens)]
                    cases += _fp8([rank], batch, length, new_tokens=new_tokens)
                    yield from (case for case in cases if case.shape.batch == batch)
    yield from kernels(model)
    for phase in ("prefill", "train"):
        for kernel in (False, True):
            for length in (K, 2 * K, 4 * K, 8 * K, 16 * K):
                yield sequence(phase, model, length, kernel=kernel)


def kernels(model: Model) -> Iterator[Workload]:
    """Decode kernels of every slice in both cache formats and with two tokens, and of few or unlike sequences."""
    ranks = [model, *model.ranks()]
    for rank in ranks:
        yield decode(rank, 128, 4 * K, kernel=True)
        yield decode(rank, 128, 4 * K, kernel=True, new_tokens=2)
        yield decode(rank, 128, 4 * K, kernel=True, ragged=True)
        yield from _fp8([rank], 128, 4 * K, kernel=True)
    for rank in (ranks[0], ranks[-1]):
        for batch in (1, 8):
            for length in (8 * K, 32 * K, 128 * K):
                yield decode(rank, batch, length, kernel=True)


def _fp8(models: Iterable[Model], batch: int, length: int, **options: Any) -> Iterator[Workload]:
    """Decoding with FP8 caches, of models whose latent the format holds."""
    cases = [decode(model, batch, length, cache="fp8", **options) for model in models]
    return (case for case in cases if no_fp8_row(case.shape) is None)


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads: DeepSeek-V3 and its neighbours, or one model, bundled or a config.json's path.

    Without a GPU V2-Lite stands for V3: its 16 heads are those of one V3 rank of 8, its hidden size is a machine's
    that small. Raises ValueError for a model that is unknown or whose configuration is wrong.
    """
    large = Model(*attention_shape(model or "v3"))
    small = large if model else Model(*attention_shape("v2-lite"))
    tiers = {"smoke": list(smoke(small)), "cpu": list(cpu(small)), "gpu": list(gpu(large)), "full": list(full(large))}
    if model is None:
        tiers["cpu"].insert(0, decode(large.at_most(16), 1, K))
        for name in NEIGHBOURS:
            neighbour = Model(*attention_shape(name))
            tiers["gpu"].append(decode(neighbour, 128, 4 * K))
        tiers["gpu"].append(sequence("prefill", Model(*attention_shape("llama-3.1-8b")), 8 * K))
    return tiered(tiers)
