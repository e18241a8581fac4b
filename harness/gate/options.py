"""What the timing gate's parent and its worker process agree on; torch is not needed to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..options import Options

BASE, HEAD = 0, 1
REVISIONS: Mapping[str, int] = {"base": BASE, "control": BASE, "slowed": BASE, "head": HEAD}


@dataclass(frozen=True)
class GateOptions(Options):
    """`base_path`: a folder with a copy of the base's package for each of its arms, `impls_base` and so on.

    `base_python`: the interpreter of an environment with the base's toolchain; empty where both have the same.
    """

    base_path: str = ""
    base_python: str = ""

    def package_of(self, arm: str) -> str:
        """The package that an arm's code is loaded from."""
        return self.package if REVISIONS[arm] == HEAD else f"{self.package}_{arm}"

    @property
    def copies(self) -> tuple[str, ...]:
        """Arms that run the base's code."""
        return tuple(arm for arm, revision in REVISIONS.items() if revision == BASE)
