"""What do DeepSeek's ideas buy together? The whole model, each of four ideas in it or not: sixteen combinations.

Measured as a training step, as prefill, as generation, and as what a few combinations' training leads to, a shortened
form of `make ladder`. Wins to look for: what a study found of its layer must show in the whole, less what the other
layers cost anyway. Losses: a step of a mixture and of MTP on a CPU, which computes every expert's few rows and one more
block. In FP32 a case is of one linear layer, for its limits are those of FP8 where a combination in FP8 takes part, and
FP8's times there are emulation's; in BF16 all sixteen are one case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benches.ladder_plan import gpu_tier_plan, short_plan, tier_plan
from benches.mixtures import ffn_shape
from benches.models import attention_shape
from benches.tiers import tiered
from harness import Workload
from impls.composed.combination import FEW, combinations
from impls.composed.shape import GenerateShape, TextShape
from impls.ffn.shape import Router
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe

STUDY = "model"
K = 1024
SIXTEEN = tuple(one.name for one in combinations())
PLAIN, IN_FP8 = (tuple(one.name for one in combinations() if one.linear == linear) for linear in ("bf16", "fp8"))
ENDS, PLAIN_ENDS, FP8_ENDS = (FEW[0], FEW[-1]), (PLAIN[0], PLAIN[-1]), (IN_FP8[0], IN_FP8[-1])
PLAIN_FEW = (*(name for name in FEW if name in PLAIN), PLAIN[-1])
WORDS = {
    SIXTEEN: "",
    PLAIN: "bf16",
    IN_FP8: "fp8",
    FEW: "few",
    PLAIN_FEW: "few-bf16",
    ENDS: "ends",
    PLAIN_ENDS: "ends-bf16",
    FP8_ENDS: "ends-fp8",
}
DRAWN = Recipe(0, batch=4, length=32)


def bench_model(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


def name(model: ModelShape, word: str = "byte") -> str:
    """The model's word in case ids."""
    return f"{word}-d{model.hidden}-l{model.layers}"


def sizes(model: ModelShape, who: tuple[str, ...], *more: str) -> str:
    """Sizes, then who takes part where not all do, then the dtype where it is not BF16."""
    single = "fp32" if model.attention.dtype == "float32" else ""
    return "-".join(filter(None, (*more, WORDS[who], single)))


def reading(
    operation: str, model: ModelShape, batch: int, length: int, who: tuple[str, ...] = SIXTEEN, word: str = "byte"
) -> Workload:
    """A training step, or a prefill."""
    shape = TextShape(model, who, batch, length)
    said = sizes(model, who, f"b{batch}", f"t{length}")
    return Workload(f"model.{operation}", name(model, word), said, shape, tiers=())


def generating(
    model: ModelShape, recipe: Recipe, batch: int, prompt: int, count: int, who: tuple[str, ...] = SIXTEEN
) -> Workload:
    """Greedy generation by models trained by the recipe."""
    shape = GenerateShape(model, who, recipe, batch, prompt, count)
    trained = f"s{recipe.steps}" if recipe.steps else "drawn"
    said = sizes(model, who, f"b{batch}", f"p{prompt}", f"n{count}", trained)
    return Workload("model.generate", name(model), said, shape, tiers=())


def smoke() -> Iterator[Workload]:
    """Each operation once, narrow and short: none of the ideas and all, in FP8 where that takes few operators."""
    router = Router(4, 2, score="sigmoid", groups=2, top_groups=1, normalise=True)
    narrow = small_shape(hidden=32, layers=2, head_dim=8, width=16, router=router)
    yield reading("train_step", narrow, 2, 16, PLAIN_ENDS)
    yield reading("prefill", narrow, 8, 8, ENDS)
    yield generating(narrow, DRAWN, 1, 8, 4, PLAIN_ENDS)
    yield short_plan().trial()


def cpu() -> Iterator[Workload]:
    """Some 60 to 300 thousand parameters: a short ladder, a step of all sixteen, prefill, generation at two batches;
    little of what FP8's emulation makes slow."""
    small = small_shape(hidden=64, layers=2, head_dim=16, width=16)
    yield tier_plan().trial()
    yield reading("train_step", small, 4, 64, PLAIN)
    yield reading("train_step", small, 16, 16, IN_FP8)
    yield reading("prefill", small, 4, 128, PLAIN)
    yield reading("prefill", small, 16, 16, FP8_ENDS)
    for batch in (1, 8):
        yield generating(small, Recipe(100, batch=4, length=64, rate=4e-3, warm_up=10), batch, 32, 32, PLAIN_FEW)
    yield generating(small, DRAWN, 1, 8, 8, ENDS)


def wide(model: str, ranks: int) -> tuple[str, ModelShape]:
    """The word and the shape of a published model with two layers, the first dense, over bytes: one rank's experts. All
    techniques' weights, and the gradients of each in FP64 twice, must fit in memory together."""
    _, attention = attention_shape(model)
    _, ffn = ffn_shape(model)
    return f"{model}-ep{ranks}", ModelShape(replace(attention, layers=2), ffn.sliced(ranks))


def gpu() -> Iterator[Workload]:
    """V2-Lite's width with two layers in BF16, V3's in prefill, and generation in FP32, for tokens must be equal: by
    models of 15 million parameters trained in the run, those in FP8 for a few tokens."""
    word, lite = wide("v2-lite", 4)
    for operation in ("train_step", "prefill"):
        yield reading(operation, lite, 1, 4 * K, FEW, word)
    word, large = wide("v3", 16)
    yield reading("prefill", large, 1, 4 * K, ENDS, word)
    middle = small_shape(hidden=512, layers=4, head_dim=64, width=64)
    recipe = Recipe(300, batch=32, length=256, rate=1e-3, warm_up=50)
    for batch in (1, 8, 32):
        yield generating(middle, recipe, batch, 128, 128, PLAIN)
    yield generating(middle, recipe, 1, 8, 8, FEW)
    yield gpu_tier_plan().trial()


def full() -> Iterator[Workload]:
    """The grid: lengths of a step and of a prefill, batches of generation."""
    word, lite = wide("v2-lite", 4)
    for batch, length in ((4, K), (2, 2 * K), (1, 4 * K), (1, 8 * K)):
        yield reading("prefill", lite, batch, length, SIXTEEN, word)
        for who in (PLAIN, IN_FP8):
            yield reading("train_step", lite, batch, length, who, word)
    middle = small_shape(hidden=512, layers=4, head_dim=64, width=64)
    recipe = Recipe(300, batch=32, length=256, rate=1e-3, warm_up=50)
    for batch in (2, 4, 16, 64):
        yield generating(middle, recipe, batch, 128, 128, PLAIN)


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads; none for a model that is named, whose weights are not at hand."""
    if model is not None:
        return []
    return tiered({"smoke": list(smoke()), "cpu": list(cpu()), "gpu": list(gpu()), "full": list(full())})
