"""What does fine-grained FP8 buy over BF16 in linear layers once quantizing is paid for, and what does it cost in bits?

Measured as products of operands that are quantized already (forward, both gradients, grouped for experts), as
quantizers alone and fused, and as whole layers in training. Wins to look for: many rows, where twice the matrix rate
counts; few rows, where half the weight's bytes count. Losses: small layers, whose quantizing costs more than the
product gains; outliers, which coarse scales do not survive. On a CPU FP8 is emulated: only bytes and errors carry over.
And what FP8 does to a loss: a small model is trained with and without it, once a seed.
"""  # noqa: D400

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

from benches.mixtures import SOFTMAX
from benches.models import GROUPED, LATENT, Config, attention_shape, configuration
from benches.tiers import tiered
from harness import Workload
from impls.linear.loss_trial import LossShape
from impls.linear.shape import FORMS, VALUES, GroupedShape, LinearShape, QuantizeShape
from impls.model.shape import small_shape
from impls.model.training import Recipe

STUDY = "linear"
K = 1024
SMALL_ENTRIES, SMOKE_ENTRIES = 2**21, 2**17
TILE = 128
PRODUCTS = ("fprop", "dgrad", "wgrad")
SEEDS = (0, 1, 2)
GROUPED_PRODUCTS = ("grouped", "grouped_dgrad", "grouped_wgrad")


def bench_linear(contender: Callable[[], None]) -> None:
    """One node a contender; the contest of its case runs at the first of them."""
    contender()


class Layer(NamedTuple):
    """A linear layer: what it is in the model, outs N, ins K."""

    what: str
    outs: int
    ins: int

    def at_most(self, entries: int) -> Layer:
        """The layer cut in both directions, by halves, to so many entries and no less than a tile."""
        outs, ins = self.outs, self.ins
        while outs * ins > entries and max(outs, ins) > TILE:
            outs, ins = (max(TILE, outs // 2), ins) if outs > ins else (outs, max(TILE, ins // 2))
        return Layer(self.what, outs // 16 * 16 or outs, ins // 16 * 16 or ins)


class Model(NamedTuple):
    """The linear layers of a model under the name it has in case ids; `expert` says which are an expert's."""

    name: str
    layers: tuple[Layer, ...]

    def layer(self, what: str) -> Layer:
        """The first layer that is called so, or the first of all."""
        return next((layer for layer in self.layers if layer.what == what), self.layers[0])

    def at_most(self, entries: int) -> Model:
        """The same with every layer cut."""
        return Model(self.name, tuple(layer.at_most(entries) for layer in self.layers))


def model_layers(name_or_path: str) -> Model:
    """The linear layers of a bundled model or a config.json: attention's projections, and those of an expert, or of the
    dense feed-forward layer where there are no experts. Gate and up are one layer, as are projections of one input.

    Raises ValueError for configurations that do not describe such layers, naming the file and the fields.
    """
    label, config = configuration(name_or_path)
    kind = config.word("model_type", (*GROUPED, *LATENT))
    hidden, width = config.whole("hidden_size"), _width(config, kind)
    _, shape = attention_shape(name_or_path)
    config.check()
    if kind in LATENT:
        query = shape.heads * (shape.nope_dim + shape.rope_dim)
        down = shape.latent + shape.rope_dim
        first = [Layer("query", query, hidden)] if shape.query_latent is None else []
        if shape.query_latent is not None:
            first = [Layer("down", shape.query_latent + down, hidden), Layer("query", query, shape.query_latent)]
        attention = [
            *first,
            Layer("keys-values", shape.heads * (shape.nope_dim + shape.value_dim), shape.latent),
            Layer("output", hidden, shape.heads * shape.value_dim),
            Layer("latent", down, hidden),
        ]
    else:
        kv_heads = config.whole("num_key_value_heads", default=shape.heads)
        attention = [
            Layer("query-key-value", (shape.heads + 2 * kv_heads) * shape.head_dim, hidden),
            Layer("output", hidden, shape.heads * shape.head_dim),
        ]
    return Model(label, (*attention, Layer("gate-up", 2 * width, hidden), Layer("back", hidden, width)))


def _width(config: Config, kind: str) -> int:
    """Width of an expert, or of the dense layer."""
    experts = (kind in LATENT or kind in SOFTMAX) and kind != "mixtral"
    return config.whole("moe_intermediate_size" if experts else "intermediate_size")


def words(shape: Any, *more: str) -> str:
    """What is said after the sizes in a case's id."""
    said = [*more, *(["pow2"] if shape.power_of_two else []), *(["fp32"] if shape.dtype == "float32" else [])]
    return "".join(f"-{word}" for word in said)


def linear(
    operation: str, model: Model, layer: Layer, rows: int, compiled: tuple[str, ...] = (), **more: Any
) -> Workload:
    """A product, a layer in training, or numerics."""
    shape = LinearShape(rows, layer.outs, layer.ins, **more)
    values = [shape.values] if shape.values != "gaussian" or operation == "numerics" else []
    sizes = f"m{rows}-n{layer.outs}-k{layer.ins}{words(shape, *values)}"
    return Workload(f"linear.{operation}", model.name, sizes, shape, tiers=(), compiled=compiled)


def quantizing(
    model: Model, rows: int, columns: int, form: str, compiled: tuple[str, ...] = (), **more: Any
) -> Workload:
    """Quantizing alone or fused."""
    shape = QuantizeShape(rows, columns, form, **more)
    sizes = f"m{rows}-c{columns}{words(shape, form)}"
    return Workload("linear.quantize", model.name, sizes, shape, tiers=(), compiled=compiled)


def grouping(
    operation: str, model: Model, layer: Layer, groups: int, rows: int, skew: float = 0.0, **more: Any
) -> Workload:
    """A grouped product."""
    shape = GroupedShape(groups, rows, layer.outs, layer.ins, skew, **more)
    sizes = f"g{groups}-m{rows}-n{layer.outs}-k{layer.ins}{words(shape, *([f'zipf{skew:g}'] if skew else []))}"
    return Workload(f"linear.{operation}", model.name, sizes, shape, tiers=())


def training(
    sizes: dict[str, Any], recipe: Recipe, windows: int, stops: int, products: tuple[str, ...], **more: Any
) -> Workload:
    """A model of bytes trained with and without FP8 from the recipe's seed."""
    shape = LossShape(small_shape(feed="dense", **sizes, **more), recipe, windows, stops, products)
    word = "" if shape.shape.attention.dtype == "bfloat16" else "-fp32"
    name = f"byte-dense-d{shape.shape.hidden}"
    return Workload("linear.loss", name, f"s{recipe.steps}-seed{recipe.seed}{word}", shape, tiers=())


def short_trainings() -> Iterator[Workload]:
    """Forty steps of the narrowest model, emulated by definition and by whole products."""
    sizes = {"hidden": 32, "layers": 2, "head_dim": 8, "width": 32}
    recipe = Recipe(40, batch=4, length=32, rate=4e-3, warm_up=5)
    yield training(sizes, recipe, 16, 4, ("reference", "dequantized"))


def cpu_trainings(steps: int, stops: int) -> Iterator[Workload]:
    """0.4 million parameters, 256 bytes a step: a tenth of a second with and without FP8, most of it emulation."""
    sizes = {"hidden": 128, "layers": 2, "head_dim": 32, "width": 64}
    for seed in SEEDS:
        recipe = Recipe(steps, batch=4, length=64, rate=4e-3, warm_up=10, seed=seed)
        yield training(sizes, recipe, 16, stops, ("dequantized",))


def gpu_trainings() -> Iterator[Workload]:
    """30 million parameters computed in BF16, 16,384 bytes a step; with BUDGET=720 and K=loss in full length."""
    sizes = {"hidden": 512, "layers": 8, "head_dim": 64, "width": 192, "dtype": "bfloat16"}
    for seed in SEEDS:
        recipe = Recipe(1000, batch=32, length=512, rate=1e-3, warm_up=100, seed=seed)
        yield training(sizes, recipe, 256, 21, ("triton", "scaled-mm", "deep-gemm"))


def smoke(model: Model) -> Iterator[Workload]:
    """Each operation once, on a small slice of one layer."""
    few = model.at_most(SMOKE_ENTRIES)
    layer = few.layer("gate-up")
    for operation in (*PRODUCTS, "layer_train"):
        yield linear(operation, few, layer, TILE, dtype="float32")
    yield quantizing(few, TILE, layer.ins, "tiles", dtype="float32")
    yield linear("numerics", few, Layer("", 64, K), 64, values="outliers", dtype="float32")
    for operation in GROUPED_PRODUCTS:
        yield grouping(operation, few, layer, 4, 4 * TILE, dtype="float32")


def cpu(model: Model) -> Iterator[Workload]:
    """Slices: the products and the layer, every distribution, the forward product over layers and rows, every form."""
    few = model.at_most(SMALL_ENTRIES)
    layer = few.layer("gate-up")
    for operation in (*PRODUCTS, "layer_train"):
        yield linear(operation, few, layer, 256, dtype="float32")
    for values in VALUES:
        yield linear("numerics", few, Layer("", 64, 4 * K), 64, values=values, dtype="float32")
    for one in (few.layer("output"), few.layer("back")):
        yield linear("fprop", few, one, 256, dtype="float32")
    yield linear("fprop", few, layer, 16, dtype="float32")
    for form in FORMS:
        yield quantizing(few, 512, layer.ins, form, dtype="float32")
    yield quantizing(few, 512, layer.ins, "tiles", dtype="float32", power_of_two=True)
    for operation in GROUPED_PRODUCTS:
        yield grouping(operation, few, few.layer("back").at_most(SMALL_ENTRIES // 4), 8, 8 * TILE, 1.0, dtype="float32")


def gpu(model: Model) -> Iterator[Workload]:
    """The model's own layers: at most 40 cases."""
    wide, back = model.layer("gate-up"), model.layer("back")
    for layer in model.layers:
        yield linear("fprop", model, layer, 4 * K)
    for rows in (64, 128, K):
        yield linear("fprop", model, wide, rows)
    yield linear("fprop", model, model.layer("output"), 64)
    yield linear("fprop", model, wide, 4 * K, power_of_two=True)
    for layer in (wide, model.layer("output"), model.layer("query")):
        for operation in (*PRODUCTS, "layer_train"):
            yield linear(operation, model, layer, 8 * K)
    for form in ("tiles", "transposed", "silu", "rmsnorm"):
        columns = back.ins if form == "silu" else wide.ins
        yield quantizing(model, 4 * K, columns, form, compiled=("fp8",) if form == "silu" else ())
    yield quantizing(model, wide.outs, wide.ins, "blocks")
    for values in ("gaussian", "positive", "outliers", "gradients"):
        yield linear("numerics", model, Layer("", 64, 4 * K), 64, values=values)
    for groups in (4, 32):
        yield grouping("grouped", model, wide, groups, 8 * K)
    yield grouping("grouped", model, back, 32, 8 * K, 1.0)
    yield grouping("grouped_dgrad", model, wide, 8, 8 * K)
    yield grouping("grouped_wgrad", model, wide, 8, 8 * K)


def full(model: Model) -> Iterator[Workload]:
    """The grid: products over layers x rows, both kinds of scale, distributions, grouped products."""
    for layer, power_of_two in product(model.layers, (False, True)):
        for rows in (64, 128, 256, 512, K, 2 * K, 4 * K, 8 * K):
            yield linear("fprop", model, layer, rows, power_of_two=power_of_two)
    for layer, rows, operation in product(model.layers, (K, 4 * K, 8 * K), ("dgrad", "wgrad", "layer_train")):
        yield linear(operation, model, layer, rows)
    for form, rows in product(FORMS, (64, K, 8 * K)):
        yield quantizing(model, rows, model.layer("back").ins, form)
    for values, power_of_two in product(VALUES, (False, True)):
        yield linear("numerics", model, Layer("", 64, 8 * K), 64, values=values, power_of_two=power_of_two)
    experts = (model.layer("gate-up"), model.layer("back"))
    for operation, layer, groups, skew in product(GROUPED_PRODUCTS, experts, (4, 8, 16, 32), (0.0, 1.0)):
        yield grouping(operation, model, layer, groups, 8 * K, skew)


def workloads(model: str | None) -> list[Workload]:
    """The study's workloads: the layers of DeepSeek-V3 and a small model in training, or those of one model, bundled
    or a config.json.

    Raises ValueError for a model that is unknown or whose configuration is wrong.
    """
    large = model_layers(model or "v3")
    tiers = {"smoke": smoke(large), "cpu": cpu(large), "gpu": gpu(large), "full": full(large)}
    found = {tier: distinct(listed) for tier, listed in tiers.items()}
    if model is None:
        # First, for a CPU whose budget is spent shall have learned of rounding before it times emulation.
        trained = {"smoke": [], "cpu": cpu_trainings(48, 5), "gpu": gpu_trainings(), "full": cpu_trainings(600, 13)}
        found = {tier: [*trained[tier], *listed] for tier, listed in found.items()}
        found["smoke"] += short_trainings()
    return tiered(found)


def distinct(listed: Iterator[Workload]) -> list[Workload]:
    """Each id once: layers of one size are one case."""
    return list({workload.id: workload for workload in listed}.values())
