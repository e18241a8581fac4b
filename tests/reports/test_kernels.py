"""Kernels as machine code: their own page, taken into the site, and the section of a case."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.kernels.listing import Listing, write
from harness.record import slug
from reports import kernels
from tests.reports import made
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader
from tests.reports.test_site import Parsed

CASE, OTHER = "attention.decode/v3/b16-s4096", "attention.decode/v3/b16-s512"
FACTS = {"code": "aaaa", "threads": 512, "stages": 3, "registers": 128, "spilled": 40, "shared": 230280, "programs": 1,
         "occupancy": 0.25, "bound": "registers", "wgmma": 88, "mma": 0, "tma": 12, "convert": 174, "local": 19,
         "instructions": 4405}  # fmt: skip
FILE = "impls/attention/decode/absorbed.py"


def listing(digest: str) -> Listing:
    subjects = {"mla/absorbed": {"status": "compiled"}, "mla/absorbed attend": FACTS}
    before = {
        "mla/absorbed attend": {**FACTS, "code": "bbbb", "spilled": 0},
        "mla/absorbed turn": {**FACTS, "code": "c"},
    }
    wrong = {"mqa/sdpa": {"status": "error"}}
    facts = {CASE: subjects, OTHER: {**subjects, **wrong}}
    reasons = {f"{OTHER} mqa/sdpa": "not compiled: <x>"}
    return Listing(
        "the working tree", facts, {"triton": "3.6.0"}, {FILE: digest}, reasons, "main (1234)", {CASE: before}
    )


def built_with(top: Path, digest: str) -> Built:
    folder = top / "found"
    folder.mkdir()
    write(listing(digest), folder)
    for name in ("aaaa.sass", "aaaa.ptx", "bbbb-aaaa.diff"):
        (folder / f"{name}.txt").write_text("HGMMA <R1>")
    assert kernels.main([str(folder), "--out", str(top / "site-kernels")]) == 0
    return site_of(top, [made.gpu_run(top / "run")])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built_with(tmp_path_factory.mktemp("kernels"), "0123456789abcdef")


def test_the_page_has_every_code_what_failed_and_what_changed(site: Built) -> None:
    lines = Reader(site.pages["kernels/index.html"]).lines
    assert any("1 machine code in 2 cases" in line and "one spills registers, one fills" in line for line in lines)
    shown = next(line for line in lines if line.startswith("| attend| mla/absorbed"))
    assert f"{CASE} and 1 more" in shown and "| 40| 230,280| 1| 25%| registers| 88| 0| 12| 174| 19| 4,405|" in shown
    assert f"{OTHER} mqa/sdpa: error: not compiled: <x>" in lines
    text = " ".join(lines)
    assert "attend of mla/absorbed in 1 case, attention.decode/v3/b16-s4096: spilled 0 → 40" in text
    assert f"turn of mla/absorbed in 1 case, {CASE}: gone" in text


def test_cases_show_their_kernels_and_every_link_leads_somewhere(site: Built) -> None:
    run = next(iter(name.split("/")[0] for name in site.pages if "/case/" in name))
    name = f"{run}/case/{slug(CASE)}.html"
    text = site.pages[name]
    assert "Compiled kernels" in text and "Compiled from another state" not in text
    addresses = [a for a in Parsed(text).addresses if "/kernels/" in a]
    found = {(site.folder / name).parent.joinpath(a).resolve() for a in addresses}
    assert {path.name for path in found} == {"aaaa.sass.txt", "aaaa.ptx.txt", "index.html"}
    assert all(path.is_file() for path in found)
    assert "Compiled kernels" not in site.pages[f"{run}/case/{slug('attention.train/v3/b1-s2048')}.html"]


def test_a_file_that_has_changed_since_is_said(tmp_path: Path) -> None:
    site = built_with(tmp_path, "another")
    text = next(text for name, text in site.pages.items() if name.endswith(f"{slug(CASE)}.html"))
    assert "Compiled from another state of the file than was measured: mla/absorbed." in text


def test_without_a_listing_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "kernels.json" in capsys.readouterr().err and kernels.beside(tmp_path / "site") is None
