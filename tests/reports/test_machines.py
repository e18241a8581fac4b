"""Runs of two machines in one site, and sites of a CPU or a GPU alone: what each answers."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.record import Figure, RunWriter, read_run
from reports import website
from reports.page import PLOTLY
from tests.reports import made
from tests.reports.conftest import Built, pages_of

SECTIONS = ["bytes", "decode", "crossover", "every", "phases", "fit", "contenders", "limits"]
GPU, CPU = "2026-03-01T10-00-00-gpu", "2026-03-02T09-00-00-cpu"


def build(top: Path) -> dict[str, str]:
    """Pages of the runs below `top/recorded`."""
    found = website.find(top / "runs", top / "recorded")
    return pages_of(top / "site", website.build(found, top / "site", top))


def test_every_page_names_its_machine_and_commit(built: Built) -> None:
    for run in built.found.runs:
        label = html.escape(run.header.machine["label"])
        pages = {name: text for name, text in built.pages.items() if name.startswith(f"{run.header.run}/")}
        assert len(pages) >= 3
        for name, text in pages.items():
            banner = text.split('class="banner"')[1].split("<h1")[0]
            assert f"<strong>{label}</strong>" in banner and "<code>a1b2c3d4e5*</code>" in banner, name
            others = {r.header.machine["label"] for r in built.found.runs} - {run.header.machine["label"]}
            body = text.split("<main")[1]
            assert not [other for other in others if html.escape(other) in body], name
        card = next(p for p in built.pages["index.html"].split("<article")[1:] if f"{run.header.run}/" in p)
        assert label in card and "a1b2c3d4e5*" in card


def slower(folder: Path, factor: float, technique: str, **header: object) -> Path:
    """One technique of one decode case, `factor` times slower than the made-up run has it."""
    made.cpu_run(folder / "source")
    run = read_run(folder / "source")
    writer = RunWriter(folder)
    writer.header(replace(run.header, **header))  # type: ignore[arg-type]
    for record in run.records:
        if record.technique == technique and record.status == "passed" and record.sizes == "b1-s512":
            latency = Figure(record.figures["latency"].value * factor)
            figures = {k: v for k, v in record.figures.items() if k != "ratio"} | {"latency": latency}
            writer.record(replace(record, figures=figures, samples=None, baseline=None), made.METRICS)
    (folder / "source" / "run.jsonl").unlink()
    return folder


def test_no_ratio_is_taken_across_machines(tmp_path: Path) -> None:
    """The same case on two machines, MHA on one and MLA on the other: nothing may be divided."""
    one = {**made.GPU, "label": "one", "gpus": []}
    slower(tmp_path / "recorded" / "one", 1.0, "mha", run="run-one", machine=one)
    slower(
        tmp_path / "recorded" / "two", 7.0, "mla", run="run-two", machine={**one, "label": "two"}, started="2026-04-01"
    )
    pages = build(tmp_path)
    assert {"run-one/attention.html", "run-two/attention.html"} < set(pages)
    ledger = pages.pop("claims.html")  # quotes ratios, and measured none
    assert "Measured here" not in ledger and "of these runs decide none" in ledger
    for name, text in pages.items():
        values = re.findall(r"[\d.]+\N{MULTIPLICATION SIGN}", text.split("<main")[1])
        assert not values, f"{name}: {values}"
    for name in ("run-one/attention.html", "run-two/attention.html"):
        assert "not both measured" in pages[name]


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A site of one run."""
    top = tmp_path_factory.mktemp(request.param)
    (made.cpu_run if request.param == "cpu" else made.gpu_run)(top / "recorded" / "a")
    return request.param, build(top)


def test_one_machine_alone_answers_every_question(alone: tuple[str, dict[str, str]]) -> None:
    kind, pages = alone
    assert pages["index.html"].split("<h2>Runs</h2>")[1].count("<article") == 1
    page = pages[f"{CPU if kind == 'cpu' else GPU}/attention.html"]
    sections = dict(re.findall(r'<section id="(\w+)">(.*?)</section>(?=<section id=|</main>)', page, flags=re.S))
    assert list(sections) == SECTIONS
    assert "Counted, one layer" in sections["bytes"] and "65,536 B" in sections["bytes"]
    measured = r"<td>mha</td><td class=\"n\">65,536 B</td><td class=\"n\">6[5-9],\d{3} B</td>"
    assert re.search(measured, sections["bytes"])
    for name in ("mha/sdpa", "mla/absorbed", "mla/flash_mla", "gqa/reference", "mqa/split_kv"):
        assert name in sections["every"], name
    for name in ("mha", "gqa", "mqa", "mla"):
        assert f"<td>{name}</td>" in sections["decode"], name
    assert "within the measured range" in sections["crossover"] or "overtakes MHA at about" in sections["crossover"]
    assert "What fits in" in sections["fit"] and "Computed, not measured" in sections["fit"]
    held = int((made.GPU["gpus"][0] if kind == "gpu" else made.GPU["cpu"])["memory_bytes"] / (65536 * 61))  # type: ignore[index]
    assert f"{held:,} tokens with MHA" in sections["fit"]
    if kind == "gpu":
        assert "Prefill layer" in sections["phases"] and "Training step layer" in sections["phases"]
    else:
        assert "Prefill: no case has a latency in this run." in sections["phases"]
        assert "Training step: no case has a latency in this run." in sections["phases"]


def test_the_script_is_there_once_and_in_no_page(built: Built) -> None:
    copies = [path.name for path in built.folder.rglob("*.js") if path.stat().st_size > 1_000_000]
    assert copies == [PLOTLY]
    drawn = [text for text in built.pages.values() if 'class="plot"' in text]
    assert drawn and all(text.count(f"static/{PLOTLY}") == 1 for text in drawn)
    for name, text in built.pages.items():
        assert 'type="module"' not in text and "XMLHttpRequest" not in text and "fetch(" not in text, name
        assert (PLOTLY in text) == ('class="plot"' in text), name
