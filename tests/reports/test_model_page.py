"""The page of whole models: what it reads as, what it says when records are not there, its budgets, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.record import Record
from reports.model import QUESTION, answer, limits, sections
from tests.reports import made, made_model
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, assert_as_kept, story
from tests.reports.test_hostile import EVIL, OURS, Elements, site, strings
from tests.reports.test_model import view_of
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

RUNS = {"model": ("ladder", "passes"), "model-cpu": ("ladder",), "model-gaps": ("gaps",), "model-passes": ("passes",)}
SECTIONS = ["combinations", "ladder", "effects"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A site of all made-up runs of whole models: what the rules of every site are held against in this module."""
    top = tmp_path_factory.mktemp("model")
    folders = [
        made_model.run(top / name, *parts, name=name, device="cpu" if name.endswith("cpu") else "cuda")
        for name, parts in RUNS.items()
    ]
    return site_of(top, folders)


@pytest.fixture(scope="module")
def records(built: Built) -> Sequence[Record]:
    """Everything there can be in a run."""
    return next(run.records for run in built.found.runs if run.header.run == "model")


@pytest.mark.parametrize("name", RUNS)
def test_the_page_reads_as_it_did(built: Built, name: str) -> None:
    assert_as_kept(name, story(built.pages[f"{name}/model.html"], QUESTION))


@pytest.mark.parametrize(
    ("name", "commands"), [("model", []), ("model-cpu", []), ("model-gaps", []), ("model-passes", ["make ladder"])]
)
def test_the_page_is_whole_and_names_what_measures_the_rest(built: Built, name: str, commands: list[str]) -> None:
    text = built.pages[f"{name}/model.html"]
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    assert sorted(set(re.findall(r"Measured by: <code>([^<]+)</code>", text))) == commands


def test_a_combination_that_could_not_run_shows_its_reason(built: Built) -> None:
    text = built.pages["model-gaps/model.html"]
    row = re.search(r"<tr><td>mha-moe-fp8-ntp</td><td colspan=\"\d+\">(.*?)</td></tr>", text)
    assert row and "error</b>: ValueError: step 3: the training loss is nan" in row[1]
    assert "6 of 8 settings" in text and "make ladder PRICE=2.50" in text


def test_other_operations_stand_in_the_common_table(built: Built) -> None:
    for name in ("model", "model-passes"):
        lines = Reader(built.pages[f"{name}/model.html"]).lines
        table = lines[lines.index("Every case, every contender") :]
        assert "| model.prefill/v2-lite/b1-t4096" in table
        assert any(line.startswith("| mla-moe-fp8-mtp/reference reference| 3.00 ms") for line in table)
    assert answer(view_of_passes(built)).startswith("Something beats the baseline in 1 of 1 cases timed on this GPU")


def view_of_passes(built: Built) -> Any:
    from reports.palette import Palette
    from reports.view import View

    run = next(run for run in built.found.runs if run.header.run == "model-passes")
    return View(run, "x", "named", Palette(run.records), Path("."))


GONE = {
    "step_time": "The ladder: time of a training step",
    "generate_rate": "Validation against",
    "kv_bytes": "cache bytes of a token",
    "peak": "peak memory of a step",
    "validation_bits": "Validation, choice by",
}
MISSING = [*GONE, "generate_rate_8", "acceptance", "million_tokens", "xz_bits", "recipe", "corpus", "model", ""]


@pytest.mark.parametrize("name", MISSING)
def test_the_page_is_whole_without(tmp_path: Path, records: Sequence[Record], name: str) -> None:
    found = view_of(tmp_path, [made.without(name, record) for record in records])
    text = sections(found)
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    told = " ".join([answer(found), *limits(found), *Reader(text).lines])
    assert not re.search(r"\b(None|nan|inf)\b", told) and len(answer(found)) > 20 and answer(found).endswith(".")
    assert name not in GONE or GONE[name] not in told


@pytest.mark.parametrize("kept", [1, 2, 3, 8, 15])
def test_the_page_is_whole_with_a_few_combinations(tmp_path: Path, kept: int) -> None:
    found = view_of(tmp_path, [made_model.record(name) for name in made_model.NAMES[:kept]])
    told = " ".join([answer(found), *Reader(sections(found)).lines])
    assert not re.search(r"\b(None|nan|inf)\b", told) and answer(found).endswith(".")


def test_a_run_in_which_nothing_passed_says_so(tmp_path: Path, records: Sequence[Record]) -> None:
    found = view_of(tmp_path, [made.failed(replace(r, series={}), "error", "it broke") for r in records])
    text = sections(found)
    assert answer(found).startswith("Nothing was measured") and "<figure" not in text
    assert text.count("it broke") == 1 and "16 combinations</td>" in text and "make ladder" not in text


def evil(record: Record) -> Record:
    """The record with markup for model, sizes, implementation, text and docstring."""
    shape = {**record.shape, "corpus": {"label": EVIL, "digest": EVIL}}
    return replace(record, model=EVIL, doc=EVIL, implementation=EVIL, sizes=f"{record.sizes}{EVIL}", shape=shape,
                   case=f"{record.operation}/{EVIL}/{record.sizes}{EVIL}")  # fmt: skip


def test_no_word_of_a_record_becomes_markup(tmp_path: Path, records: Sequence[Record]) -> None:
    pages = site(tmp_path, [evil(record) for record in records], made_model.header())
    text = next(text for name, text in pages.items() if name.endswith("/model.html"))
    page = Elements(text)
    assert page.tags <= {*OURS.split(), "h4"} and not [word for word in page.attributes if word.startswith("on")]
    assert len(page.specs) >= 6 and any("<img src=x" in text for text in page.texts)
    found = [s for spec in page.specs for s in strings(spec)]
    assert not [s for s in found if "<" in s.replace("<extra></extra>", "").replace("<br>", "")]
