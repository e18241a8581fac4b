"""From a workload, an implementation and what was found to a record."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from .case import Workload
from .record import Record
from .registry import Implementation


def outcome(workload: Workload, implementation: Implementation, root: str, **found: Any) -> Record:
    """A record with the workload's and the implementation's identity filled in; `found` is the rest."""
    source = os.path.relpath(implementation.source, root)
    return Record(
        case=workload.id,
        study=workload.study,
        operation=workload.operation,
        model=workload.model,
        sizes=workload.sizes,
        shape=dataclasses.asdict(workload.shape),
        technique=implementation.technique,
        implementation=implementation.name,
        kind=implementation.kind,
        source={
            "file": source if not source.startswith("..") else implementation.source.name,
            "digest": implementation.digest,
        },
        doc=implementation.doc.split("\n\n")[0],
        **found,
    )
