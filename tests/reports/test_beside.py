"""History and comparison inside the site: there where they exist, framed like every page, whole by themselves."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from reports import website
from reports.beside import beside
from reports.folder import MARKER
from reports.page import PLOTLY
from tests.reports import made, test_compare, test_history
from tests.reports.conftest import pages_of
from tests.reports.reading import read_page
from tests.reports.test_site import Parsed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A site beside which both were drawn; their folders are gone afterwards."""
    top = tmp_path_factory.mktemp("beside")
    test_history.build(top / "h", test_history.story())
    test_compare.build(top / "c", *test_compare.runs())
    shutil.move(top / "h" / "site", top / "site-history")
    shutil.move(top / "c" / "site", top / "site-compare")
    made.cpu_run(top / "run")
    written = website.build(website.find(top / "none", top / "none", [top / "run"]), top / "site", top)
    shutil.rmtree(top / "site-history")
    shutil.rmtree(top / "site-compare")
    return top / "site", pages_of(top / "site", written)


def test_they_are_in_the_navigation_of_every_page(site: tuple[Path, dict[str, str]]) -> None:
    for name, text in site[1].items():
        if name == "summary.html":
            continue
        up = "../" * name.count("/")
        head = text.split("<main")[0]
        assert f'<a href="{up}history/index.html"' in head and f'<a href="{up}compare/index.html"' in head, name
    for name in ("history/index.html", "compare/index.html"):
        assert f'<a href="../{name}" aria-current="page">' in site[1][name]


def test_they_are_whole(site: tuple[Path, dict[str, str]]) -> None:
    folder, pages = site
    mine = {name: text for name, text in pages.items() if name.startswith(("history/", "compare/"))}
    assert {"history/index.html", "compare/index.html"} < set(mine) and any("history/lines-" in name for name in mine)
    for name, text in mine.items():
        for address in Parsed(text).addresses:
            path = urlsplit(address).path or Path(name).name
            assert not urlsplit(address).scheme and (folder / name).parent.joinpath(unquote(path)).is_file(), address
    assert (folder / "history" / "changes.json").is_file() and (folder / "compare" / "compare.json").is_file()
    assert "When did it change, and why?" in pages["history/index.html"]
    assert [path.name for path in folder.rglob("plotly-*.js")] == [PLOTLY]


def test_nothing_is_linked_that_is_not_there(tmp_path: Path) -> None:
    made.cpu_run(tmp_path / "run")
    strange = tmp_path / "site-history"
    strange.mkdir()
    (strange / "index.html").write_text("somebody else's")
    assert beside(tmp_path / "site") == []
    (strange / MARKER).write_text("ours, but not a page of ours")
    assert beside(tmp_path / "site") == []
    written = website.build(
        website.find(tmp_path / "n", tmp_path / "n", [tmp_path / "run"]), tmp_path / "site", tmp_path
    )
    assert not [path for path in written if "history/" in read_page(path).split("<main")[0]]


def test_regressions_can_be_shown_alone(site: tuple[Path, dict[str, str]]) -> None:
    compare, history = site[1]["compare/index.html"], site[1]["history/index.html"]
    assert 'data-name="verdict"' in compare and 'value="slower"' in compare and "Regressions only" in compare
    assert compare.count('data-verdict="slower"') == 3 and '"meta":{"verdict":"slower"}' in compare
    assert 'data-name="change"' in history and 'data-change="slower"' in history and "Regressions only" in history
