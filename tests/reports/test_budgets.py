"""A run of five hundred cases: pages stay small enough to open, and are made in seconds."""

from __future__ import annotations

import time
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.record import Figure, Record, RunWriter, slug
from reports import website
from tests.reports import made
from tests.reports.conftest import Built, pages_of
from tests.reports.test_site import FIGURES, PAGE_BYTES, SITE_BYTES, Parsed

SECONDS = 10.0
OPERATIONS, BATCHES, LENGTHS = ("decode", "decode_kernel", "prefill", "train"), (1, 4, 16, 64, 128), range(1, 26)
CONTENDERS = ("mha/sdpa", "gqa/sdpa", "mqa/sdpa", "mla/absorbed")


def many(folder: Path) -> Path:
    """Five hundred cases of four contenders, each with samples and figures of its own, as the harness writes them."""
    writer = RunWriter(folder)
    writer.header(made.header())
    rng = np.random.default_rng(7)
    models = [made.passed("", "attention.decode", name, 16, 4096, rng)[0] for name in CONTENDERS]
    for operation in OPERATIONS:
        for batch in BATCHES:
            for length in (512 * step for step in LENGTHS):
                case = f"attention.{operation}/v3/b{batch}-s{length}"
                arrays = {}
                for model in models:
                    record, samples = another(model, case, batch, length, rng)
                    arrays |= {model.contender: samples, f"{model.contender}:round": np.repeat(np.arange(120.0), 3)}
                    writer.record(record, made.METRICS)
                writer.samples(case, arrays)
    return folder


def another(
    model: Record, case: str, batch: int, length: int, rng: np.random.Generator
) -> tuple[Record, NDArray[np.float64]]:
    """The same contender in another case: its figures differ, and so does every sample."""
    factor = float(rng.uniform(0.5, 20))
    figures = {name: Figure(*(v and v * factor for v in astuple(f))) for name, f in model.figures.items()}
    samples = figures["latency"].value * (1 + 0.006 * np.abs(rng.standard_normal(360)))
    changed = replace(
        model,
        case=case,
        operation=case.split("/")[0],
        sizes=case.split("/")[-1],
        shape={**model.shape, "batch": batch, "length": length},
        figures=figures,
        samples={"file": f"samples/{slug(case)}.npz", "key": model.contender, "count": int(samples.size)},
    )
    return changed, samples


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, float]:
    """The site, and the processor's seconds that it took; of three builds the fastest, unless the first is in time, for
    a neighbour on the machine takes half of a core's speed."""
    top, taken = tmp_path_factory.mktemp("large"), []
    folder = many(top / "run")
    while len(taken) < 3 and min(taken, default=SECONDS + 1) > SECONDS:
        begin = time.process_time()
        found = website.find(top / "none", top / "none", [folder])
        written = website.build(found, top / "site", top)
        taken.append(time.process_time() - begin)
    return Built(top / "site", found, pages_of(top / "site", written)), min(taken)


def test_five_hundred_cases_are_built_in_seconds(large: tuple[Built, float]) -> None:
    built, seconds = large
    assert len(built.found.runs[0].records) == 2000 and len({r.case for r in built.found.runs[0].records}) == 500
    assert seconds <= SECONDS, f"{seconds:.1f} s"


def test_every_page_keeps_its_budget(large: tuple[Built, float]) -> None:
    pages = large[0].pages
    sizes = {name: len(text.encode()) for name, text in pages.items()}
    assert max(sizes.values()) <= PAGE_BYTES, max(sizes, key=lambda name: sizes[name])
    assert sum("/case/" in name for name in sizes) == 500
    for name in (n for n in pages if "/case/" not in n):
        assert len(Parsed(pages[name]).figures) <= FIGURES, name


def test_the_site_keeps_its_budget_with_every_sample_in_it(large: tuple[Built, float]) -> None:
    """Samples are what cannot be made smaller: they must be there and must differ from case to case."""
    built = large[0]
    files = [path for path in built.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= SITE_BYTES
    drawn = set()
    for name, text in built.pages.items():
        if "/case/" in name:
            order = next(spec for spec in Parsed(text).specs if "meta" in spec["layout"])
            drawn.add(tuple(value for trace in order["data"] for value in trace["y"]))
    assert len(drawn) == 500 and {len(values) for values in drawn} == {4 * 360}


def test_every_case_can_be_reached(large: tuple[Built, float]) -> None:
    pages = large[0].pages
    study = Parsed(next(text for name, text in pages.items() if name.endswith("/attention.html")))
    linked = {address.rsplit("/", 1)[-1].partition("#")[0] for address in study.addresses}
    assert {name.rsplit("/", 1)[-1] for name in pages if "/case/" in name} <= linked
