"""What can be measured here: every case of the chosen tier and model, its contenders, and why some cannot run.

Built in the worker process, where torch and the implementations live, and handed to the terminal as plain data. A
user's own file that fails to load is a problem in a sentence; everything else is measured all the same.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .case import TIERS, Workload
from .contract import Operation
from .failure import describe
from .options import Options
from .registry import Implementation, Registry, load

USER_MODULE = "whalebench_user"


class Refused(Exception):
    """The request cannot be met; the message says what was wrong, where, and what to do."""


@dataclass(frozen=True)
class Contender:
    """An implementation in a case; `reason` says why it cannot run here, None when it can."""

    name: str
    technique: str
    kind: str
    reason: str | None
    added_by_user: bool


@dataclass(frozen=True)
class Case:
    """A workload with its contenders; `baseline` lists names in order of preference."""

    id: str
    study: str
    operation: str
    baseline: tuple[str, ...]
    contenders: tuple[Contender, ...]


@dataclass
class Catalog:
    """Cases as data, and the objects behind them for the worker that holds it."""

    device: str
    tier: str
    cases: list[Case]
    problems: list[str]
    workloads: dict[str, Workload] = dataclasses.field(default_factory=dict)
    registry: Registry = dataclasses.field(default_factory=Registry)

    def to_data(self) -> dict[str, Any]:
        """What the parent process needs, as JSON values."""
        return {
            "device": self.device,
            "tier": self.tier,
            "cases": [dataclasses.asdict(case) for case in self.cases],
            "problems": self.problems,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Catalog:
        """The inverse of `to_data`, without workloads and registry."""
        cases = [
            Case(
                **{**case, "baseline": tuple(case["baseline"])}
                | {"contenders": tuple(Contender(**contender) for contender in case["contenders"])}
            )
            for case in data["cases"]
        ]
        return cls(data["device"], data["tier"], cases, data["problems"])


def nearest(word: str, known: list[str]) -> str:
    """A sentence that names what a mistyped word may have meant."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(known))}"


def choose_device(device: str | None) -> str:
    """ "cuda" where there is a GPU and nothing else was asked for. Raises Refused for a device that is not there."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise Refused(f"DEVICE={device} is unknown; it is cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise Refused("DEVICE=cuda, but torch finds no NVIDIA GPU here; leave DEVICE out to measure on the CPU")
    return device


def build(options: Options, turn: Callable[[int], None] = lambda _: None) -> Catalog:
    """The catalog for `options`. Raises Refused for an unknown tier, study, model or device.

    `turn` is told when a user's file gets to run: it is waited for as long as for a contender.
    """
    device = choose_device(options.device)
    tier = options.tier or ("gpu" if device == "cuda" else "cpu")
    if tier not in TIERS:
        raise Refused(f"TIER={tier} is unknown; {nearest(tier, list(TIERS))}")
    registry = load(options.package)
    problems: list[str] = []
    if options.impl is not None:
        turn(0)
    mine = _load_user_file(registry, options.impl, problems)
    workloads = [w for w in _workloads(options) if tier in w.tiers]
    if options.impl and mine:
        operations = {operation for operation, _ in mine}
        workloads = [w for w in workloads if w.operation in operations]
    catalog = Catalog(device, tier, [], problems, {w.id: w for w in workloads}, registry)
    for workload in workloads:
        catalog.cases.append(_case(registry, workload, device, tier, mine))
    return catalog


def _load_user_file(registry: Registry, file: str | None, problems: list[str]) -> set[tuple[str, str]]:
    """The (operation, contender) pairs a user's file declares; what went wrong is added to `problems`."""
    if file is None:
        return set()
    path = Path(file).expanduser()
    if not path.is_file():
        problems.append(f"IMPL={file}: there is no such file")
        return set()
    before = {(op, name) for op, known in registry.implementations.items() for name in known}
    known_before = {operation: dict(known) for operation, known in registry.implementations.items()}
    try:
        registry.load_file(path, USER_MODULE)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        line = next((f", line {frame.lineno}" for frame in reversed(where) if frame.filename == str(path)), "")
        problems.append(f"IMPL={file}{line}: it failed to load: {describe(error)}")
        registry.implementations = known_before
        return set()
    mine = {(op, name) for op, known in registry.implementations.items() for name in known} - before
    unknown = sorted({op for op, _ in mine if op not in registry.operations})
    for operation in unknown:
        hint = nearest(operation, list(registry.operations))
        problems.append(f"IMPL={file}: operation {operation!r} is unknown; {hint}")
    if not mine:
        problems.append(f"IMPL={file}: it declares no implementation; decorate its setup with @implementation")
    return {(op, name) for op, name in mine if op in registry.operations}


def _workloads(options: Options) -> list[Workload]:
    """Workloads of every bench file of the chosen study. Raises Refused for an unknown study or model."""
    files = sorted((options.path / options.benches).glob("bench_*.py"))
    studies = {file.stem.removeprefix("bench_"): file for file in files}
    if options.study is not None and options.study not in studies:
        raise Refused(f"STUDY={options.study} is unknown; {nearest(options.study, list(studies))}")
    found: list[Workload] = []
    for study, file in studies.items():
        if options.study in (None, study):
            module = _import_bench(file, options)
            try:
                found += module.workloads(options.model)
            except ValueError as error:
                raise Refused(f"MODEL={options.model}: {error}") from error
    return found


def _import_bench(file: Path, options: Options) -> Any:
    name = f"{options.benches}.{file.stem}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (options.benches, name):
            raise
        return Registry().load_file(file, name)


def _case(registry: Registry, workload: Workload, device: str, tier: str, mine: set[tuple[str, str]]) -> Case:
    operation = registry.operations[workload.operation]
    contenders = [
        Contender(
            implementation.contender,
            implementation.technique,
            implementation.kind,
            _uncompiled(operation, implementation) or _reason(implementation, workload, device, tier),
            (implementation.operation, implementation.contender) in mine,
        )
        for implementation in registry.implementations.get(workload.operation, {}).values()
    ]
    return Case(workload.id, workload.study, workload.operation, operation.baseline, tuple(contenders))


def _reason(implementation: Implementation, workload: Workload, device: str, tier: str) -> str | None:
    """Why an implementation cannot run a workload here, or None; a question that raises is a reason too."""
    try:
        for need in implementation.needs:
            missing = unmet(need, device)
            if missing:
                return missing
        reason = implementation.supports(workload.shape)
    except Exception as error:
        return f"asking what it supports raised {describe(error)}"
    if reason is not None and not isinstance(reason, str):
        return f"its supports() returned {reason!r}, neither None nor a reason in words"
    if implementation.kind == "compiled" and (tier == "smoke" or implementation.technique not in workload.compiled):
        return "compiling costs 20 s and more: compiled references take part in a few marked cases only"
    return reason


def _uncompiled(operation: Operation, implementation: Implementation) -> str | None:
    if operation.trial is not None and implementation.kind == "compiled":
        return "a trial is not compiled as a whole; its contenders compile what they repeat"
    return None


def unmet(need: str, device: str) -> str | None:
    """Why a need ("cuda", "sm_90", a module's name) is not met on `device`, or None."""
    if need == "cuda":
        return None if device == "cuda" else "needs an NVIDIA GPU"
    if need.startswith("sm_"):
        if device != "cuda":
            return f"needs an NVIDIA GPU of {need}"
        major, minor = torch.cuda.get_device_capability()
        return None if need == f"sm_{major}{minor}" else f"needs {need}, this GPU is sm_{major}{minor}"
    with suppress(ModuleNotFoundError):  # of a package within one that is not there
        if importlib.util.find_spec(need) is not None:
            return None
    return f"needs the package {need}, which is not installed"
