"""The MTP page as a whole: what it reads as, what it says when records are not there, its budgets, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Record
from reports import website
from reports.figure import MAX_SERIES
from reports.objective import QUESTION, answer, limits, sections
from tests.reports import made, made_objective
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, assert_as_kept, story
from tests.reports.test_hostile import EVIL, OURS, Elements, site, strings
from tests.reports.test_objective import records_of, view_of
from tests.reports.test_site import (  # noqa: F401 - the rules of every site, here for the runs of this study
    FIGURES,
    PAGE_BYTES,
    Parsed,
    parsed,
    test_budgets,
    test_every_axis_has_a_title_or_names,
    test_every_figure_has_a_title_a_sentence_and_a_table,
    test_every_link_leads_to_a_file_and_anchor_of_the_site,
    test_every_record_is_on_its_case_page,
    test_figures_use_known_traces_and_valid_specifications,
    test_identifiers_are_unique_on_a_page,
    test_nothing_is_fetched_from_elsewhere,
    test_pages_open_with_question_and_answer_and_end_with_limits,
    test_tables_have_names_of_their_own_on_a_page,
)

RUNS = {"objective": ("steps", "generation", "loss"), "objective-cpu": ("steps", "generation", "loss"),
        "objective-single": ("single",)}  # fmt: skip
SECTIONS = ["training", "speed", "tokens", "batch", "cost", "loss"]
BENCH = "make bench STUDY=objective"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A site of all made-up objective runs: what the rules of every site are held against in this module."""
    top = tmp_path_factory.mktemp("objective")
    folders = [
        made_objective.run(top / name, *parts, name=name, device="cpu" if name.endswith("cpu") else "cuda")
        for name, parts in RUNS.items()
    ]
    return site_of(top, folders)


@pytest.fixture(scope="module")
def records(built: Built) -> Sequence[Record]:
    """Everything there can be in a run."""
    return next(run.records for run in built.found.runs if run.header.run == "objective")


@pytest.mark.parametrize("name", RUNS)
def test_the_page_reads_as_it_did(built: Built, name: str) -> None:
    assert_as_kept(name, story(built.pages[f"{name}/objective.html"], QUESTION))


@pytest.mark.parametrize(("name", "commands"), [
    ("objective", []),
    ("objective-cpu", []),
    ("objective-single", [f"{BENCH} K=loss", f"{BENCH} K=train_step", f"{BENCH} K=generate"]),
])  # fmt: skip
def test_the_page_is_whole_and_names_what_measures_the_rest(built: Built, name: str, commands: list[str]) -> None:
    text = built.pages[f"{name}/objective.html"]
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    assert sorted(set(re.findall(r"Measured by: <code>([^<]+)</code>", text))) == sorted(commands)


GONE = {"latency": "A training step with MTP", "acceptance": "Speed-up against acceptance",
        "acceptance_by_depth": "Tokens a step by depth", "step": "Validation with and", "batch": "against the batch",
        "validation_bits": "Validation with and"}  # fmt: skip
MISSING = [*GONE, "generation_steps", "symbols_a_step", "kv_bytes", "peak", "model", "model_parameters", "recipe", ""]


@pytest.mark.parametrize("name", MISSING)
def test_the_page_is_whole_without(tmp_path: Path, records: Sequence[Record], name: str) -> None:
    found = view_of(tmp_path, [made.without(name, record) for record in records])
    text = sections(found)
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    told = " ".join([answer(found), *limits(found), *Reader(text).lines])
    assert not re.search(r"\b(None|nan|inf)\b", told) and len(answer(found)) > 20 and answer(found).endswith(".")
    assert name not in GONE or GONE[name] not in told


def test_a_run_in_which_nothing_passed_says_so(tmp_path: Path, records: Sequence[Record]) -> None:
    found = view_of(tmp_path, [made.failed(replace(r, series={}), "error", "it broke") for r in records])
    assert answer(found).startswith("This run does not tell") and "<figure" not in sections(found)


def test_pages_stay_within_budget_on_a_large_run(tmp_path: Path) -> None:
    records = []
    for depth in (1, 3):
        for batch in range(1, 65):
            records += records_of(made_objective.generating(batch, depth))
        records += records_of(made_objective.stepping(depth))
    for steps in (400, 800):
        records += [made_objective.loss_record(seed, t, steps=steps)
                    for seed in range(20) for t in ("ntp", "mtp", "mtp-parallel")]  # fmt: skip
    found = view_of(tmp_path / "run", records)
    page = next(text for title, text in website.pages(found).values() if title == "Objective")
    assert len(page.encode()) < PAGE_BYTES and page.count("<figure") <= FIGURES
    assert "more rows left out; each case has a page of its own." in page
    for spec in Parsed(page).specs:
        assert len(spec["data"]) <= MAX_SERIES and all(len(t.get("x", [])) <= 200 for t in spec["data"])


def evil(record: Record) -> Record:
    """The record with markup for model, sizes, implementation, layout, data and docstring."""
    return replace(record, model=EVIL, doc=EVIL, samples=None, layout=f"weights abc ({EVIL})",
                   sizes=f"{record.sizes}{EVIL}", case=f"{record.operation}/{EVIL}/{record.sizes}{EVIL}",
                   verification={**record.verification, "data": EVIL})  # fmt: skip


def test_no_word_of_a_record_becomes_markup(tmp_path: Path, records: Sequence[Record]) -> None:
    pages = site(tmp_path, [evil(record) for record in records], made_objective.header())
    text = next(text for name, text in pages.items() if name.endswith("/objective.html"))
    page = Elements(text)
    assert page.tags <= {*OURS.split(), "h4"} and not [word for word in page.attributes if word.startswith("on")]
    assert len(page.specs) >= 5 and any("<img src=x" in text for text in page.texts)
    found = [s for spec in page.specs for s in strings(spec)]
    assert any("&lt;img" in s for s in found) and not [s for s in found if "<" in s.replace("<extra></extra>", "")]
