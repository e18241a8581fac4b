"""A run of five hundred cases: pages stay small enough to open, and are made in seconds."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from harness.record import RunWriter
from reports import website
from tests.reports import made
from tests.reports.conftest import Built
from tests.reports.test_site import FIGURES, PAGE_BYTES, Parsed

SECONDS = 10.0
CASE_BYTES = 80_000  # of a page of a case in the mean: sites grow with their cases
OPERATIONS, BATCHES, LENGTHS = ("decode", "decode_kernel", "prefill", "train"), (1, 4, 16, 64, 128), range(1, 26)


def many(folder: Path) -> Path:
    """Five hundred cases of four contenders, copies of one case under other names."""
    writer = RunWriter(folder)
    writer.header(made.header())
    made.write_case(writer, "attention.decode", 16, 4096)
    head, *records = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in records if any(f'"{name}"' in line for name in ("sdpa", "absorbed"))]
    source = next((folder / "samples").iterdir())
    lines = [head]
    for operation in OPERATIONS:
        for batch in BATCHES:
            for length in (512 * step for step in LENGTHS):
                target = source.with_name(f"attention.{operation}--v3--b{batch}-s{length}.npz")
                if target != source:
                    shutil.copyfile(source, target)
                for line in kept:
                    named = line.replace("attention.decode", f"attention.{operation}")
                    named = named.replace("b16-s4096", f"b{batch}-s{length}")
                    named = named.replace('"batch":16', f'"batch":{batch}').replace(
                        '"length":4096', f'"length":{length}'
                    )
                    lines.append(named)
    (folder / "run.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, float]:
    """The site, and the processor's seconds that it took."""
    top = tmp_path_factory.mktemp("large")
    folder = many(top / "run")
    begin = time.process_time()
    found = website.find(top / "none", top / "none", [folder])
    written = website.build(found, top / "site", top)
    seconds = time.process_time() - begin
    pages = {path.relative_to(top / "site").as_posix(): path.read_text(encoding="utf-8") for path in written}
    return Built(top / "site", found, pages), seconds


def test_five_hundred_cases_are_built_in_seconds(large: tuple[Built, float]) -> None:
    built, seconds = large
    assert len(built.found.runs[0].records) == 2000 and len({r.case for r in built.found.runs[0].records}) == 500
    assert seconds <= SECONDS, f"{seconds:.1f} s"


def test_every_page_keeps_its_budget(large: tuple[Built, float]) -> None:
    pages = large[0].pages
    sizes = {name: len(text.encode()) for name, text in pages.items()}
    assert max(sizes.values()) <= PAGE_BYTES, max(sizes, key=lambda name: sizes[name])
    cases = [size for name, size in sizes.items() if "/case/" in name]
    assert len(cases) == 500 and sum(cases) / len(cases) <= CASE_BYTES
    for name in (n for n in pages if "/case/" not in n):
        assert len(Parsed(pages[name]).figures) <= FIGURES, name


def test_every_case_can_be_reached(large: tuple[Built, float]) -> None:
    pages = large[0].pages
    study = Parsed(next(text for name, text in pages.items() if name.endswith("/attention.html")))
    linked = {address.rsplit("/", 1)[-1].partition("#")[0] for address in study.addresses}
    assert {name.rsplit("/", 1)[-1] for name in pages if "/case/" in name} <= linked
