"""The FP8 page as a whole: what it reads as, what it says when records are not there, its budgets, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Record, RunWriter, read_run
from reports import website
from reports.figure import MAX_SERIES
from reports.linear import QUESTION, answer, limits, sections
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_linear
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, assert_as_kept, story
from tests.reports.test_hostile import EVIL, OURS, Elements, site, strings
from tests.reports.test_site import (  # noqa: F401 - the rules of every site, here for the runs of this study
    FIGURES,
    PAGE_BYTES,
    Parsed,
    parsed,
    test_budgets,
    test_every_axis_has_a_title_or_names,
    test_every_link_leads_to_a_file_and_anchor_of_the_site,
    test_every_record_is_on_its_case_page,
    test_figures_use_known_traces_and_valid_specifications,
    test_identifiers_are_unique_on_a_page,
    test_nothing_is_fetched_from_elsewhere,
    test_pages_open_with_question_and_answer_and_end_with_limits,
    test_tables_have_names_of_their_own_on_a_page,
)

RUNS = {"linear": tuple(made_linear.PARTS), "linear-cpu": tuple(made_linear.PARTS), "linear-loss": ("loss",)}
SECTIONS = ["speed", "quantizing", "error", "bytes", "grouped", "training"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A site of all made-up linear runs: what the rules of every site are held against in this module."""
    top = tmp_path_factory.mktemp("linear")
    folders = [
        made_linear.run(top / name, *parts, name=name, device="cpu" if name.endswith("cpu") else "cuda")
        for name, parts in RUNS.items()
    ]
    return site_of(top, folders)


@pytest.fixture(scope="module")
def records(built: Built) -> Sequence[Record]:
    """Everything there can be in a run."""
    return next(run.records for run in built.found.runs if run.header.run == "linear")


def view_of(folder: Path, records: Sequence[Record], device: str = "cuda") -> View:
    """A run of just these records, without samples."""
    writer = RunWriter(folder)
    writer.header(made_linear.header(device=device))
    for record in records:
        writer.record(replace(record, samples=None), made_linear.METRICS)
    run = read_run(folder)
    return View(run, "x", "named", Palette(run.records), Path("."))


@pytest.mark.parametrize("name", RUNS)
def test_the_page_reads_as_it_did(built: Built, name: str) -> None:
    assert_as_kept(name, story(built.pages[f"{name}/linear.html"], QUESTION))


@pytest.mark.parametrize(
    ("name", "commands"), [("linear", []), ("linear-loss", ["make bench STUDY=linear"]), ("linear-cpu", [])]
)
def test_the_page_is_whole_and_names_what_measures_the_rest(built: Built, name: str, commands: list[str]) -> None:
    text = built.pages[f"{name}/linear.html"]
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    assert sorted(set(re.findall(r"Measured by: <code>([^<]+)</code>", text))) == commands


def test_a_cpu_says_that_its_fp8_is_emulated(built: Built) -> None:
    cpu, gpu = (Reader(built.pages[f"{name}/linear.html"]).lines for name in ("linear-cpu", "linear"))
    assert any(line.startswith("Not on this machine, whose FP8 is emulated: fine-grained FP8 takes") for line in cpu)
    assert any("this machine has no FP8, so it is emulated" in line for line in cpu)
    assert any(line.startswith("On this GPU fine-grained FP8 takes 0.5") for line in gpu)
    assert not any("FP8 is emulated" in line for line in gpu)
    assert any("FP32's" in line for line in cpu) and not any("over BF16's" in line for line in cpu)


GONE = {"latency": "over BF16's, product", "flop": "PFLOP/s", "quantization_error": "Error of quantizing, by",
        "k": "Error against the length", "accumulation_error": "Error against the length", "step": "Loss with and",
        "smoothed_loss": "Loss with and", "saved_bytes": "kept for the backward", "resident": "| weight|",
        "byte": "Quantizers beside", "rows": "taken apart", "outs": "taken apart"}  # fmt: skip
MISSING = [*GONE, "floor", "ratio", "error", "promoted_error", "validation_bits", "output_error", "recipe", "values",
           "dtype", "form", "ins", ""]  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_the_page_is_whole_without(tmp_path: Path, records: Sequence[Record], name: str) -> None:
    found = view_of(tmp_path, [made.without(name, record) for record in records])
    text = sections(found)
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    told = " ".join([answer(found), *limits(found), *Reader(text).lines])
    assert not re.search(r"\b(None|nan|inf)\b", told) and len(answer(found)) > 20
    assert name not in GONE or GONE[name] not in told


def test_a_run_in_which_nothing_passed_says_so(tmp_path: Path, records: Sequence[Record]) -> None:
    found = view_of(tmp_path, [made.failed(replace(r, series={}), "error", "it broke") for r in records])
    assert answer(found).startswith("This run does not tell") and "<figure" not in sections(found)


def test_pages_stay_within_budget_on_a_large_run(tmp_path: Path) -> None:
    records = []
    kinds = {f"long-{i}": ("optimized", 1.1 + 0.1 * i) for i in range(2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_linear, "KINDS", kinds)
        names = [f"{t}/{n}" for t in ("bf16", "fp8", "fp8-row", "fp8-tensor") for n in kinds]
        sizes = [(o, m, n, 7168) for o in ("fprop", "dgrad", "wgrad", "layer_train") for n in (512, 1024, 2048, 4096)
                 for m in (64, 128, 1024, 8192)]  # fmt: skip
        sizes += [("quantize", m, 1, k) for m in (64, 8192) for k in range(128, 2048, 128)]
        sizes += [("grouped", m, n, 7168) for m in (1024, 8192) for n in range(128, 2048, 128)]
        for operation, *shape in sizes:
            records += [made_linear.record(operation, *shape, name)[0] for name in names]
        for values in made_linear.ERRORS:
            records += [made_linear.numerics_record(values, f"{t}/long-0") for t in ("bf16", "fp8", "fp8-row")]
        records += [made_linear.loss_record(seed, t) for seed in range(12) for t in ("bf16", "fp8")]
    found = view_of(tmp_path / "run", records)
    page = next(text for title, text in website.pages(found).values() if title == "Linear")
    assert len(page.encode()) < PAGE_BYTES and page.count("<figure") == FIGURES
    assert "4 more rows left out; each case has a page of its own." in page  # of 64 products and layers
    for spec in Parsed(page).specs:
        assert len(spec["data"]) <= MAX_SERIES and all(len(t.get("x", [])) <= 200 for t in spec["data"])


def evil(record: Record) -> Record:
    """The record with markup for model, sizes, implementation, values and docstring."""
    return replace(record, model=EVIL, implementation=f"{record.implementation}{EVIL}", doc=EVIL, samples=None,
                   sizes=f"{record.sizes}{EVIL}", case=f"{record.operation}/{EVIL}/{record.sizes}{EVIL}",
                   shape={**record.shape, **({"values": EVIL} if "values" in record.shape else {})})  # fmt: skip


def test_no_word_of_a_record_becomes_markup(tmp_path: Path, records: Sequence[Record]) -> None:
    pages = site(tmp_path, [evil(record) for record in records], made_linear.header())
    text = next(text for name, text in pages.items() if name.endswith("/linear.html"))
    page = Elements(text)
    assert page.tags <= {*OURS.split(), "h4"} and not [word for word in page.attributes if word.startswith("on")]
    assert len(page.specs) >= 6 and any("<img src=x" in text for text in page.texts)
    found = [s for spec in page.specs for s in strings(spec)]
    assert any("&lt;img" in s for s in found) and not [s for s in found if "<" in s.replace("<extra></extra>", "")]
