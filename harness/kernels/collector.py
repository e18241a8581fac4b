"""What the exact gate rehearses, with the machine code of each kernel looked at and kept (`harness/binaries.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import binaries, catalog
from ..baseline import Value
from . import code
from .occupancy import occupancy


class Listings(binaries.Binaries):
    """Facts of rehearsals with those of the machine code; texts go to `folder`, each code once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def examined(self, kernel: Any) -> dict[str, Value]:
        """Resources, and: threads, stages, digest of the code, instructions by kind, occupancy where it is known."""
        found = super().examined(kernel)
        machine, virtual = code.sass(kernel.asm["cubin"]), code.ptx(kernel.asm["ptx"])
        name = code.digest(machine)
        code.keep(self._folder, name, machine, virtual)
        target = f"sm_{kernel.metadata.target.arch}"
        threads = code.threads(virtual, int(kernel.metadata.num_warps))
        found |= {"target": target, "threads": threads, "stages": int(kernel.metadata.num_stages), "code": name}
        fits = occupancy(target, threads, int(found["registers"]), int(found["shared"]))
        if fits is not None:
            found |= {"programs": fits.programs, "occupancy": fits.share, "bound": fits.bound}
        return {**found, **code.mix(machine)}


def collect(
    found: catalog.Catalog,
    skipped: Sequence[Sequence[str]],
    note: Callable[..., None],
    folder: Path,
    match: str,
) -> None:
    """As `binaries.collect`, of contenders whose case or name has `match` in it."""
    cases = [case for case in found.cases if any(match in f"{case.id} {one.name}" for one in case.contenders)]
    left = [
        (case.id, contender.name)
        for case in cases
        for contender in case.contenders
        if match not in f"{case.id} {contender.name}"
    ]
    chosen = dataclasses.replace(found, cases=cases)
    binaries.collect(chosen, [*skipped, *left], note, Listings(folder))
