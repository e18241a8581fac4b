"""The ffn page as a whole: what it reads as, what it says when records are not there, its budgets, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Record, slug
from reports import environment, overview, website
from reports.ffn import QUESTION, answer, limits, sections
from reports.figure import MAX_SERIES
from tests.reports import made, made_ffn
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, assert_as_kept, story
from tests.reports.test_ffn import view_of
from tests.reports.test_hostile import EVIL, OURS, Elements, site, strings
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
    test_pages_open_with_question_and_answer_and_end_with_limits,
    test_tables_have_names_of_their_own_on_a_page,
)

RUNS = {"ffn": ("layers", "balance", "parallel"), "ffn-balance": ("balance",), "ffn-parallel": ("parallel",),
        "ffn-decode": ("decode",)}  # fmt: skip
SECTIONS = ["layers", "loads", "imbalance", "inside", "training", "parallel"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A site of all made-up ffn runs: what the rules of every site are held against in this module."""
    top = tmp_path_factory.mktemp("ffn")
    folders = [made_ffn.run(top / name, *parts, name=name) for name, parts in RUNS.items()]
    return site_of(top, folders)


@pytest.fixture(scope="module")
def records(built: Built) -> Sequence[Record]:
    """Everything there can be in a run."""
    return next(run.records for run in built.found.runs if run.header.run == "ffn")


@pytest.mark.parametrize("name", RUNS)
def test_the_page_reads_as_it_did(built: Built, name: str) -> None:
    assert_as_kept(name, story(built.pages[f"{name}/ffn.html"], QUESTION))


@pytest.mark.parametrize(("name", "commands"), [
    ("ffn", []),
    ("ffn-balance", ["make bench STUDY=ffn", "make bench-ep"]),
    ("ffn-parallel", ["make bench STUDY=ffn", "make balance"]),
    ("ffn-decode", ["make bench STUDY=ffn", "make balance", "make bench-ep"]),
])  # fmt: skip
def test_the_page_is_whole_and_names_what_measures_the_rest(built: Built, name: str, commands: list[str]) -> None:
    text = built.pages[f"{name}/ffn.html"]
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    assert sorted(set(re.findall(r"Measured by: <code>([^<]+)</code>", text))) == sorted(commands)


MISSING = ["latency", "floor", "max_violation", "rank_max_over_mean", "expert_load", "step", "validation_bits", "load_",
           "simulated_rank_max_over_mean", "compute_ns", "waiting_ns", "tokens", "skew", "model", ""]  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_the_page_is_whole_without(tmp_path: Path, records: Sequence[Record], name: str) -> None:
    found = view_of(tmp_path, [made.without(name, record) for record in records])
    text = sections(found)
    assert [i for i in Parsed(text).ids if i in SECTIONS] == SECTIONS
    told = " ".join([answer(found), *limits(found), *Reader(text).lines])
    assert not re.search(r"\b(None|nan|inf)\b", told) and len(answer(found)) > 20
    gone = {"latency": "Beside", "expert_load": "Expert loads, sorted", "load_": "by layer after training",
            "step": "Imbalance over training", "validation_bits": "Validation over training",
            "compute_ns": "Where each rank", "waiting_ns": "Where each rank"}  # fmt: skip
    assert name not in gone or gone[name] not in told


def test_a_run_in_which_nothing_passed_says_so(tmp_path: Path, records: Sequence[Record]) -> None:
    found = view_of(tmp_path, [made.failed(record, "error", "it broke") for record in records])
    assert answer(found).startswith("This run does not tell") and "<figure" not in sections(found)


def test_pages_stay_within_budget_on_a_large_run(tmp_path: Path) -> None:
    names = [f"{t}/{n}{i}" for t in ("dense", "dense-total", "moe", "moe-coarse") for i in range(5) for n in ("long-",)]
    kinds = {name.split("/")[1]: ("optimized", 1.1 + 0.1 * i) for i, name in enumerate(names)}
    sizes = [(f"ffn.{o}", n, s) for o in ("decode", "prefill") for n in (1, 8, 64, 512) for s in (0.0, 0.5, 1.0, 1.5)]
    sizes += [(f"ffn.{o}", 512, s) for o in ("route", "permute", "experts") for s in (0.0, 1.0)]
    records = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_ffn, "KINDS", kinds)
        for operation, tokens, skew in sizes:
            for model in ("v3-ep8", "v2-lite"):
                records += [made_ffn.record(operation, model, tokens, skew, name)[0] for name in names]
    records += [made_ffn.arm(f"arm-{i}", layers=61, experts=256, steps=1000) for i in range(12)]
    records += [made_ffn.parallel_record(f"eplb-{i}", 64, 128, 1.0) for i in range(20)]
    records += [made_ffn.parallel_record(f"simulated-{i}", 2**k, 128, 1.0) for i in range(20) for k in range(1, 7)]
    found = view_of(tmp_path / "run", records)
    assert len(found.of("ffn")) > 40
    page = next(text for title, text in website.pages(found).values() if title == "Ffn")
    assert len(page.encode()) < PAGE_BYTES and page.count("<figure") == FIGURES
    assert "4 more rows left out; each case has a page of its own." in page  # of 64 layer cases
    for spec in Parsed(page).specs:
        assert len(spec["data"]) <= MAX_SERIES and all(len(t.get("x", [])) <= 200 for t in spec["data"])


def test_training_and_counted_loads_are_not_called_verified(tmp_path: Path) -> None:
    layer, _ = made_ffn.record("ffn.decode", "v3-ep8", 16, 0.0, "moe/triton")
    counted = made_ffn.parallel_record("simulated-contiguous", 32, 4096, 1.0)
    view = view_of(tmp_path / "run", [layer, made_ffn.arm("none"), made_ffn.trial("bias"), counted])
    assert environment.answer(view).startswith("1 of 4 records were verified and timed on ")
    assert "; 3 more passed without a reference to compare with" in environment.answer(view)
    assert "1 results verified and timed, 3 without a reference" in overview.lead([view])


def evil(record: Record) -> Record:
    """The record with markup for model, sizes, implementation, reason and docstring."""
    return replace(record, model=EVIL, implementation=f"{record.implementation}{EVIL}", doc=EVIL, samples=None,
                   sizes=f"{record.sizes}{EVIL}", case=f"{record.operation}/{EVIL}/{record.sizes}{EVIL}")  # fmt: skip


def test_no_word_of_a_record_becomes_markup(tmp_path: Path, records: Sequence[Record]) -> None:
    pages = site(tmp_path, [evil(record) for record in records], made_ffn.header())
    text = next(text for name, text in pages.items() if name.endswith("/ffn.html"))
    page = Elements(text)
    assert page.tags <= {*OURS.split(), "h4"} and not [word for word in page.attributes if word.startswith("on")]
    assert len(page.specs) >= 6 and any("<img src=x" in text for text in page.texts)
    found = [s for spec in page.specs for s in strings(spec)]
    assert any("&lt;img" in s for s in found) and not [s for s in found if "<" in s.replace("<extra></extra>", "")]


def test_a_case_without_latencies_shows_what_it_measured(built: Built) -> None:
    """A training is judged by where it ends: its page must not be a table of dashes."""
    name, text = next((name, text) for name, text in built.pages.items() if "ffn-balance/case/ffn.balance" in name)
    run = next(run for run in built.found.runs if run.header.run == "ffn-balance")
    records = [r for r in run.records if slug(r.case) in name]
    assert records and "No contender has a latency" not in text and "Best to worst, " in text
    figures = {figure for record in records for figure in record.figures}
    assert all(f">{figure.replace('_', ' ')}<" in text for figure in figures)
    assert "<h2>Contenders</h2>" not in text
