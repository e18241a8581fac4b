"""The site in a real browser, opened from a file: every visible figure is drawn and the console stays silent.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.record import slug
from reports import website
from tests.reports import made_ffn, made_linear, made_model, made_objective
from tests.reports.conftest import Built

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
GPU = "2026-03-01T10-00-00-gpu"
PAGES = [f"{GPU}/attention.html", f"{GPU}/environment.html", f"{GPU}/case/{slug('attention.decode/v3/b16-s4096')}.html",
         "ffn/ffn.html", "linear/linear.html", "objective/objective.html", "model/model.html"]  # fmt: skip
PROBE = """<script>addEventListener("load", function () { setTimeout(function () {
  var wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  var boxes = Array.from(document.querySelectorAll(".plot")).filter(function (b) { return !b.closest("[hidden]"); });
  var drawn = boxes.filter(function (b) { return b.querySelectorAll("svg.main-svg").length; });
  document.body.dataset.probe = [boxes.length, drawn.length, wide].join(" ");
}, 1500); });</script>"""


@pytest.fixture(scope="module")
def built(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The site of all made-up runs with one each of the other studies."""
    top = tmp_path_factory.mktemp("browser")
    folder = made_ffn.run(top / "ffn", "layers", "balance", "parallel", name="ffn")
    others = [
        folder,
        made_linear.run(top / "linear", *made_linear.PARTS, name="linear"),
        made_objective.run(top / "objective", "steps", "generation", "loss", name="objective"),
        made_model.run(top / "model", "ladder", "passes", name="model"),
    ]
    found = website.find(top, top, [*(run.folder for run in built.found.runs), *others])
    website.build(found, top / "site", top)
    return Built(top / "site", found, {})


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("page", PAGES)
def test_figures_are_drawn_from_a_file_without_a_word_on_the_console(built: Built, page: str, tmp_path: Path) -> None:
    assert BROWSER is not None
    shutil.copytree(built.folder, tmp_path / "site")
    target = tmp_path / "site" / page
    target.write_text(target.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=6000", "--enable-logging=stderr"]
    words += ["--window-size=500,900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", target.as_uri()]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120, check=False)
    probe = re.search(r'data-probe="(\d+) (\d+) (-?\d+)"', done.stdout)
    assert probe is not None, done.stderr[-2000:]
    figures, drawn, overflow = map(int, probe.groups())
    assert figures == drawn > 0
    assert overflow <= 0, "the page scrolls sideways on a narrow screen"
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
