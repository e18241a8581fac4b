"""One site for all tests of pages: a GPU run, a CPU run and an unknown study, built once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from reports import website
from tests.reports import made


@dataclass(frozen=True)
class Built:
    """A site, its pages by relative path, and the runs in it."""

    folder: Path
    found: website.Found
    pages: dict[str, str]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of all made-up runs."""
    top = tmp_path_factory.mktemp("reports")
    made.gpu_run(top / "recorded" / "gpu")
    made.toy_run(top / "recorded" / "toy")
    made.cpu_run(top / "runs" / "cpu")
    found = website.find(top / "runs", top / "recorded")
    written = website.build(found, top / "site", top)
    pages = {path.relative_to(top / "site").as_posix(): path.read_text(encoding="utf-8") for path in written}
    return Built(top / "site", found, pages)
