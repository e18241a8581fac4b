"""Every kind of page in one Chromium, from a file: axe-core's rules, a silent console, nothing fetched, all drawn.

At the width of a phone and of a desk, light and dark. Skipped without a browser or without axe-core's script, which
the package axe-core-python brings. What is folded is opened for the rules; drawn figures keep their frame and name, and
tables their first rows: what follows is the same markup again.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from harness.record import slug
from reports import website
from tests.reports import made_ffn, made_linear, made_model, made_objective, test_compare, test_history
from tests.reports.chromium import BROWSER, Chromium
from tests.reports.conftest import Built

PACKAGE = importlib.util.find_spec("axe_core_python")
AXE = Path(PACKAGE.origin).with_name("axe.min.js") if PACKAGE and PACKAGE.origin else None
GPU = "2026-03-01T10-00-00-gpu"
PAGES = {
    "overview": "index.html",
    "claims": "claims.html",
    "summary": "summary.html",
    "history": "history/index.html",
    "lines": "history/lines-attention.decode.html",
    "compare": "compare/index.html",
    "attention": f"{GPU}/attention.html",
    "ffn": "ffn/ffn.html",
    "linear": "linear/linear.html",
    "objective": "objective/objective.html",
    "model": "model/model.html",
    "roofline": f"{GPU}/roofline.html",
    "method": f"{GPU}/method.html",
    "environment": f"{GPU}/environment.html",
    "case": f"{GPU}/case/{slug('attention.decode/v3/b16-s4096')}.html",
    "cpu": "2026-03-02T09-00-00-cpu/attention.html",
}
UNDRAWN = {"overview", "claims", "summary", "method", "lines"}  # without figures
DRAWN = """Array.from(document.querySelectorAll('.plot')).every(
  box => box.closest('[hidden]') || box.querySelector('svg.main-svg'))"""
ALL = """(document.querySelectorAll('[role=tab]').forEach(tab => tab.click()),
  [document.querySelectorAll('.plot').length,
   Array.from(document.querySelectorAll('.plot')).filter(box => box.querySelector('svg.main-svg')).length])"""
OPENED = """document.querySelectorAll('tbody tr:nth-child(n+9)').forEach(row => row.remove());
  document.querySelectorAll('.plot').forEach(box => {
    const frame = box.cloneNode(false);
    frame.className = 'plotted';
    box.replaceWith(frame);
  });
  document.querySelectorAll('.panel').forEach(panel => { panel.hidden = false; });
  document.querySelectorAll('details').forEach(box => { box.open = true; });"""
CHECK = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(
  () => axe.run(document, {preload: false, resultTypes: ['violations']})).then(
  found => found.violations.filter(one => one.impact === 'serious' || one.impact === 'critical').map(
    one => [one.impact, one.id, one.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
    pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed"),
]


@pytest.fixture(scope="module")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with every kind of page."""
    top = tmp_path_factory.mktemp("accessible")
    test_history.build(top / "h", test_history.story())
    test_compare.build(top / "c", *test_compare.runs())
    shutil.move(top / "h" / "site", top / "site-history")
    shutil.move(top / "c" / "site", top / "site-compare")
    runs = [
        made_ffn.run(top / "ffn", "layers", "balance", "parallel", name="ffn"),
        made_ffn.run(top / "decode", "decode", name="decode"),
        made_linear.run(top / "linear", *made_linear.PARTS, name="linear"),
        made_objective.run(top / "objective", "steps", "generation", "loss", name="objective"),
        made_model.run(top / "model", "ladder", "passes", name="model"),
    ]
    found = website.find(top / "none", top / "none", [*(run.folder for run in built.found.runs), *runs])
    website.build(found, top / "site", top)
    return top / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all of it."""
    started = Chromium(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible_silent_and_drawn(site: Path, browser: Chromium, name: str, width: int) -> None:
    assert AXE is not None
    browser.open(site / PAGES[name], width)
    browser.wait(DRAWN)
    assert browser.evaluate(OVERFLOW) <= 0, "the page scrolls sideways"
    browser.theme("dark")
    figures, drawn = browser.evaluate(ALL)
    assert figures == drawn and (figures > 0) == (name not in UNDRAWN)
    assert browser.said == []
    asked = [address for address in browser.requested if not address.startswith((site.as_uri(), "about:", "data:"))]
    assert asked == []
    browser.evaluate(OPENED)
    browser.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    for theme in ("dark", "light"):
        browser.theme(theme)
        assert browser.evaluate(CHECK) == [], theme


def test_the_rules_notice_a_violation(site: Path, browser: Chromium) -> None:
    assert AXE is not None
    browser.open(site / PAGES["method"], 390)
    browser.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<button></button>')")
    browser.evaluate("document.querySelector('.answer').style.color = '#ddd'")
    browser.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    assert {rule for _, rule, _ in browser.evaluate(CHECK)} == {"button-name", "color-contrast"}


def test_facets_of_the_roofline_hide_rows_and_points(site: Path, browser: Chromium) -> None:
    browser.open(site / PAGES["roofline"], 1440)
    browser.wait(DRAWN)
    browser.evaluate("document.querySelector('.facet button[value=\"attention:mla\"]').click()")
    rows = browser.evaluate(
        "Array.from(document.querySelectorAll('#points tbody tr[data-series]'))"
        ".map(row => [row.dataset.series, row.hidden])"
    )
    assert {series for series, hidden in rows if not hidden} == {"attention:mla"}
    shown = browser.evaluate("document.querySelector('.plot').spec.data.filter(t => t.visible).map(t => t.meta.series)")
    assert set(shown) == {"attention:mla"}
    assert unquote(browser.evaluate("location.hash")) == "#series=attention:mla"
    assert browser.evaluate("document.querySelector('.filtered').textContent").endswith("rows hidden")


def test_regressions_only_hides_what_is_not_slower_and_counts_it(site: Path, browser: Chromium) -> None:
    browser.open(site / PAGES["compare"], 1440, fragment="#verdict=slower")
    browser.wait(DRAWN)
    shown = browser.evaluate(
        "Array.from(document.querySelectorAll('#times [data-verdict]')).filter(row => !row.hidden)"
        ".map(row => row.dataset.verdict)"
    )
    assert shown == ["slower"] * 3
    assert browser.evaluate("Array.from(document.querySelectorAll('.outcome:not([hidden])')).length") == 1
    assert browser.evaluate("document.querySelector('#times .filtered').textContent").endswith("rows hidden")


def test_a_verdict_of_the_ledger_keeps_the_tables_in_its_cards(site: Path, browser: Chromium) -> None:
    browser.open(site / PAGES["claims"], 1440, fragment="#verdict=arithmetic")
    kept = browser.evaluate(
        "[document.querySelectorAll('.claim:not([hidden])').length,"
        " document.querySelectorAll('.claim:not([hidden]) tbody tr[hidden]').length]"
    )
    assert kept[0] > 0 and kept[1] == 0


def values(trace: dict[str, Any]) -> int:
    """How many values a trace draws."""
    if "z" in trace:
        return sum(map(len, trace["z"]))
    return max(len(trace.get("x", [])), len(trace.get("y", [])))


@pytest.mark.parametrize("name", ["roofline", "case", "linear", "objective"])
def test_what_a_figure_draws_can_be_downloaded(site: Path, browser: Chromium, name: str) -> None:
    browser.open(site / PAGES[name], 1440)
    browser.evaluate("HTMLAnchorElement.prototype.click = function () { window.taken = [this.download, this.href]; }")
    specs = browser.evaluate("Array.from(document.querySelectorAll('.plot')).map(box => box.spec)")
    for i, spec in enumerate(specs):
        browser.evaluate(f"document.querySelectorAll('figure .csv')[{i}].click()")
        file, address = browser.evaluate("window.taken")
        lines = unquote(address.partition(",")[2]).strip().splitlines()
        assert file.endswith(".csv") and lines[0].startswith("series,")
        assert len(lines) == 1 + sum(map(values, spec["data"])), lines[:3]


def test_commands_have_a_button_that_copies_them(site: Path, browser: Chromium) -> None:
    browser.open(site / "decode" / "ffn.html", 1440)
    assert browser.evaluate("document.querySelectorAll('.runnable > code').length") > 0
    assert browser.evaluate("document.querySelectorAll('.runnable:not(:has(code + .copy))').length") == 0
    browser.open(site / PAGES["case"], 1440)
    browser.evaluate("document.querySelector('.copy').click()")
    assert browser.evaluate("getSelection().toString()").startswith("make bench K=attention.decode/v3/b16-s4096")
