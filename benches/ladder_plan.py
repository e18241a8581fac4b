"""What the ladder trains: sixteen models that differ in four choices, and how long.

The dense layer has as many active parameters as the mixture. "bf16" is the model's own dtype, FP32 on a CPU, where FP8
is emulated: its times there are emulation's. MTP adds one module, which drafts in generation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from harness import Metric, Workload
from impls.composed import ladder_trial
from impls.composed.combination import FEW, Combination
from impls.composed.shape import LadderShape
from impls.model.decoder import Decoder
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe, Training

BUDGET = 480.0
STOPS, LEAST_STEPS = 7, 20
METRICS = {
    metric.name: metric
    for metric in (
        *ladder_trial.METRICS,
        Metric("xz_bits", "bits/byte", "lower", "Bits a byte of xz -9e on the whole validation part."),
        Metric("step_time", "ns", "lower", "Median wall time of a whole training step, AdamW included."),
        Metric("train_rate", "tokens/s", "higher", "Tokens of a training step over its median time."),
        Metric("generate_rate_1", "tokens/s", "higher", "New tokens a second, greedy, one sequence, prompt included."),
        Metric("generate_rate_8", "tokens/s", "higher", "The same for eight sequences together."),
        Metric("million_tokens", "money", "lower", "A million new tokens, eight sequences, at PRICE an hour."),
    )
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the models, which are one but for the axes, and of the training.

    steps    None: what the budget allows
    threads  None: one or all, whichever is faster when the run begins
    """

    preset: str
    shape: ModelShape
    recipe: Recipe
    windows: int
    product: str
    device: str
    steps: int | None = None
    budget: float = BUDGET
    threads: int | None = None
    stops: int = STOPS
    prompt: int = 32
    count: int = 64

    @property
    def model(self) -> str:
        """The model's word in case ids."""
        return f"byte-d{self.shape.hidden}-l{self.shape.layers}"

    @property
    def timed(self) -> Recipe:
        """The recipe with its number of steps."""
        return replace(self.recipe, steps=self.steps or LEAST_STEPS)

    def training(self, one: Combination, data_N: Tensor) -> Training:
        """A combination at its first step; all read the same bytes in the same order."""
        model = Decoder(one.of(self.shape), self.recipe.seed, product=self.product)
        return Training(model, data_N, self.timed, device=self.device)

    def trial(self) -> Workload:
        """Nothing, each idea alone and all four, as a case of `make bench`."""
        shape = LadderShape(self.shape, FEW, self.timed, self.windows, self.stops, (self.product,))
        return Workload(ladder_trial.NAME, self.model, f"s{self.timed.steps}", shape, tiers=())


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


def short_plan() -> Plan:
    """Steps of the narrowest model in a second, for the smoke tier."""
    return replace(tiny_plan(), preset="short", steps=20, stops=3)


def tier_plan() -> Plan:
    """A hundred steps, some ten seconds for six models."""
    return replace(cpu_plan(), preset="bench", steps=100, stops=5)


def gpu_tier_plan() -> Plan:
    """A hundred steps of the GPU's models. Untested on a GPU."""
    return replace(gpu_plan(), preset="gpu-bench", steps=100, stops=5)


PLANS = {"cpu": cpu_plan, "gpu": gpu_plan, "tiny": tiny_plan}
