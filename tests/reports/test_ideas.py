"""What each idea buys and costs, from records made for it: the side, the numbers, and what is said where they lack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, Record, RunWriter, read_run
from reports.ideas.section import answers, chosen, section
from reports.palette import Palette
from reports.view import View
from tests.reports import made, made_ffn, made_learning, made_linear, made_objective
from tests.reports.conftest import Built
from tests.reports.reading import Reader


def view_of(folder: Path, records: Sequence[Record], device: str = "cuda") -> View:
    """A run of these records, without samples: ratios are of medians and their intervals."""
    writer = RunWriter(folder)
    metrics = {**made.METRICS, **made_ffn.METRICS, **made_linear.METRICS, **made_objective.METRICS}
    writer.header(made.header(device=device, metrics=metrics))
    for record in records:
        writer.record(replace(record, samples=None), metrics)
    run = read_run(folder)
    return View(run, folder.name, "named", Palette(run.records), folder)


def decode(technique: str, length: int, nanoseconds: float, **figures: float) -> Record:
    """A record of decoding, whose latency is known within one per cent."""
    case = f"attention.decode/v3/b1-s{length}"
    found = {name: Figure(value) for name, value in figures.items()}
    found["latency"] = Figure(nanoseconds, 0.99 * nanoseconds, 1.01 * nanoseconds)
    return Record(case, "attention", "attention.decode", "v3", case.split("/")[-1], {"batch": 1, "length": length},
                  technique, "x", "library", "passed", figures=found)  # fmt: skip


def lines(views: Sequence[View]) -> str:
    """The section as its readers have it."""
    return " ".join(Reader(section(views)).lines)


def test_the_side_follows_the_intervals(tmp_path: Path) -> None:
    pairs = [(512, 100.0), (1024, 80.0), (2048, 300.0), (4096, 201.0)]
    records = [r for n, mla in pairs for r in (decode("mha", n, 200.0), decode("mla", n, mla))]
    mla = answers([view_of(tmp_path / "run", records)])[0].told
    assert [part.short for part in mla.buys] == ["decoding in 0.752× the time of MHA (4 cases, 0.400× to 1.50×)"]
    assert "faster in 2 of 4 cases; in the longest, decode/v3/b1-s512, 0.500×" in mla.buys[0].full
    assert [part.full for part in mla.costs] == [
        "decoding takes more time than MHA in 1 of 4 cases, 1.50× [1.47, 1.53] at most (decode/v3/b1-s2048)"
    ]
    assert mla.doubt == "1 of 4 ratios leaves open which is faster"


def test_an_idea_that_only_loses_buys_nothing(tmp_path: Path) -> None:
    records = [r for n in (512, 1024) for r in (decode("mha", n, 100.0), decode("mla", n, 250.0))]
    text = lines([view_of(tmp_path / "run", records)])
    assert "MLA buys no time or bytes; it costs decoding in 2.50× the time of MHA" in text
    assert "slower in 2 of 2 cases" in text and "No gain in time or bytes shows" in text


def test_cache_bytes_are_those_of_the_records(tmp_path: Path) -> None:
    bytes_ = {"mha": 65536.0, "gqa": 4096.0, "mla": 1024.0}
    records = [decode(t, 512, 100.0, kv_bytes_per_token=value) for t, value in bytes_.items()]
    assert "1,024 bytes in a layer's cache (v3), 64.0 times less than with MHA and 4.00 times less" in lines(
        [view_of(tmp_path / "run", records)]
    )


def test_machines_do_not_mix_and_a_gpu_comes_first(tmp_path: Path) -> None:
    fast = view_of(tmp_path / "gpu", [decode("mha", 512, 100.0), decode("mla", 512, 50.0)])
    many = [r for n in (512, 1024, 2048) for r in (decode("mha", n, 100.0), decode("mla", n, 300.0))]
    slow = view_of(tmp_path / "cpu", many, device="cpu")
    assert chosen([slow, fast], "attention") == [fast] and chosen([slow], "attention") == [slow]
    text = lines([slow, fast])
    assert "0.500×" in text and "3.00×" not in text
    assert "A CPU's times say nothing about a GPU." in lines([slow])


def test_a_case_of_two_runs_counts_once_as_the_first_has_it(tmp_path: Path) -> None:
    newest = view_of(tmp_path / "newest", [decode("mha", 512, 100.0), decode("mla", 512, 50.0)])
    older = view_of(tmp_path / "older", [decode("mha", 512, 100.0), decode("mla", 512, 300.0)])
    text = lines([newest, older])
    assert "0.500×" in text and "3.00×" not in text and "1 ratio of verified results" in text


@pytest.mark.parametrize("study", ["attention", "ffn", "linear", "objective", "learning"])
def test_what_was_not_measured_names_its_command(tmp_path: Path, study: str) -> None:
    text = lines([view_of(tmp_path / "run", [decode("mha", 512, 100.0)])])
    assert text.count("was not measured in these runs") == 5 and f"make bench STUDY={study}" in text


def test_records_of_every_study_are_told(built: Built, tmp_path: Path) -> None:
    folders = [
        made_ffn.run(tmp_path / "ffn", "layers", "balance", name="ffn"),
        made_linear.run(tmp_path / "linear", *made_linear.PARTS, name="linear"),
        made_objective.run(tmp_path / "objective", "steps", "generation", "loss", name="objective"),
        made_learning.run(tmp_path / "learning", "courses", "single", "operations", name="learning"),
    ]
    runs = [*built.found.runs, *(read_run(folder) for folder in folders)]
    views = [View(run, run.header.run, "named", Palette(run.records), tmp_path) for run in runs]
    for one in answers(views):
        assert not one.empty and one.views[0].on_gpu, one.idea.name
        assert one.told.buys and len(one.told.sure) >= 1, one.idea.name
        assert bool(one.told.costs) == (one.idea.name != "GRPO"), one.idea.name
    text = lines(views)
    assert not re.search(r"\b(None|nan|inf)\b", text) and "not measured" not in text
    for words in ("times less than with MHA", "of as many parameters", "the time of BF16", "smoothed loss with FP8",
                  "first drafts accepted", "validation of the next byte with mtp", "MaxVio",
                  "0.529× the bytes of PPO's models, gradients and states", "held-out problems answered right: ",
                  "a model's loss: worse", "a model's loss: within the 0.25"):  # fmt: skip
        assert words in text, words


def test_what_weakens_a_ratio_is_counted(tmp_path: Path) -> None:
    sure = [decode("mha", 512, 100.0), decode("mla", 512, 50.0)]
    weak = [replace(r, timing={"clock": "host-bound", "pairing": "unpaired"})
            for r in (decode("mha", 1024, 100.0), decode("mla", 1024, 50.0))]  # fmt: skip
    text = lines([view_of(tmp_path / "run", [*sure, *weak])])
    assert "; 1 from contenders timed apart; 1 with a side that waited for the host" in text
    assert "waited" not in lines([view_of(tmp_path / "sure", sure)])


def test_an_emulation_is_called_that(tmp_path: Path) -> None:
    folder = made_linear.run(tmp_path / "linear", *made_linear.PARTS, name="linear", device="cpu")
    run = read_run(folder)
    text = lines([View(run, "linear", "named", Palette(run.records), tmp_path)])
    assert "it costs the time of an emulation here, which is not FP8's" in text
