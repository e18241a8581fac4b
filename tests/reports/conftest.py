"""One site for all tests of pages: a GPU run, a CPU run and an unknown study, built once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from reports import website
from tests.reports import made
from tests.reports.reading import read_page


@dataclass(frozen=True)
class Built:
    """A site, its pages by relative path, and the runs in it."""

    folder: Path
    found: website.Found
    pages: dict[str, str]


def site(top: Path, found: website.Found) -> Built:
    """The site of these runs in `top / "site"`; sources are looked for in `top`."""
    return Built(top / "site", found, pages_of(top / "site", website.build(found, top / "site", top)))


def pages_of(folder: Path, written: Sequence[Path]) -> dict[str, str]:
    """The pages of a site by relative path, as their readers see them."""
    return {path.relative_to(folder).as_posix(): read_page(path) for path in written}


def site_of(top: Path, folders: Sequence[Path]) -> Built:
    """The site of the runs in these folders, each of which can be shown."""
    built = site(top, website.find(top / "none", top / "none", folders))
    assert built.found.problems == []
    return built


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of all made-up runs."""
    top = tmp_path_factory.mktemp("reports")
    made.gpu_run(top / "recorded" / "gpu")
    made.toy_run(top / "recorded" / "toy")
    made.cpu_run(top / "runs" / "cpu")
    return site(top, website.find(top / "runs", top / "recorded"))
