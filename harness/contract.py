"""What an operation means, apart from any code that computes it: inputs, state, cost, and what a result must match.

One `Operation` a behaviour. Its reference implementations *are* its specification: the harness runs them in higher
precision to judge every other implementation of the same technique. Everything a contract leaves out has a default,
so a trivial operation is a name, weights, inputs and a cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .metrics import Better, Metric

if TYPE_CHECKING:  # records and pages import this package where torch is missing
    import torch

Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Cost:
    """Least work of one call: FLOPs at the matrix rate of `dtype`, and each needed byte read or written once."""

    flops: float
    read_bytes: float
    write_bytes: float
    dtype: str


@dataclass(frozen=True)
class Prepared:
    """What an implementation returns when its state has a layout of its own.

    `pack` turns inputs as the contract draws them into the layout at hand, once and not timed; it rearranges the
    contract's `mutable` fields and hands the other tensors on as they are, for the harness refills those in place.
    `call` is timed on what `pack` returned; `unpack` gives the contract's form back, so that what the call wrote can
    be checked. `layout` names it in the record, for example "pages of 64, shuffled".
    """

    call: Call
    pack: Callable[[Any], Any] = lambda inputs: inputs
    unpack: Callable[[Any], Any] = lambda packed: packed
    layout: str = "contiguous"


class Course:
    """What an implementation of a trial returns, or anything with the same methods: steps, begun anew by each setup.

    `advance` is timed; `note` comes after each step and is not, for what happens now and then, such as a validation.
    `figures` (of the contract's `metrics`) and `series` are asked for once, after the last step.
    """

    def advance(self) -> float:
        """One step; returns what must fall or rise over the course, such as the loss before the step's update."""
        raise NotImplementedError

    def note(self) -> None:
        """Keep what is to be kept of the step just taken."""

    def figures(self) -> Mapping[str, float]:
        """Where it ended, by metric."""
        return {}

    def series(self) -> Mapping[str, Sequence[float]]:
        """Lists of numbers by name that pages draw; `step` numbers the others' entries."""
        return {}


@dataclass(frozen=True)
class Trial:
    """Makes an operation a trial: carried out once, step by step, and judged by where it ends; a training run.

    steps   shape -> how many steps, 2 or more
    better  whether what `advance` returns must have fallen at the end ("lower", a loss) or risen ("higher", a reward)
    least   steps that are taken however little time there is: fewer would not tell whether it falls
    alike   how far apart, relatively, what first steps return may be: of one contender set up twice, and of a
            technique's contenders, which all begin in the same place
    data    weights -> a few words on what it learns from, so that only results of equal data are compared
    """

    steps: Callable[[Any], int]
    better: Better = "lower"
    least: int = 10
    alike: float = 1e-6
    data: Callable[[Any], str] = field(default=lambda weights: "")


def _whole(inputs: Any) -> Iterator[Any]:
    yield inputs


def _no_inputs(shape: Any, technique: str, generator: torch.Generator) -> None:
    """A trial has none."""


def _no_cost(shape: Any, technique: str) -> None:
    """A trial need not have any."""


@dataclass(frozen=True)
class Operation:
    """The contract of one operation.

    weights, inputs  draw from (shape, technique, generator) on the generator's device; inputs come in independent
                     draws, weights are shared by all contenders of a technique; a trial has no inputs, its weights are
                     what all begin with, such as data, and each setup gets its own copy
    cost             (shape, technique) -> `Cost` of the technique, whoever implements it; a trial may leave it out, and
                     then has no floor
    tokens           shape -> tokens processed by one call, or one step of a trial, for throughput
    baseline         contender names in order of preference; the first that ran correctly is what ratios divide by
    mutable          fields of the inputs that are state (KV cache): they count as resident, and the call may write
                     them, at `written` only
    written          inputs -> {dotted path of a tensor: index}; what the call writes there must match what the
                     reference writes there; writing twice gives the same, and nothing else may change
    real             a written tensor -> its numbers, for state in a storage format such as FP8 with scales
    normal           a result -> its one form, where several are right, for example chosen experts in any order
    pieces           inputs -> independent parts along the first axis of the output, so that the reference fits in
                     memory in higher precision
    facts            (shape, technique) -> analytic values of `metrics`
    series           (shape, technique) -> lists of numbers by name that pages draw, for example tokens by expert;
                     lists of whole numbers, and facts of metrics declared exact, are in the exact gate's baseline
    allowed          (shape, device) -> (Frobenius, worst element) error that always passes, or None: a floor under both
                     limits of a result, for arithmetic that the hardware rounds more than the reference in its own
                     dtype does
    variants         shape -> {metric: other shape}: report the distance of the two shapes' true results, for example
                     of a quantized cache from the exact one, both drawn with the same seed
    trial            what makes it a trial; None: calls that are repeated
    Raises ValueError for an operation that is no trial and lacks inputs or cost.
    """

    name: str
    weights: Callable[[Any, str, torch.Generator], Any]
    tokens: Callable[[Any], int]
    baseline: tuple[str, ...]
    inputs: Callable[[Any, str, torch.Generator], Any] = field(default=_no_inputs)
    cost: Callable[[Any, str], Cost | None] = field(default=_no_cost)
    mutable: tuple[str, ...] = ()
    written: Callable[[Any], Mapping[str, Any]] = field(default=lambda inputs: {})
    real: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda tensor: tensor)
    normal: Callable[[Any], Any] = field(default=lambda result: result)
    pieces: Callable[[Any], Iterator[Any]] = _whole
    metrics: tuple[Metric, ...] = ()
    facts: Callable[[Any, str], Mapping[str, float]] = field(default=lambda shape, technique: {})
    series: Callable[[Any, str], Mapping[str, Sequence[float]]] = field(default=lambda shape, technique: {})
    allowed: Callable[[Any, str], tuple[float, float] | None] = field(default=lambda shape, device: None)
    variants: Callable[[Any], Mapping[str, Any]] = field(default=lambda shape: {})
    trial: Trial | None = None

    def __post_init__(self) -> None:
        if self.trial is None and (self.inputs is _no_inputs or self.cost is _no_cost):
            raise ValueError(f"{self.name} declares no inputs or no cost; only a trial can do without")

    @property
    def study(self) -> str:
        """The part of the name before the dot: `attention` of `attention.decode`."""
        return self.name.split(".")[0]
