"""Judges a result against the reference in higher precision, and what the call did to its inputs.

The reference is the specification. Its result in FP64 (FP32 where the contender computes in 16 bits) is the truth;
its result in the contender's own dtype shows how much error that dtype costs. A contender may err twice as much, as a
whole (relative Frobenius norm) and four times as much in its worst element, which catches a single wrong value that
the norm of a large tensor would hide. A contract may set a floor under both limits, where hardware rounds more than
the reference does. Whole numbers, such as the experts chosen for a token, must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .contract import Call, Operation, Prepared
from .tree import cast, clone, map_tensors, named_tensors

FROBENIUS_FACTOR = 2.0
WORST_FACTOR = 4.0
DIGEST_ELEMENTS = 64 * 1024**2
Setup = Callable[[Any, Any], Any]


class Incorrect(Exception):
    """The result is wrong; the message says how."""


@dataclass(frozen=True)
class Distance:
    """Relative Frobenius error, and the largest element's error over the truth's root mean square."""

    error: float
    worst: float


@dataclass(frozen=True)
class Truth:
    """What a technique's results must be for one draw of inputs: tensors, how far each may be off, and dtypes."""

    values: Mapping[str, Tensor]
    written: Mapping[str, Tensor]
    limits: Mapping[str, Distance]
    precision: str
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """The tightest limit of the result's tensors, for the record."""
        return min((limit.error for limit in self.limits.values()), default=0.0)


def distance(result: Tensor, truth: Tensor) -> Distance:
    """Errors of `result` against `truth`, absolute where the truth is all zeros; infinite for values that are not
    finite."""
    wide = torch.float64 if truth.dtype == torch.float64 else torch.float32
    exact, difference = truth.to(wide), result.detach().to(truth.device, wide)
    difference = difference - exact
    norm = float(torch.linalg.vector_norm(exact, dtype=torch.float64))
    off = float(torch.linalg.vector_norm(difference, dtype=torch.float64))
    worst = float(difference.abs().max()) if difference.numel() else 0.0
    if not math.isfinite(off):
        return Distance(math.inf, math.inf)
    count = math.sqrt(max(exact.numel(), 1))
    if norm == 0:
        return Distance(off / count, worst)
    return Distance(off / norm, worst * count / norm)


def calling(made: Any) -> Prepared:
    """What a setup returned, as `Prepared`. Raises TypeError when it is neither that nor callable."""
    if isinstance(made, Prepared):
        return made
    if callable(made):
        return Prepared(made)
    raise TypeError(f"setup returned {type(made).__name__}, neither a callable nor Prepared")


def higher_precision(dtype: torch.dtype) -> torch.dtype:
    """FP64 for FP32 and wider; FP32 for 16-bit formats, whose own error is ten thousand times larger."""
    return torch.float64 if dtype in (torch.float32, torch.float64) else torch.float32


def compute_truth(operation: Operation, setup: Setup, weights: Any, inputs: Any, shape: Any, device: str) -> Truth:
    """Run the reference piece by piece in higher precision and in its own dtype, on copies of `inputs`."""
    dtype = compute_dtype(weights, inputs)
    wide = higher_precision(dtype)
    exact = calling(setup(cast(weights, wide), shape)).call
    own = calling(setup(weights, shape)).call
    values, written = _run(operation, exact, inputs, wide)
    own_values, own_written = _run(operation, own, inputs, None)
    least = least_limit(dtype, operation.allowed(shape, device))
    limits = {}
    for group, reference in ((values, own_values), (written, own_written)):
        for name, truth in group.items():
            off = distance(reference[name], truth)
            limits[name] = Distance(
                max(FROBENIUS_FACTOR * off.error, least.error), max(WORST_FACTOR * off.worst, least.worst)
            )
    dtypes = {name: tensor.dtype for name, tensor in own_values.items()}
    return Truth(values, written, limits, str(wide).removeprefix("torch."), dtypes)


def least_limit(dtype: torch.dtype, allowed: tuple[float, float] | None = None) -> Distance:
    """What is always allowed, however exact the reference happens to be: another order of summation in FP32 and wider;
    in 16-bit formats, which accumulate in FP32, another rounding of the result; and what the contract says."""
    eps = torch.finfo(dtype).eps
    error, worst = (16 * eps, 256 * eps) if dtype.itemsize >= 4 else (eps / 2, 4 * eps)
    floor = allowed or (0.0, 0.0)
    return Distance(max(error, floor[0]), max(worst, floor[1]))


def compute_dtype(weights: Any, inputs: Any) -> torch.dtype:
    """The dtype of the first floating-point tensor of 16 bits or more."""
    for tensor in [*named_tensors(weights).values(), *named_tensors(inputs).values()]:
        if tensor.is_floating_point() and tensor.element_size() > 1:
            return tensor.dtype
    return torch.float32


def _run(
    operation: Operation, call: Call, inputs: Any, dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = []
    states: list[dict[str, Tensor]] = []
    for piece in operation.pieces(inputs):
        own = clone(piece) if dtype is None else cast(clone(piece), dtype)
        parts.append({name: t.detach() for name, t in named_tensors(operation.normal(call(own))).items()})
        states.append(read_written(operation, own))
    return _joined(parts), _joined(states)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def read_written(operation: Operation, inputs: Any) -> dict[str, Tensor]:
    """What the call wrote into the mutable inputs, as numbers, by `written <path>`."""
    tensors = named_tensors(inputs)
    return {
        f"written {path}": operation.real(tensors[path][index]) for path, index in operation.written(inputs).items()
    }


def poison_written(operation: Operation, inputs: Any) -> None:
    """Fill what the call must write with bytes that are NaN in every floating-point format."""
    tensors = named_tensors(inputs)
    for path, index in operation.written(inputs).items():
        raw = torch.zeros_like(tensors[path][index]).view(torch.uint8).fill_(255)
        tensors[path][index] = raw.view(tensors[path].dtype)


def poison_free_memory(result: Any) -> None:
    """Leave NaN in the memory that the allocator will hand out next for tensors like `result`'s."""
    map_tensors(lambda t: not_a_number(torch.empty_like(t)) if t.is_floating_point() else t, result)


def not_a_number(tensor: Tensor) -> Tensor:
    """The tensor filled with NaN in place; 8-bit floats by their bytes, for a GPU has no fill for them."""
    if tensor.element_size() > 1:
        return tensor.fill_(torch.nan)
    tensor.view(torch.uint8).fill_(255)  # NaN in E4M3FN, E5M2 and E8M0FNU
    return tensor


def check(result: Any, truth: Truth) -> Distance:
    """The largest errors over all tensors of a result. Raises Incorrect with the name and the figures."""
    found = named_tensors(result)
    if set(found) != set(truth.values):
        raise Incorrect(f"returned {_names(found)} where the reference returns {_names(truth.values)}")
    return _compare(found, truth.values, truth)


def check_written(operation: Operation, inputs: Any, truth: Truth) -> Distance:
    """The same for what the call wrote into its mutable inputs."""
    return _compare(read_written(operation, inputs), truth.written, truth)


def _compare(found: Mapping[str, Tensor], exact: Mapping[str, Tensor], truth: Truth) -> Distance:
    largest = Distance(0.0, 0.0)
    for name, expected in exact.items():
        tensor, limit = found[name], truth.limits[name]
        if tensor.shape != expected.shape:
            raise Incorrect(f"{name} has shape {list(tensor.shape)}, expected {list(expected.shape)}")
        dtype = truth.dtypes.get(name, tensor.dtype)
        if tensor.dtype != dtype:
            told = (str(one).removeprefix("torch.") for one in (tensor.dtype, dtype))
            raise Incorrect("{} is {}, expected {}".format(name, *told))
        if not expected.is_floating_point():
            wrong = int((tensor != expected).sum())
            if wrong:
                raise Incorrect(f"{name} differs in {wrong} of {expected.numel()} whole numbers")
            continue
        off = distance(tensor, expected)
        if not math.isfinite(off.error):
            raise Incorrect(not_finite(name, tensor))
        if off.error > limit.error:
            raise Incorrect(f"{name} is off by {off.error:.2e} (relative Frobenius), limit {limit.error:.2e}")
        if off.worst > limit.worst:
            raise Incorrect(f"an element of {name} is off by {off.worst:.2e} of the rms, limit {limit.worst:.2e}")
        largest = Distance(max(largest.error, off.error), max(largest.worst, off.worst))
    return largest


def not_finite(name: str, tensor: Tensor) -> str:
    """Which values that are not finite a result holds, and how many."""
    tensor = tensor.float() if tensor.element_size() == 1 else tensor
    lost = int(tensor.isnan().sum())
    kind, count = ("NaN", lost) if lost else ("infinity", int(tensor.isinf().sum()))
    return f"{name} holds {kind} in {count} of {tensor.numel()} values"


def _names(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted(tensors)) or "no tensor"


def digest(tree: Any, writable: Mapping[str, Any] | None = None) -> dict[str, tuple[int, int]]:
    """A number for each tensor that changes when anything but its `writable` part changes."""
    writable = writable or {}
    sums = {}
    for name, tensor in named_tensors(tree).items():
        whole, part = _sums(tensor, placed=name not in writable), (0, 0)
        if name in writable:
            part = _sums(tensor[writable[name]], placed=False)
        sums[name] = ((whole[0] - part[0]) % 2**64, (whole[1] - part[1]) % 2**64)
    return sums


def _sums(tensor: Tensor, placed: bool) -> tuple[int, int]:
    """Sum of the bit patterns, and of each times its place or itself; integers wrap around as they do in torch.

    Times itself both add up over parts of a tensor; times its place an exchange of elements shows as well.
    """
    first = second = 0
    view = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    for number, piece in enumerate(_pieces(tensor.detach())):
        bits = piece.reshape(-1).view(view)
        bits = bits.to(torch.int32) if bits.element_size() < 4 else bits
        factors = torch.arange(bits.numel(), dtype=bits.dtype, device=bits.device) + number if placed else bits
        first += int(bits.sum())
        second += int((bits * factors).sum())
    return first, second


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor in parts of up to DIGEST_ELEMENTS elements; none is a copy."""
    if tensor.numel() <= DIGEST_ELEMENTS:
        yield tensor
    elif tensor.dim() == 1:
        yield from tensor.split(DIGEST_ELEMENTS)
    else:
        rows = DIGEST_ELEMENTS // tensor[0].numel()
        for part in tensor.split(rows) if rows else tensor:
            yield from _pieces(part)


def check_unchanged(operation: Operation, inputs: Any, before: Mapping[str, tuple[int, int]]) -> None:
    """Raises Incorrect when the call changed an input, or state outside what it may write."""
    after = digest(inputs, operation.written(inputs))
    changed = [name for name, value in before.items() if after.get(name) != value]
    if changed:
        raise Incorrect(f"changed its input {', '.join(changed)}")
