"""The learning page: what it reads as, what it says when records are not there, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Record, RunWriter, read_run
from reports.learning import QUESTION, answer, limits, sections
from reports.learning.cases import courses, curve
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_learning
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, assert_as_kept, story
from tests.reports.test_hostile import EVIL, OURS, Elements, site, strings
from tests.reports.test_site import (  # noqa: F401 - the rules of every site, here for the runs of this study
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

RUNS = {
    "learning": ("courses", "operations"),
    "learning-cpu": ("courses", "operations"),
    "learning-single": ("single",),
    "learning-operations": ("operations",),
}
SECTIONS = ["memory", "time", "accuracy", "length", "signal", "saved"]
BENCH = "make bench STUDY=learning"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A site of all made-up learning runs: what the rules of every site are held against in this module."""
    top = tmp_path_factory.mktemp("learning")
    folders = [
        made_learning.run(top / name, *parts, name=name, device="cpu" if name.endswith("cpu") else "cuda")
        for name, parts in RUNS.items()
    ]
    return site_of(top, folders)


@pytest.fixture(scope="module")
def records(built: Built) -> Sequence[Record]:
    """Everything there can be in a run."""
    return next(run.records for run in built.found.runs if run.header.run == "learning")


def view_of(folder: Path, records: Sequence[Record]) -> View:
    """A view of a run with these records."""
    writer = RunWriter(folder)
    writer.header(made_learning.header())
    for record in records:
        writer.record(record, made_learning.METRICS)
    found = read_run(folder)
    return View(found, folder.name, "newest", Palette(found.records), folder)


@pytest.mark.parametrize("name", RUNS)
def test_the_page_reads_as_it_did(built: Built, name: str) -> None:
    assert_as_kept(name, story(built.pages[f"{name}/learning.html"], QUESTION))


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("learning", []),
        ("learning-cpu", []),
        ("learning-single", [BENCH, f"{BENCH} K=step", f"{BENCH} K=step"]),
        ("learning-operations", [*[f"{BENCH} K=step"] * 2, *["make learn"] * 4]),
    ],
)
def test_the_page_is_whole_and_names_what_measures_the_rest(built: Built, name: str, commands: list[str]) -> None:
    text = built.pages[f"{name}/learning.html"]
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    assert sorted(re.findall(r"Measured by: <code>([^<]+)</code>", text)) == sorted(commands)


def test_what_the_numbers_come_to(tmp_path: Path, records: Sequence[Record]) -> None:
    found = answer(view_of(tmp_path, records)).replace("\u202f", " ")
    assert "0.529×" in found  # 18 over 34 bytes a parameter
    assert "at its peak, with activations and caches, 0.500×" in found
    assert "A step of GRPO takes 191 ms, 0.560× PPO's; 21 % of it is sampling." in found
    assert "grpo/normalised from 20 % to 93 %" in found and "ppo/lambda-0.95 from 20 % to 68 %" in found


def test_curves_are_means_over_seeds_with_their_range(tmp_path: Path, records: Sequence[Record]) -> None:
    first = courses(view_of(tmp_path, records))[0]
    step, mean, least, most = first.mean("accuracy")[-1]
    ends = [curve(record, "accuracy")[800.0] for record in first.records]
    assert (step, least, most) == (800.0, min(ends), max(ends)) and mean == pytest.approx(sum(ends) / 3)
    assert first.mean("accuracy")[0][0] == 0.0 and first.mean("length")[0][0] == 100.0


GONE = {"accuracy": "Accuracy over", "update_time": "A step's time", "owned_bytes": "Memory by owner",
        "step": "Accuracy over", "length": "Length and truncation",
        "without_signal": "Groups without signal, and"}  # fmt: skip


@pytest.mark.parametrize("name", [*GONE, "seconds", "kl", "truncated", "peak", "resident", "recipe", "reward", ""])
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


def evil(record: Record) -> Record:
    """The record with markup for model, sizes, data and docstring."""
    return replace(
        record, model=EVIL, doc=EVIL, samples=None, sizes=f"{EVIL}{record.sizes}", implementation=f"{EVIL}",
        case=f"{record.operation}/{EVIL}/{EVIL}{record.sizes}", verification={**record.verification, "data": EVIL},
    )  # fmt: skip


def test_no_word_of_a_record_becomes_markup(tmp_path: Path, records: Sequence[Record]) -> None:
    pages = site(tmp_path, [evil(record) for record in records], made_learning.header())
    text = next(text for name, text in pages.items() if name.endswith("/learning.html"))
    page = Elements(text)
    assert page.tags <= {*OURS.split(), "h4"} and not [word for word in page.attributes if word.startswith("on")]
    assert len(page.specs) >= 5 and any("<img src=x" in text for text in page.texts)
    found = [s for spec in page.specs for s in strings(spec)]
    assert any("&lt;img" in s for s in found) and not [s for s in found if "<" in s.replace("<extra></extra>", "")]
