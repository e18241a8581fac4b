"""One contender of a contest, from setup to a verified, timed call.

`Side` is what all contenders of a technique share: weights, inputs, and the truth for two draws of the inputs. An
`Entrant` is one implementation on that side. It is verified on the first draw before it is timed and on the second
after; in between its inputs change every round, so an answer kept from an earlier call is a wrong one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import memory, verify
from .clock import Clock, EventClock, Replay, Thunk, WallClock
from .contract import Operation
from .frame import Frame
from .measurement import Timed
from .registry import Implementation
from .telemetry import energy
from .tree import map_tensors, named_tensors, storage_bytes

STREAM_CHECK_CYCLES = 40_000_000
ROLL_LIMIT_BYTES = 64 * 1024**2


class Side:
    """Weights, inputs and truth of one technique in one case; `seed` draws them."""

    def __init__(
        self, operation: Operation, technique: str, reference: verify.Setup, shape: Any, device: str, seed: int
    ) -> None:
        self.operation, self.technique, self.shape, self.device, self.seed = operation, technique, shape, device, seed
        self._reference = reference
        self.weights = operation.weights(shape, technique, self._generator(seed))
        self.inputs = self._draw(seed + 1)
        self._second = self._changing(self._draw(seed + 2))
        self._first = {name: t.clone() for name, t in self._changing(self.inputs).items()}
        self.frame = Frame(self.weights, self.inputs)
        self.weights_digest = verify.digest(self.weights)
        self.use_second()
        self.second_truth = self._truth(self.inputs)
        self.use_first()
        self.truth = self._truth(self.inputs)
        self.first_digest = self.digest()
        self.quality = self._quality()

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(seed)

    def _draw(self, seed: int, shape: Any = None) -> Any:
        return self.operation.inputs(self.shape if shape is None else shape, self.technique, self._generator(seed))

    def _truth(self, inputs: Any, shape: Any = None) -> verify.Truth:
        shape = self.shape if shape is None else shape
        return verify.compute_truth(self.operation, self._reference, self.weights, inputs, shape, self.device)

    def _quality(self) -> dict[str, float]:
        """Distance of the truth from that of each variant of the shape, drawn with the same seed."""
        found = {}
        for metric, shape in self.operation.variants(self.shape).items():
            other = self._truth(self._draw(self.seed + 1, shape), shape)
            found[metric] = max(verify.distance(t, other.values[name]).error for name, t in self.truth.values.items())
        return found

    def _changing(self, inputs: Any) -> dict[str, Tensor]:
        """The tensors of the inputs that are not state."""
        state = self.operation.mutable
        return {
            n: t for n, t in named_tensors(inputs).items() if not any(n == s or n.startswith(f"{s}.") for s in state)
        }

    def use_first(self) -> None:
        """Fill the inputs in place with the first draw."""
        self._fill(self._first)

    def use_second(self) -> None:
        """Fill the inputs in place with the second draw."""
        self._fill(self._second)

    def roll(self) -> None:
        """Shift the inputs by one row: other inputs of the same distribution, at little cost.

        A row is a place of the first axis that has more than one: sequences or tokens stay whole, for what is done to
        one may depend on its values, as the choice of experts does. 8-bit floats are shifted as bytes, for a GPU has no
        roll for them.
        """
        for tensor in self._changing(self.inputs).values():
            if tensor.dim() and tensor.is_floating_point() and tensor.nbytes <= ROLL_LIMIT_BYTES:
                tensor = tensor.view(torch.uint8) if tensor.element_size() == 1 else tensor
                tensor.copy_(tensor.roll(1, next((axis for axis, size in enumerate(tensor.shape) if size > 1), 0)))

    def digest(self) -> dict[str, tuple[int, int]]:
        """What must not change in the inputs."""
        return verify.digest(self.inputs, self.operation.written(self.inputs))

    def require_framed(self) -> None:
        """Raises Incorrect when an input or a weight is another tensor, or was resized."""
        changed = self.frame.changed()
        if changed is not None:
            raise verify.Incorrect(f"replaced or resized its input {changed}")

    def restore(self) -> None:
        """Draw weights and inputs again, in place, after a contender has damaged them."""
        for mine, fresh in (
            (self.weights, self.operation.weights(self.shape, self.technique, self._generator(self.seed))),
            (self.inputs, self._draw(self.seed + 1)),
        ):
            originals = named_tensors(fresh)
            for name, tensor in named_tensors(mine).items():
                tensor.copy_(originals[name])

    def _fill(self, source: dict[str, Tensor]) -> None:
        for name, tensor in self._changing(self.inputs).items():
            tensor.copy_(source[name])

    @property
    def input_bytes(self) -> int:
        """Bytes of the inputs that are not state."""
        return storage_bytes(self._changing(self.inputs))


class Finished:
    """What is left of a clock when its contender has been released."""

    def __init__(self, name: str, submit_ns: float | None) -> None:
        self.name, self.submit_ns = name, submit_ns

    def slot(self) -> list[float]:
        """Nothing is left to time."""
        raise RuntimeError("this contender has been released")


class Entrant(Timed):
    """One implementation being set up, verified and timed; raises what the implementation raises."""

    def __init__(self, implementation: Implementation, side: Side, flush: Thunk, graph: bool) -> None:
        super().__init__(implementation)
        self.side = side
        self.distance = verify.Distance(0.0, 0.0)
        self._flush, self._graph = flush, graph
        self.weighed: energy.Energy | None = None

    def prepare(self, empty_ns: float | None) -> None:
        """Set up, verify on the first draw, count memory and launches, and build the clock."""
        side = self.side
        begin = time.perf_counter()
        made, built = memory.measure(lambda: self.implementation.setup(side.weights, side.shape), side.device)
        self.take(made)
        self.figures["setup"] = time.perf_counter() - begin
        self.verify_first()
        state = max(0, storage_bytes(self._own) - side.input_bytes)
        self.figures["state"] = state
        self.figures["resident"] = storage_bytes(side.weights) + built.kept + state
        self.figures["peak"] = memory.measure(self.call, side.device)[1].peak
        self.clock = self.make_clock(empty_ns)

    def take(self, made: Any) -> None:
        """What setup returned: the call, on inputs in its own layout, carried out once."""
        side = self.side
        prepared = verify.calling(made)
        self.layout, self._unpack = prepared.layout, prepared.unpack
        verify.poison_written(side.operation, side.inputs)
        own = prepared.pack(side.inputs)
        side.require_framed()
        self._require_passed_through(own)
        self.call: Callable[[], Any] = lambda: prepared.call(own)
        self._own = own
        self.call()
        self._synchronize()
        side.require_framed()

    def _require_passed_through(self, own: Any) -> None:
        held = {t.data_ptr() for t in named_tensors(own).values()}
        for name, tensor in self.side._changing(self.side.inputs).items():
            if tensor.data_ptr() not in held:
                raise TypeError(f"pack must hand on the input {name} as it is; only state may be rearranged")

    def make_clock(self, empty_ns: float | None) -> Clock:
        """Wall time on a CPU; on a GPU device time, after counting launches."""
        if self.side.device != "cuda":
            return WallClock(self.call, self._flush)
        self.figures["launches"] = count = memory.launches(self.call)
        if not self._graph:
            return EventClock(self.call, self._flush, count, empty_ns)
        self.call = Replay(self.call)
        clock = EventClock(self.call, self._flush, 1, empty_ns)
        clock.name = "graph"
        return clock

    def verify_first(self) -> None:
        """The first draw, filled in behind a gate: work on a stream of its own would read stale inputs."""
        side = self.side
        side.use_second()
        verify.poison_free_memory(side.truth.values)
        self._synchronize()
        if side.device == "cuda":
            torch.cuda._sleep(STREAM_CHECK_CYCLES)
        side.use_first()
        self._judge(side.truth, side.first_digest)

    def verify_second(self) -> None:
        """The second draw, after timing. Raises Incorrect."""
        self.side.use_second()
        verify.poison_free_memory(self.side.truth.values)
        self._judge(self.side.second_truth, None)

    def _judge(self, truth: verify.Truth, untouched: dict[str, tuple[int, int]] | None) -> None:
        """Judge one call's result, what it wrote, and what it must leave alone (`untouched`: the inputs' digest)."""
        result = self.side.operation.normal(map_tensors(lambda t: t.detach().clone(), self.call()))
        self._synchronize()
        self.side.require_framed()
        if verify.digest(self.side.weights) != self.side.weights_digest:
            raise verify.Incorrect("changed its weights")
        if untouched is not None:
            verify.check_unchanged(self.side.operation, self._unpack(self._own), untouched)
        found = [verify.check(result, truth)]
        if truth.written:
            found.append(verify.check_written(self.side.operation, self._unpack(self._own), truth))
        errors = [self.distance, *found]
        self.distance = verify.Distance(max(d.error for d in errors), max(d.worst for d in errors))

    def slot(self, number: int) -> None:
        """One slot of a round: a sample a call, and their median as the round's value."""
        samples = self.clock.slot()
        self.side.require_framed()
        self.add(number, samples)

    def weigh(self) -> None:
        """The energy of a call, where the GPU has a counter that tells; what is warm in its caches stays so."""
        self.weighed = energy.of_call(self.call, sorted(self.slots)[len(self.slots) // 2] / 1e9)
        if self.weighed is not None:
            self.figures["energy"] = self.weighed.joules

    def release(self) -> None:
        """Give back the call and its state; what was measured stays."""
        self.call = self._own = None  # type: ignore[assignment]
        self.clock = Finished(self.clock.name, self.clock.submit_ns)

    def _synchronize(self) -> None:
        if self.side.device == "cuda":
            torch.cuda.synchronize()
