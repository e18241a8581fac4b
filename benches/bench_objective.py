"""What does predicting further symbols cost in training, and what does it buy in generation?

Measured as a training step of whole models, as greedy generation with the model's own modules as drafters, and as what
it does to the loss of the next symbol, once a seed. Wins to look for: generation at a small batch, where a step that
verifies a draft costs little more than a plain one. Losses: a step of training is dearer by a block and a head for each
depth; on a CPU, and at large batches, verifying costs what it computes. The time of `mtp/refused` over plain decoding
is the cost of a speculative step, 1 + c.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benches.tiers import tiered
from harness import Workload
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe
from impls.objective.loss_trial import LossShape
from impls.objective.shape import GenerateShape, StepShape
from impls.objective.weights import MODEL, RECIPE

STUDY = "objective"
SEEDS = (0, 1, 2)


def bench_objective(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


def name(model: ModelShape) -> str:
    """The model's word in case ids."""
    return f"byte-{model.feed}-{model.technique}-d{model.hidden}"


def words(model: ModelShape) -> str:
    """What is said after the sizes."""
    depth = f"-depth{model.depth}" if model.depth > 1 else ""
    return depth + ("-fp32" if model.attention.dtype == "float32" else "")


def stepping(model: ModelShape, batch: int, length: int) -> Workload:
    """A training step."""
    model = replace(model, objective="ntp")
    sizes = f"b{batch}-t{length}{words(model)}"
    return Workload("objective.train_step", name(model), sizes, StepShape(model, batch, length), tiers=())


def generating(model: ModelShape, recipe: Recipe, batch: int, prompt: int, count: int) -> Workload:
    """Greedy generation by a trained model."""
    sizes = f"b{batch}-p{prompt}-n{count}{words(model)}"
    shape = GenerateShape(model, recipe, batch, prompt, count)
    return Workload("objective.generate", name(model), sizes, shape, tiers=())


def training(model: ModelShape, recipe: Recipe, windows: int, stops: int) -> Workload:
    """A model trained for each objective from the recipe's seed."""
    model = replace(model, objective="ntp")
    shape = LossShape(model, recipe, windows, stops)
    return Workload("objective.loss", name(model), f"s{recipe.steps}-seed{recipe.seed}{words(model)}", shape, tiers=())


def smoke() -> Iterator[Workload]:
    """Each operation once, narrow and short."""
    narrow = small_shape(hidden=32, layers=2, head_dim=8, width=32, feed="dense")
    yield stepping(narrow, 2, 64)
    yield generating(MODEL, RECIPE, 1, 16, 8)
    yield training(narrow, Recipe(20, batch=4, length=32, rate=4e-3, warm_up=4), 8, 4)


def cpu() -> Iterator[Workload]:
    """0.4 million parameters: a step at two depths, generation at two batches, a training a seed."""
    small = small_shape(hidden=128, layers=2, head_dim=32, width=64, feed="dense")
    yield stepping(small, 4, 128)
    yield stepping(replace(small, depth=3), 4, 128)
    for batch in (1, 8):
        yield generating(MODEL, RECIPE, batch, 32, 32)
    for seed in SEEDS:
        yield training(small, Recipe(120, batch=4, length=64, rate=4e-3, seed=seed), 32, 9)


def gpu() -> Iterator[Workload]:
    """A step at the width of V2-Lite in BF16, generation in FP32 by a model of 30 million parameters trained in the
    run, for tokens must be equal to the last one, and a training a seed."""
    wide = small_shape(hidden=2048, layers=2, head_dim=128, width=1408, feed="dense", dtype="bfloat16")
    for technique in ("mha", "mla"):  # few layers: the truth keeps whole scores of 4096 x 4096 in FP64
        yield stepping(replace(wide, technique=technique), 1, 4096)
    yield stepping(replace(wide, depth=3), 1, 4096)
    middle = small_shape(hidden=512, layers=8, head_dim=64, width=192, feed="dense", objective="mtp")
    recipe = Recipe(600, batch=32, length=256, rate=1e-3, warm_up=100)
    for batch in (1, 8, 32):
        yield generating(middle, recipe, batch, 128, 128)
    half = small_shape(hidden=512, layers=8, head_dim=64, width=192, feed="dense", dtype="bfloat16")
    for seed in SEEDS:
        yield training(half, Recipe(600, batch=32, length=512, rate=1e-3, warm_up=100, seed=seed), 256, 13)


def full() -> Iterator[Workload]:
    """The grid: depths of a step, techniques and batches of generation."""
    wide = small_shape(hidden=2048, layers=2, head_dim=128, width=1408, feed="dense", dtype="bfloat16")
    for depth in (1, 2, 4):
        for length in (1024, 4096):
            yield stepping(replace(wide, depth=depth), 4096 // length, length)
    recipe = Recipe(600, batch=32, length=256, rate=1e-3, warm_up=100)
    for depth in (1, 2, 4):
        middle = small_shape(hidden=512, layers=8, head_dim=64, width=192, feed="dense", objective="mtp", depth=depth)
        for batch in (1, 2, 4, 8, 16, 32, 64):
            yield generating(middle, recipe, batch, 128, 128)


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads: models of bytes in DeepSeek's proportions; none for a model that is named, whose weights
    and symbols are not at hand."""
    if model is not None:
        return []
    return tiered({"smoke": list(smoke()), "cpu": list(cpu()), "gpu": list(gpu()), "full": list(full())})
