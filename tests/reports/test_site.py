"""What must hold for every page of a site, whatever run it shows."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import plotly.graph_objects as go
import pytest

from harness.record import slug
from reports.figure import MAX_SERIES, TRACE_TYPES
from tests.reports import made
from tests.reports.conftest import Built
from tests.reports.reading import read_page

ROOT = Path(__file__).resolve().parents[2]
PAGE_BYTES = 600_000
SITE_BYTES = 8_000_000
FIGURES = 10


class Parsed(HTMLParser):
    """Addresses, identifiers, names of regions, figures and their specifications of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.regions: list[str] = []
        self.figures: list[dict[str, list[str]]] = []
        self.specs: list[dict] = []
        self._open: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [v for k in ("href", "src") if (v := found.get(k)) is not None]
        self.addresses += [v for v in [found.get("value")] if tag == "option" and v]
        self.ids += [v for v in [found.get("id")] if v]
        if found.get("role") == "region":
            self.regions.append(found.get("aria-label") or found.get("aria-labelledby") or "")
        if tag == "figure":
            self.figures.append({"labels": [found.get("aria-labelledby") or ""], "tags": [], "caption": []})
            self._open.append("figure")
        elif self._open:
            self.figures[-1]["tags"].append(tag)
        self._script = tag == "script" and found.get("type") == "application/json"
        self._caption = tag == "figcaption"

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            self._open.pop()
        self._script = self._caption = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.specs.append(json.loads(data))
        elif getattr(self, "_caption", False):
            self.figures[-1]["caption"].append(data)


@pytest.fixture(scope="session")
def parsed(built: Built) -> dict[str, Parsed]:
    return {name: Parsed(text) for name, text in built.pages.items()}


def test_nothing_is_fetched_from_elsewhere(built: Built, parsed: dict[str, Parsed]) -> None:
    for name, page in parsed.items():
        assert not [a for a in page.addresses if urlsplit(a).scheme or a.startswith(("//", "/"))], name
    for file in ("style.css", "app.js"):
        text = (built.folder / "static" / file).read_text()
        assert "http:" not in text and "https:" not in text and "import " not in text and "fetch(" not in text


def test_every_link_leads_to_a_file_and_anchor_of_the_site(built: Built, parsed: dict[str, Parsed]) -> None:
    for name, page in parsed.items():
        for address in page.addresses:
            parts = urlsplit(address)
            target = (built.folder / name).parent / unquote(parts.path) if parts.path else built.folder / name
            assert target.is_file(), f"{name} links to {address}"
            if parts.fragment:
                relative = target.resolve().relative_to(built.folder.resolve()).as_posix()
                assert parts.fragment in parsed[relative].ids, f"{name} links to {address}"


def test_identifiers_are_unique_on_a_page(parsed: dict[str, Parsed]) -> None:
    for name, page in parsed.items():
        assert len(page.ids) == len(set(page.ids)), name


def test_tables_have_names_of_their_own_on_a_page(parsed: dict[str, Parsed]) -> None:
    for name, page in parsed.items():
        assert page.regions.count("") == 0, name
        assert not sorted({label for label in page.regions if page.regions.count(label) > 1}), name


def test_figures_use_known_traces_and_valid_specifications(parsed: dict[str, Parsed]) -> None:
    seen = set()
    for name, page in parsed.items():
        for spec in page.specs:
            go.Figure(spec)
            seen |= {trace["type"] for trace in spec["data"]}
            assert 0 < len(spec["data"]) <= MAX_SERIES, name
            assert sum(len(trace.get("x", [])) for trace in spec["data"]) <= 2000, name
    assert {"scatter", "bar"} <= seen <= TRACE_TYPES


def test_every_axis_has_a_title_or_names(parsed: dict[str, Parsed]) -> None:
    for page in parsed.values():
        for spec in page.specs:
            for axis in ("xaxis", "yaxis"):
                found = spec["layout"][axis]
                assert found.get("title", {}).get("text") or found.get("type") == "category" or found.get("ticktext")


def test_budgets(built: Built, parsed: dict[str, Parsed]) -> None:
    assert max(len(text.encode()) for text in built.pages.values()) <= PAGE_BYTES
    assert max(len(page.figures) for page in parsed.values()) <= FIGURES
    assert sum(path.stat().st_size for path in built.folder.rglob("*") if path.is_file()) <= SITE_BYTES


def test_every_figure_has_a_title_a_sentence_and_a_table(parsed: dict[str, Parsed]) -> None:
    count = 0
    for name, page in parsed.items():
        for figure in page.figures:
            count += 1
            caption = "".join(figure["caption"])
            assert figure["labels"][0] in page.ids, name
            assert len(caption.split()) >= 5 and caption.endswith("."), f"{name}: {caption}"
            assert {"details", "table", "td"} <= set(figure["tags"]), name
    assert count > 30


def test_every_record_is_on_its_case_page(built: Built) -> None:
    for run in built.found.runs:
        for record in run.records:
            page = built.pages[f"{run.header.run}/case/{slug(record.case)}.html"]
            assert html.escape(record.contender) in page
            if record.reason:
                assert html.escape(record.reason) in page
            if record.samples:
                assert f">{record.samples['count']}<" in page


def test_every_case_is_in_the_coverage_matrix(built: Built) -> None:
    index = built.pages["index.html"]
    for run in built.found.runs:
        for record in run.records:
            assert f"{run.header.run}/case/{slug(record.case)}.html" in index
            if record.reason:
                assert html.escape(record.reason) in index


def test_what_authors_wrote_is_text_not_markup(built: Built) -> None:
    for name, text in built.pages.items():
        assert "<script>alert" not in text, name
        assert "<on>" not in text and "<no>" not in text, name
    page = built.pages[f"2026-03-01T10-00-00-gpu/case/{slug('attention.decode/v3/b16-s4096')}.html"]
    assert html.escape(made.EVIL.splitlines()[0]) in page and "漢字" in page


def test_cpu_and_gpu_never_look_alike(built: Built) -> None:
    for name, text in built.pages.items():
        if "/" not in name:  # pages of the whole site
            continue
        on_cpu = "-cpu/" in name or name.startswith("toy-run/")
        assert ('<span class="badge cpu">CPU</span>' in text) == on_cpu, name
        banner = text.split('class="banner"')[1].split("<h1")[0]
        assert ("say nothing about a GPU" in banner) == on_cpu, name


def test_cautions_are_visible(built: Built) -> None:
    study = built.pages["2026-03-01T10-00-00-gpu/attention.html"]
    for word in ("suspect", "host-bound", "unpaired", "dirty tree"):
        assert re.search(rf'class="badge [^"]*"[^>]*>{word}<', study), word


def test_changed_sources_are_told(tmp_path: Path) -> None:
    from reports import website

    made.cpu_run(tmp_path / "run")
    source = tmp_path / "impls/attention/decode/absorbed.py"
    source.parent.mkdir(parents=True)
    source.write_text("changed")
    website.build(website.find(tmp_path / "none", tmp_path / "none", [tmp_path / "run"]), tmp_path / "site", tmp_path)
    page = next((tmp_path / "site").rglob("attention.decode--v3--b1-s512.html"))
    page = read_page(page)
    assert "changed since" in page and "impls/attention/decode/absorbed.py is now" in page
    assert "impls/attention/decode/sdpa.py is not in this checkout" in page


def test_an_unknown_study_has_a_page_with_its_own_metric(built: Built) -> None:
    study = built.pages["toy-run/toy.html"]
    assert "plain/quick" in study and "ValueError: &lt;no&gt;" in study and "1 of 1 cases" in study
    case = built.pages["toy-run/case/toy.sum--tiny--n8.html"]
    assert "How much it wobbles." in case and "3.50\u202fwobbles" in case


def test_pages_open_with_question_and_answer_and_end_with_limits(built: Built) -> None:
    for name, text in built.pages.items():
        assert re.search(r"<h1[^>]*>[^<]+</h1><p class=\"answer\">[^<]{20,}</p>", text), name
        if "/case/" not in name:
            assert "What this does not show" in text, name


def test_torch_is_never_imported(tmp_path: Path) -> None:
    made.toy_run(tmp_path / "runs" / "toy")
    code = (
        "import sys; from reports.__main__ import main; "
        "status = main(['--runs', sys.argv[1], '--recorded', 'none', '--out', sys.argv[2]]); assert status == 0; "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "runs"), str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
