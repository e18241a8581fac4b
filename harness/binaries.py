"""Triton kernels as a GPU would launch them, on a machine without one: launched, compiled for it, and not run.

Weights and inputs are drawn on torch's meta device by the operation's own contract, so a contender's setup and call
run at the sizes of the GPU tier and take no memory; each launch compiles its kernel for the target with the very
arguments, and ptxas says what it takes. Every case of the GPU tier is a shape class, nothing is declared twice, and a
binary that several cases launch is compiled once. Wins over the interpreter: seconds for the whole tier, real
configurations, real launch counts. Loses what only running shows: results and times. A contender that reads a value
back on the host cannot be rehearsed, and says so.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from . import catalog, verify
from .baseline import Value
from .contract import Operation
from .facts import Operators, toolchain
from .failure import describe
from .registry import Implementation

TARGET = "sm_90"  # of contenders that name none among their needs
PROCESSORS = 132  # of an H100 or H200 SXM; launches may depend on it
MATRIX = re.compile(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\b")


class Absent(torch.Generator):
    """Draws tensors without memory or values."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The meta device, whose random numbers need no generator."""
        return torch.device("meta")


class Driver:
    """What Triton asks of a driver when it compiles for a GPU that is not there."""

    def __init__(self, target: str) -> None:
        self._target = target

    def get_current_device(self) -> str:
        """Keeps the binaries of one target apart from another's."""
        return f"{self._target}, compiled and not run"

    def get_current_stream(self, device: str) -> int:
        """Nothing is put on it."""
        return 0

    def get_current_target(self) -> Any:
        """The GPU compiled for."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", int(self._target.removeprefix("sm_")), 32)


@contextlib.contextmanager
def compiling(target: str = TARGET) -> Iterator[list[Any]]:
    """Inside the block Triton launches compile for `target` and run nothing; yields the kernels in order of launch."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launched: list[Any] = []
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, **kwargs: Any) -> Any:
        launched.append(launch(self, *args, **{**kwargs, "warmup": True}))
        return launched[-1]

    with (
        patch.object(JITFunction, "run", compile_only),
        patch.object(driver, "_active", Driver(target)),
        pretended(target),
    ):
        yield launched


def pretended(target: str = TARGET) -> contextlib.AbstractContextManager[Any]:
    """Inside the block whoever asks torch for the properties of a GPU is told those of an H100 or H200."""
    gpu = SimpleNamespace(multi_processor_count=PROCESSORS, major=int(target[3:-1]), minor=int(target[-1]))
    return patch.object(torch.cuda, "get_device_properties", lambda device=None: gpu)


@dataclass(frozen=True)
class Rehearsal:
    """What one call launched, in order, and what it dispatched to ATen."""

    kernels: tuple[Any, ...]
    operators: dict[str, Value]


def target_of(implementation: Implementation) -> str:
    """The architecture a contender names among its needs, or the usual one."""
    return next((need for need in implementation.needs if need.startswith("sm_")), TARGET)


def rehearse(operation: Operation, implementation: Implementation, shape: Any) -> Rehearsal:
    """Set up and call a contender on tensors without memory. Raises what it raises."""
    technique = implementation.technique
    with compiling(target_of(implementation)) as launched:
        weights = operation.weights(shape, technique, Absent())
        prepared = verify.calling(implementation.setup(weights, shape))
        own = prepared.pack(operation.inputs(shape, technique, Absent()))
        launched.clear()
        with Operators() as seen:
            prepared.call(own)
    return Rehearsal(tuple(launched), seen.facts())


def resources(kernel: Any) -> dict[str, int]:
    """Registers, spilled and stack bytes of a thread, shared bytes of a program, matrix instructions; ptxas' words on
    the PTX that the binary was made of. Raises RuntimeError where ptxas says something else."""
    from triton.backends.nvidia.compiler import get_ptxas

    text = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        made_for = re.search(r"^\.target (\w+)", text, re.MULTILINE)
        name = made_for[1] if made_for else TARGET
        words = [get_ptxas(kernel.metadata.target.arch).path, "-v", "-lineinfo", f"--gpu-name={name}"]
        done = subprocess.run([*words, source, "-o", Path(folder, "kernel.cubin")], capture_output=True, text=True)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
    registers = re.findall(r"Used (\d+) registers", done.stderr)
    if not frames or not registers:
        raise RuntimeError(f"ptxas says nothing of the registers of {kernel.name}: {done.stderr.strip()[:300]}")
    return {
        "registers": max(int(number) for number in registers),
        "spilled": sum(int(spilled) for _, spilled in frames),
        "stack": max(int(stack) for stack, _ in frames),
        "shared": int(kernel.metadata.shared),
        "tensor_core": len(MATRIX.findall(text)),
    }


class Binaries:
    """Facts of rehearsals; each binary is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Value]] = {}

    def facts(self, name: str, rehearsal: Rehearsal) -> dict[str, dict[str, Value]]:
        """By subject: the contender `name`, and each kernel it launches."""
        found: dict[str, dict[str, Value]] = {}
        forms: dict[str, list[str]] = {}
        for kernel in rehearsal.kernels:
            taken = forms.setdefault(kernel.name, [])
            if kernel.hash not in taken:
                taken.append(kernel.hash)
                number = f"#{len(taken)}" if len(taken) > 1 else ""
                if kernel.hash not in self._known:
                    self._known[kernel.hash] = self.examined(kernel)
                found[f"{name} {kernel.name}{number}"] = dict(self._known[kernel.hash])
        totals: dict[str, Value] = {
            "status": "compiled",
            **rehearsal.operators,
            "triton_launches": len(rehearsal.kernels),
        }
        for total in ("spilled", "tensor_core"):
            totals[total] = sum(int(facts[total]) for facts in found.values())
        return {name: totals, **found}

    def examined(self, kernel: Any) -> dict[str, Value]:
        """Facts of one binary."""
        return dict(resources(kernel))


def collect(
    found: catalog.Catalog,
    skipped: Sequence[Sequence[str]],
    note: Callable[..., None],
    binaries: Binaries | None = None,
) -> None:
    """Facts of every Triton contender of a catalog's cases but trials, whose steps follow from data, told to `note`;
    a word if Triton is missing."""
    missing = catalog.unmet("triton", found.device)
    if missing is not None:
        note(absent=missing)
        return
    import triton
    from triton.knobs import nvidia

    note(toolchain={**toolchain(), "triton": triton.__version__, "ptxas": nvidia.ptxas.version})
    binaries = Binaries() if binaries is None else binaries
    done = {(case, contender) for case, contender in skipped}
    for case in found.cases:
        workload = found.workloads[case.id]
        operation = found.registry.operations[workload.operation]
        if operation.trial is not None:
            continue
        for implementation in found.registry.implementations[workload.operation].values():
            name = implementation.contender
            if "triton" not in implementation.needs or (case.id, name) in done:
                continue
            note(turn=[case.id, name])
            rehearsed = partial(rehearse, operation, implementation, workload.shape)
            try:
                unfit = implementation.supports(workload.shape)
                facts: dict[str, dict[str, Value]] = (
                    {name: {"status": "unavailable"}} if unfit else binaries.facts(name, rehearsed())
                )
                note(case=case.id, facts=facts, reason=unfit)
            except (Exception, SystemExit) as error:
                note(case=case.id, facts={name: {"status": "error"}}, reason=f"not compiled: {describe(error)}")
