"""What the balance study trains: models, recipes and lengths, on a CPU, on a GPU, and shortened for `make bench`.

The arms themselves, what they report and why their constants are what they are: `impls/ffn/balance_trial.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from harness import Metric, Workload
from impls.ffn import balance_trial
from impls.ffn.balance_trial import ARMS, BalanceShape
from impls.ffn.shape import Router
from impls.model.shape import ModelShape, small_shape
from impls.model.training import Recipe, Training

BUDGET, GPU_BUDGET = 420.0, 620.0
STOPS = 14
LEAST_STEPS = 20
METRICS = {
    metric.name: metric
    for metric in (
        *balance_trial.METRICS,
        Metric("xz_bits", "bits/byte", "lower", "Bits a byte of xz -9e on the whole validation part."),
        Metric("step_time", "ns", "lower", "Median wall time of a training step, balancing included."),
    )
}


@dataclass(frozen=True)
class Plan:
    """What to train: arms by name, steps (None: as many as `budget` seconds allow), sizes, device, data.

    preset   the function of `PLANS` it began as, by which a resumed run finds its sizes again
    threads  None: one or all, whichever is faster when the run begins
    """

    preset: str
    shape: ModelShape
    recipe: Recipe
    windows: int
    arms: tuple[str, ...] = tuple(ARMS)
    steps: int | None = None
    budget: float = BUDGET
    stops: int = STOPS
    form: str = "sorted"
    device: str = "cpu"
    threads: int | None = None
    data: str | None = None

    @property
    def model(self) -> str:
        """The model's word in case ids."""
        return f"byte-moe-d{self.shape.hidden}"

    @property
    def command(self) -> str:
        """What repeats the run, with the steps that its budget came to."""
        arms = "" if self.arms == tuple(ARMS) else f" ARMS={','.join(self.arms)}"
        data = f" DATA='{self.data}'" if self.data else ""
        return f"make balance STEPS={self.steps} DEVICE={self.device}{arms}{data}"

    @property
    def timed(self) -> Recipe:
        """The recipe with its number of steps."""
        return replace(self.recipe, steps=self.steps or LEAST_STEPS)

    def training(self, arm: str, data_N: Tensor) -> Training:
        """One arm at its first step."""
        return balance_trial.begun(arm, self.shape, self.timed, self.form, data_N, self.device)

    def trial(self) -> Workload:
        """The plan as a case of `make bench`."""
        shape = BalanceShape(self.shape, self.timed, self.windows, self.stops, self.form, self.arms)
        return Workload("ffn.balance", self.model, f"s{self.timed.steps}", shape, tiers=())


def cpu_plan() -> Plan:
    """1.7 million parameters, 0.8 million active; 1,024 bytes a step."""
    return Plan("cpu", small_shape(), Recipe(steps=0, rate=4e-3), windows=96)


def gpu_plan() -> Plan:
    """98 million parameters, 18 million active, computed in BF16; 16,384 bytes a step, 1,536 pairs an expert.

    On an H200 a step took 67 ms (98 with device losses) where 35 were expected: the host's launches bind. A stop with
    five validations and five checkpoints of 1.2 GB took 17 s. So ten minutes are some 1,200 steps of each arm, twice
    through the library; the machine decides, for steps are set by timing.
    """
    rule = Router(64, 6, score="sigmoid", groups=8, top_groups=4, normalise=True)
    shape = small_shape(hidden=512, layers=8, head_dim=64, width=128, router=rule, dtype="bfloat16")
    recipe = Recipe(steps=0, batch=32, length=512, rate=1e-3, warm_up=100)
    return Plan("gpu", shape, recipe, 256, budget=GPU_BUDGET, form="grouped-mm", device="cuda")


def short_plan() -> Plan:
    """Two arms of a narrower model for 60 steps, in seconds: no balancing, and the bias."""
    shape = small_shape(hidden=64, layers=2, head_dim=16, width=32)
    recipe = Recipe(steps=0, batch=4, length=64, rate=4e-3, warm_up=5)
    return Plan("short", shape, recipe, 32, arms=("none", "bias"), steps=60, stops=4, threads=1)


def tier_plan() -> Plan:
    """Two arms of a model of half the hidden size and two mixtures for 240 steps of 256 bytes, in 20 seconds."""
    shape = small_shape(hidden=64, layers=3, head_dim=16, width=32)
    recipe = Recipe(steps=0, batch=4, length=64, rate=4e-3)
    return Plan("bench", shape, recipe, 32, arms=("none", "bias"), steps=240, threads=1)


PLANS = {"cpu": cpu_plan, "gpu": gpu_plan, "short": short_plan, "bench": tier_plan}
