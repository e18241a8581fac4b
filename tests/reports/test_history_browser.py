"""History and compare page in a real browser, opened from a file, on a narrow and a wide screen, light and dark.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.reports import test_compare, test_history
from tests.reports.test_browser import BROWSER, PROBE


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of both, with a probe in each."""
    top = tmp_path_factory.mktemp("browser")
    test_history.build(top / "history", test_history.story())
    test_compare.build(top / "compare", *test_compare.runs())
    found = {name: top / name / "site" / "index.html" for name in ("history", "compare")}
    for path in found.values():
        path.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    return found


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["history", "compare"])
def test_pages_are_drawn_from_a_file_without_a_word_on_the_console(
    sites: dict[str, Path], name: str, width: int, theme: str, tmp_path: Path
) -> None:
    assert BROWSER is not None
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=6000", "--enable-logging=stderr"]
    words += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    address = f"{sites[name].as_uri()}#theme={theme}"
    done = subprocess.run([BROWSER, *words, address], capture_output=True, text=True, timeout=120, check=False)
    probe = re.search(r'data-probe="(\d+) (\d+) (-?\d+)"', done.stdout)
    assert probe is not None, done.stderr[-2000:]
    figures, drawn, overflow = map(int, probe.groups())
    assert figures == drawn > 0
    assert overflow <= 0, "the page scrolls sideways"
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
