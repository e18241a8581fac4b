"""What is exactly known of every case and contender on a CPU: no noise, no GPU, the same in every process.

Of a technique: FLOPs, least bytes, the contract's analytic metrics (KV bytes a token, balance) and series (expert
loads). Of a contender: whether it is correct, resident, state and peak bytes, allocations, and the ATen operators it
dispatches. Of a Triton contender at the GPU's sizes: see binaries.py. Seeds are fixed, torch has one thread and the
instructions every such processor has. Wins over times: any difference means something. Loses sight of everything that
costs time and no operator, byte or register.

`python -m harness.facts WHAT OPTIONS SKIPPED FILE [FOLDER MATCH]` writes one JSON object a line for `collection.py`,
which starts it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import catalog, memory, verify
from .ambient import Ambient
from .baseline import OPERATOR_LIST, Value, parsed
from .case import Workload
from .clock import CacheFlush
from .contract import Operation
from .entrant import Entrant, Side
from .failure import describe, out_of_memory
from .metrics import COMMON
from .options import Options
from .process import end_with_parent
from .registry import Implementation
from .worker import limit_memory

SEED = 20
LISTED = 32  # numbers of a series that are written out


class Operators(TorchDispatchMode):
    """Counts what is dispatched to ATen inside the block, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).removeprefix("aten.").removesuffix(".default")] += 1
        return func(*args, **(kwargs or {}))

    def facts(self) -> dict[str, Value]:
        """How many, and how often each: sorted, so that another order is no difference."""
        listed = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return {"operators": self.counts.total(), OPERATOR_LIST: listed}


def plain(value: float) -> Value:
    """A whole number as int, any other to 9 digits."""
    return int(value) if float(value).is_integer() else float(f"{value:.9g}")


def written_out(series: Sequence[float]) -> Value:
    """The numbers of a short series, as a baseline reads them back; of a long one their count and a digest."""
    numbers = [str(plain(value)) for value in series]
    if len(numbers) <= LISTED:
        return parsed(" ".join(numbers) or "none")
    return f"{len(numbers)} numbers, digest {hashlib.sha256(' '.join(numbers).encode()).hexdigest()[:12]}"


def contract_facts(operation: Operation, shape: Any, technique: str) -> dict[str, Value]:
    """What the contract says of a technique at one shape: metrics declared exact, and series of whole numbers.

    Any other number may come out differently where a processor adds up in another order.
    """
    cost, found = operation.cost(shape, technique), {}
    if cost is not None:
        found = {"flops": plain(cost.flops), "bytes": plain(cost.read_bytes + cost.write_bytes)}
    exact = {metric.name for metric in operation.metrics if metric.exact is not None}
    found |= {name: plain(value) for name, value in operation.facts(shape, technique).items() if name in exact}
    for name, values in operation.series(shape, technique).items():
        if all(float(value).is_integer() for value in values):
            found[name] = written_out(values)
    return found


def contender_facts(implementation: Implementation, side: Side, flush: CacheFlush) -> dict[str, dict[str, Value]]:
    """By subject, of a contender that is correct on both draws.

    Raises verify.Incorrect, or what the contender raises.
    """
    ambient = Ambient(side.device)
    entrant = Entrant(implementation, side, flush, graph=False)
    entrant.prepare(None)
    with Operators() as seen:
        entrant.call()
    usage = memory.measure(entrant.call, side.device)[1]
    entrant.verify_second()
    changed = ambient.changed()
    if changed is not None:
        raise verify.Incorrect(f"changed torch's {changed} for everybody; set it back before returning")
    exact = {n: plain(value) for n, value in entrant.figures.items() if n in COMMON and COMMON[n].exact is not None}
    counts = {**seen.facts(), "allocations": usage.allocations}
    return {implementation.contender: {"status": "passed", **exact, **counts}}


class Collector:
    """Goes through the cases of a catalog and tells `note` what it finds, so that a crash costs one contender."""

    def __init__(self, found: catalog.Catalog, skipped: Sequence[Sequence[str]], note: Callable[..., None]) -> None:
        self._catalog, self._note = found, note
        self._skipped = {(case, contender) for case, contender in skipped}
        self._flush = CacheFlush(found.device)

    def run(self) -> None:
        """Everything of every case but trials, whose facts follow from data that differ between Python releases."""
        for case in self._catalog.cases:
            workload = self._catalog.workloads[case.id]
            if self._catalog.registry.operations[case.operation].trial is not None:
                continue
            self._contract(workload, sorted({contender.technique for contender in case.contenders}))
            sides: dict[str, Side] = {}
            gc.collect()  # here and only here: a collection during a call would free what is not the call's
            for contender in case.contenders:
                if (case.id, contender.name) in self._skipped:
                    continue
                if contender.reason is not None:
                    self._note(case=case.id, facts={contender.name: {"status": "unavailable"}}, reason=contender.reason)
                    continue
                self._note(turn=[case.id, contender.name])
                self._contender(workload, contender.name, sides)

    def _contract(self, workload: Workload, techniques: Sequence[str]) -> None:
        operation = self._catalog.registry.operations[workload.operation]
        facts = {technique: contract_facts(operation, workload.shape, technique) for technique in techniques}
        self._note(case=workload.id, facts=facts)

    def _contender(self, workload: Workload, name: str, sides: dict[str, Side]) -> None:
        registry = self._catalog.registry
        implementation = registry.implementations[workload.operation][name]
        technique = implementation.technique
        try:
            if technique not in sides:
                setup = registry.reference(workload.operation, technique).setup
                operation = registry.operations[workload.operation]
                sides[technique] = Side(operation, technique, setup, workload.shape, self._catalog.device, SEED)
            facts = contender_facts(implementation, sides[technique], self._flush)
            self._note(case=workload.id, facts=facts)
        except (Exception, SystemExit) as error:
            sides.pop(technique, None)  # it may have damaged what it shares
            self._note(case=workload.id, facts={name: {"status": status_of(error)}}, reason=describe(error))


def status_of(error: BaseException) -> str:
    """The status of a contender that raised."""
    if isinstance(error, verify.Incorrect):
        return "incorrect"
    return "oom" if out_of_memory(error) else "error"


def toolchain() -> dict[str, str]:
    """What facts of cases depend on besides our own code: other values make a baseline incomparable."""
    version = platform.python_version_tuple()
    return {"torch": torch.__version__, "python": ".".join(version[:2]), "machine": platform.machine()}


def declared(found: catalog.Catalog) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rules for the exact metrics that operations declare."""
    for operation in found.registry.operations.values():
        for metric in operation.metrics:
            if metric.exact is not None:
                yield metric.name, {"better": metric.better, "exact": metric.exact}


def main(words: Sequence[str]) -> None:
    """Entry point of the process: WHAT is "cases", "kernels" or "listings", SKIPPED a list of [case, contender]."""
    what, options, skipped, file = words[0], Options.from_json(words[1]), json.loads(words[2]), words[3]
    end_with_parent()
    limit_memory("cpu")
    sys.path.insert(0, options.root)
    torch.set_num_threads(1)
    gc.disable()
    with open(file, "w") as output:

        def note(**values: Any) -> None:
            output.write(json.dumps(values) + "\n")
            output.flush()

        try:
            found = catalog.build(options)
        except catalog.Refused as refusal:
            note(refused=str(refusal))
            return
        note(metrics=dict(declared(found)), problems=found.problems)
        if what == "cases":
            note(toolchain=toolchain())
            Collector(found, skipped, note).run()
        elif what == "listings":
            from .kernels import collector

            collector.collect(found, skipped, note, Path(words[4]), words[5])
        else:
            from .binaries import collect

            collect(found, skipped, note)
        note(done=True)


if __name__ == "__main__":
    main(sys.argv[1:])
