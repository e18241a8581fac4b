"""Who implements what: operations and implementations, collected by whoever loads the files that declare them.

There is no global list. `Registry.load` imports a package, `Registry.load_file` one file of a user, and whatever they
declare meanwhile lands in that registry; so two revisions of `impls/` can be loaded side by side under two names.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from .contract import Operation, Prepared

KINDS = ("reference", "compiled", "library", "optimized")
_collecting: ContextVar[Registry | None] = ContextVar("collecting", default=None)


@dataclass(frozen=True)
class Implementation:
    """Code for one technique of one operation.

    setup     (weights, shape) -> the timed call, or `Prepared` when its state has its own layout
    needs     what must be there: "cuda", "sm_90", or the name of an importable module
    supports  shape -> None, or the reason why this implementation cannot run it
    """

    operation: str
    technique: str
    kind: str
    name: str
    setup: Callable[[Any, Any], Any]
    needs: tuple[str, ...]
    supports: Callable[[Any], str | None]
    doc: str
    source: Path

    @property
    def contender(self) -> str:
        """Technique and name, unique within an operation: `mla/absorbed`."""
        return f"{self.technique}/{self.name}"

    @property
    def digest(self) -> str:
        """Digest of the file it stands in, so that a page can say when the code has changed since a record."""
        return hashlib.sha256(self.source.read_bytes()).hexdigest()[:12]


@dataclass
class Registry:
    """Operations by name, implementations by operation and contender name."""

    operations: dict[str, Operation] = field(default_factory=dict)
    implementations: dict[str, dict[str, Implementation]] = field(default_factory=dict)

    def load(self, package: str) -> Registry:
        """Import `package` and every module below it, collecting what they declare. Raises what they raise."""
        with self.collecting():
            root = importlib.import_module(package)
            for path in sorted(Path(next(iter(root.__path__))).rglob("*.py")):
                parts = path.relative_to(Path(next(iter(root.__path__)))).with_suffix("").parts
                name = ".".join([package, *(p for p in parts if p != "__init__")])
                importlib.import_module(name)
                for declaration in _uncollected.pop(name, []):  # of modules that somebody imported before
                    declaration(self)
        return self

    def load_file(self, path: Path, name: str) -> ModuleType:
        """Execute one file as module `name`, collecting what it declares. Raises ImportError or what it raises."""
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with self.collecting():
            spec.loader.exec_module(module)
        return module

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """What is declared inside this block lands here."""
        token = _collecting.set(self)
        try:
            yield
        finally:
            _collecting.reset(token)

    def add(self, implementation: Implementation) -> None:
        """Raises ValueError for a second implementation of the same name."""
        known = self.implementations.setdefault(implementation.operation, {})
        if implementation.contender in known:
            raise ValueError(f"{implementation.operation} already has a contender named {implementation.contender}")
        known[implementation.contender] = implementation
        if implementation.name == "reference":
            self.add(compiled(implementation))

    def reference(self, operation: str, technique: str) -> Implementation:
        """The specification of a technique: its implementation named `reference`. Raises KeyError without one."""
        return self.implementations[operation][f"{technique}/reference"]


def compiled(reference: Implementation) -> Implementation:
    """torch.compile of a reference's call: what a user gets without writing a kernel."""

    def setup(weights: Any, shape: Any) -> Any:
        import torch

        made = reference.setup(weights, shape)
        if isinstance(made, Prepared):
            return replace(made, call=torch.compile(made.call, dynamic=False))
        return torch.compile(made, dynamic=False)

    doc = f"torch.compile of the reference, static shapes.\n\n{reference.doc}"
    return replace(reference, kind="compiled", name="compiled", setup=setup, doc=doc)


_loaded: dict[str, Registry] = {}
_uncollected: dict[str, list[Callable[[Registry], None]]] = {}


def _declare(module: str, declaration: Callable[[Registry], None]) -> None:
    """To the registry that is loading the module, or to the one that will load its package."""
    registry = _collecting.get()
    if registry is not None:
        declaration(registry)
    else:
        _uncollected.setdefault(module, []).append(declaration)


def load(package: str) -> Registry:
    """The registry of `package`, loaded once a process. Raises what importing it raises."""
    if package not in _loaded:
        _loaded[package] = Registry().load(package)
    return _loaded[package]


def operation(contract: Operation) -> Operation:
    """Declare a contract to the registry that is loading this module."""
    module = sys._getframe(1).f_globals["__name__"]
    _declare(module, lambda registry: registry.operations.__setitem__(contract.name, contract))
    return contract


def implementation(
    operation: str,
    *,
    technique: str | tuple[str, ...],
    kind: str,
    name: str | None = None,
    needs: str | tuple[str, ...] = (),
    supports: Callable[[Any], str | None] = lambda shape: None,
) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Declare `setup(weights, shape) -> call` as an implementation of `operation`.

    `technique` may be a tuple when one code serves several. `name` defaults to the kind for references and to the
    function's name elsewhere. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")

    def declare(setup: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        module = sys.modules[setup.__module__]
        for one in (technique,) if isinstance(technique, str) else technique:
            made = Implementation(
                operation=operation,
                technique=one,
                kind=kind,
                name=name or ("reference" if kind == "reference" else setup.__name__),
                setup=setup,
                needs=(needs,) if isinstance(needs, str) else needs,
                supports=supports,
                doc=inspect.getdoc(setup) or inspect.getdoc(module) or "",
                source=Path(inspect.getsourcefile(setup) or module.__file__ or ""),
            )
            _declare(sys._getframe(1).f_globals["__name__"], partial(Registry.add, implementation=made))
        return setup

    return declare
