"""What an operation means, apart from any code that computes it: inputs, state, cost, and what a result must match.

One `Operation` a behaviour. Its reference implementations *are* its specification: the harness runs them in higher
precision to judge every other implementation of the same technique. Everything a contract leaves out has a default,
so a trivial operation is a name, weights, inputs and a cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .metrics import Metric

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


def _whole(inputs: Any) -> Iterator[Any]:
    yield inputs


@dataclass(frozen=True)
class Operation:
    """The contract of one operation.

    weights, inputs  draw from (shape, technique, generator) on the generator's device; inputs come in independent
                     draws, weights are shared by all contenders of a technique
    cost             (shape, technique) -> `Cost` of the technique, whoever implements it
    tokens           shape -> tokens processed by one call, for throughput
    baseline         contender names in order of preference; the first that ran correctly is what ratios divide by
    mutable          fields of the inputs that are state (KV cache): they count as resident, and the call may write
                     them, at `written` only
    written          inputs -> {dotted path of a tensor: index}; what the call writes there must match what the
                     reference writes there; writing twice gives the same, and nothing else may change
    real             a written tensor -> its numbers, for state in a storage format such as FP8 with scales
    pieces           inputs -> independent parts along the first axis of the output, so that the reference fits in
                     memory in higher precision
    facts            (shape, technique) -> analytic values of `metrics`
    variants         shape -> {metric: other shape}: report the distance of the two shapes' true results, for example
                     of a quantized cache from the exact one, both drawn with the same seed
    """

    name: str
    weights: Callable[[Any, str, torch.Generator], Any]
    inputs: Callable[[Any, str, torch.Generator], Any]
    cost: Callable[[Any, str], Cost]
    tokens: Callable[[Any], int]
    baseline: tuple[str, ...]
    mutable: tuple[str, ...] = ()
    written: Callable[[Any], Mapping[str, Any]] = field(default=lambda inputs: {})
    real: Callable[[torch.Tensor], torch.Tensor] = field(default=lambda tensor: tensor)
    pieces: Callable[[Any], Iterator[Any]] = _whole
    metrics: tuple[Metric, ...] = ()
    facts: Callable[[Any, str], Mapping[str, float]] = field(default=lambda shape, technique: {})
    variants: Callable[[Any], Mapping[str, Any]] = field(default=lambda shape: {})

    @property
    def study(self) -> str:
        """The part of the name before the dot: `attention` of `attention.decode`."""
        return self.name.split(".")[0]
