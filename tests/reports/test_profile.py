"""Profiles on the page of their case: tables by what rows hold, files that can be opened, doubts told."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.profiling.file import folder_of, write
from harness.record import slug
from reports import profile as page
from tests.reports import made, made_machine
from tests.reports.conftest import Built, site_of
from tests.reports.reading import Reader, read_page

CASE = "attention.decode/v3/b16-s4096"
GPU = "2026-03-01T10-00-00-gpu"


@pytest.fixture(scope="module")
def text(built: Built) -> str:
    return built.pages[f"{GPU}/case/{slug(CASE)}.html"]


def test_kernels_gaps_and_doubts_stand_on_the_page(text: str) -> None:
    lines = Reader(text).lines
    start = lines.index("mla/absorbed, by torch")
    found = lines[start : start + 20]
    assert any("100 µs busy, 15.0 µs waiting for the host and 5.00 µs in other gaps" in line for line in found)
    kernels = found[found.index("| Kernels| Time| Share| Launches| Byte rate| Of the nearer ceiling") :]
    assert kernels[1].startswith("| split_latent| 60.0 µs| 60 %| 1| 3.10 TB/s| 76 %")
    assert any("| the host| 15.0 µs| 10" in line and "split_latent → void cutlass" in line for line in found)
    memory = lines[lines.index("mha/reference, by memory") :]
    assert "It was taken on another machine, NVIDIA H100." in memory
    assert "Its code has changed since the run measured it." in memory
    assert any(line.startswith("4.19 MB were held at the highest point, 3.95 ms after") for line in memory)


def test_time_comes_before_what_python_does(text: str) -> None:
    lines = Reader(text).lines
    first, second = (lines.index(f"mla/absorbed, by {tool}") for tool in ("torch", "host"))
    assert first < second and any("A call returns after 21.0 µs; 40 % of it" in line for line in lines[second:])


def test_a_trace_is_in_the_site_and_a_lost_snapshot_is_named(built: Built, text: str) -> None:
    path = built.folder / GPU / "profiles" / slug(CASE) / "mla--absorbed-torch.trace.json.gz"
    assert path.read_bytes() == b"\x1f\x8b made up" and f'href="../profiles/{slug(CASE)}/{path.name}"' in text
    lost = "mha--reference-memory.pickle, a memory snapshot, for torch's memory_viz: not kept with this run"
    assert lost in Reader(text).lines


def test_damaged_profiles_and_large_files_cost_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = "attention.decode/v3/b1-s512"
    run = made.cpu_run(tmp_path / "run")
    made_machine.profiles(run, case)
    folder = folder_of(run, case)
    (folder / "broken.json").write_text('{"schema": 1, "type": "profile"}')
    monkeypatch.setattr(page, "LARGEST", 5)
    built = site_of(tmp_path, [run])
    found = read_page(next((tmp_path / "site").rglob(f"{slug(case)}.html")))
    assert "A profile could not be read" in found and ": 10.0\u202fB, in the run" in found
    assert not list((tmp_path / "site").rglob("*.gz")) and built.pages


def test_rows_without_a_figure_have_no_column(tmp_path: Path) -> None:
    profile = page.Profile(
        CASE, "a/b", "torch", "2026", {}, {}, tables={"operators": [{"name": "aten::mm", "own_ns": 5}]}
    )
    assert write(profile, tmp_path).is_file()
    table = str(page.rows_of(profile, "operators"))
    assert "On the host" in table and "On the GPU" not in table and "Launches" not in table
