"""What the ladder trains: sixteen models that differ in four choices, and how long.

The dense layer has as many active parameters as the mixture. "bf16" is the model's own dtype, FP32 on a CPU, where FP8
is emulated: its times there are emulation's. MTP adds one module, which drafts in generation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from torch import Tensor

from harness import Metric
from impls.model.decoder import Decoder
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe, Training

AXES = {
    "attention": ("mha", "mla"),
    "ffn": ("dense", "moe"),
    "linear": ("bf16", "fp8"),
    "objective": ("ntp", "mtp"),
}
BUDGET = 480.0
STOPS, LEAST_STEPS = 7, 20
METRICS = {
    metric.name: metric
    for metric in (
        Metric("validation_bits", "bits/byte", "lower", "Bits a byte of the next byte on validation windows."),
        Metric("train_loss", "bits/byte", "lower", "Loss of the next byte in training, mean of the last stretch."),
        Metric("step_time", "ns", "lower", "Median wall time of a whole training step, AdamW included."),
        Metric("train_rate", "tokens/s", "higher", "Tokens of a training step over its median time."),
        Metric("generate_rate_1", "tokens/s", "higher", "New tokens a second, greedy, one sequence, prompt included."),
        Metric("generate_rate_8", "tokens/s", "higher", "The same for eight sequences together."),
        Metric("acceptance", "share", "higher", "Steps of generation whose draft stood."),
        Metric("kv_bytes", "bytes", "lower", "What one token leaves in the caches of all blocks, a drafting one too."),
        Metric("model_parameters", "count", "neither", "Entries of the matrices that are trained."),
        Metric("model_active_parameters", "count", "neither", "Entries one token uses without a drafting module."),
        Metric("million_tokens", "money", "lower", "A million new tokens, eight sequences, at PRICE an hour."),
    )
}


@dataclass(frozen=True)
class Combination:
    """One choice an axis."""

    attention: str
    ffn: str
    linear: str
    objective: str

    @property
    def name(self) -> str:
        """`mla-moe-fp8-mtp`."""
        return "-".join(self.choices)

    @property
    def choices(self) -> tuple[str, ...]:
        """In the order of `AXES`."""
        return (self.attention, self.ffn, self.linear, self.objective)

    @property
    def settings(self) -> tuple[bool, ...]:
        """Whether each axis has DeepSeek's choice."""
        return tuple(choice == two for choice, (_, two) in zip(self.choices, AXES.values(), strict=True))


def combinations() -> list[Combination]:
    """All sixteen, the plainest first."""
    return [Combination(*choices) for choices in itertools.product(*AXES.values())]


@dataclass(frozen=True)
class Plan:
    """Sizes of the models, which are one but for the axes, and of the training; steps None: what the budget allows."""

    preset: str
    shape: ModelShape
    recipe: Recipe
    windows: int
    product: str
    device: str
    steps: int | None = None
    budget: float = BUDGET
    stops: int = STOPS
    prompt: int = 32
    count: int = 64

    @property
    def model(self) -> str:
        """The model's word in case ids."""
        return f"byte-d{self.shape.hidden}-l{self.shape.layers}"

    def shape_of(self, one: Combination) -> ModelShape:
        """The model of a combination."""
        return replace(self.shape, technique=one.attention, feed=one.ffn, linear=one.linear, objective=one.objective)

    def training(self, one: Combination, data_N: Tensor) -> Training:
        """A combination at its first step; all read the same bytes in the same order."""
        recipe = replace(self.recipe, steps=self.steps or LEAST_STEPS)
        model = Decoder(self.shape_of(one), recipe.seed, product=self.product)
        return Training(model, data_N, recipe, device=self.device)


def cpu_plan() -> Plan:
    """Some 60 to 300 thousand parameters, 256 bytes a step."""
    shape = small_shape(hidden=64, layers=2, head_dim=16, width=16)
    return Plan("cpu", shape, Recipe(0, batch=4, length=64, rate=4e-3), 32, "dequantized", "cpu", count=32)


def gpu_plan() -> Plan:
    """The width of V2-Lite with four layers in BF16, 8,192 bytes a step. Untested on a GPU."""
    shape = small_shape(hidden=2048, layers=4, head_dim=128, width=256, dtype="bfloat16")
    recipe = Recipe(0, batch=8, length=1024, rate=6e-4, warm_up=50)
    return Plan("gpu", shape, recipe, 32, "scaled-mm", "cuda", budget=660.0, prompt=256, count=256)


def tiny_plan() -> Plan:
    """Seconds in all, for tests."""
    shape = small_shape(hidden=32, layers=2, head_dim=8, width=8)
    recipe = Recipe(0, batch=2, length=16, rate=4e-3, warm_up=2)
    return Plan("tiny", shape, recipe, 4, "dequantized", "cpu", count=8, prompt=8)


PLANS = {"cpu": cpu_plan, "gpu": gpu_plan, "tiny": tiny_plan}
