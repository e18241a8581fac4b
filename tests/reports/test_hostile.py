"""Records whose every word is markup, and contenders that ended in every way there is."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.record import STATUSES, Figure, Header, Metric, Record, RunWriter
from reports import website
from tests.reports import made
from tests.reports.conftest import pages_of

EVIL = "<img src=x onerror=alert(1)>&amp;\"'</script>"
OURS = (
    "html head meta title link script body header nav main footer section article div p span a strong b i small sup "
    "code h1 h2 h3 figure figcaption details summary table thead tbody tr th td ul li dl dt dd label select option "
    "button input style svg line circle"
)


class Elements(HTMLParser):
    """Elements, attributes and figures of a page as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.specs: list[Any] = []
        self._json = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._json = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        self._json = False

    def handle_data(self, data: str) -> None:
        if self._json:
            self.specs.append(json.loads(data))
        else:
            self.texts.append(data)


def strings(value: Any) -> list[str]:
    """Every string inside JSON data."""
    if isinstance(value, str):
        return [value]
    found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in found for text in strings(item)]


def site(top: Path, records: list[Record], header: Header) -> dict[str, str]:
    """Pages of a run with these records."""
    writer = RunWriter(top / "run")
    writer.header(header)
    for record in records:
        writer.record(record, header.metrics)
    found = website.find(top / "none", top / "none", [top / "run"])
    assert found.problems == []
    return pages_of(top / "site", website.build(found, top / "site", top))


def decode(technique: str, name: str, length: int, **changes: Any) -> Record:
    """A bare decode record of one layer."""
    latency = Figure(1e6 * length, 0.9e6 * length, 1.1e6 * length)
    shape = {"model": {"layers": 2, "dtype": EVIL}, "batch": 1, "length": length, "new_tokens": 1, "cache": EVIL}
    known: dict[str, Any] = {"figures": {"latency": latency, "floor": Figure(10.0), "state": Figure(64.0 * length),
                                         EVIL: Figure(3.0)}}  # fmt: skip
    case = f"attention.decode/{EVIL}/b1-s{length}"
    record = Record(case, "attention", "attention.decode", EVIL, f"b1-s{length}", shape, technique, name, "library",
                    "passed", **known)  # fmt: skip
    return replace(record, **changes)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pages of a run in which markup stands wherever a name, reason, unit or fact can stand."""
    records = []
    for length in (512, 1024):
        for technique in ("mha", "mla", EVIL):
            words = {"doc": EVIL, "layout": EVIL, "source": {"file": EVIL, "digest": EVIL}, "baseline": f"mha/{EVIL}",
                     "verification": {"error": EVIL, "limit": 1.0, "checked": [EVIL], "precision": EVIL},
                     "timing": {"clock": EVIL, "pairing": EVIL, "stopped": EVIL},
                     "telemetry": {"throttle": [EVIL], "power_w": {"median": 3.0}}}  # fmt: skip
            records.append(decode(technique, EVIL, length, **words))
            records.append(decode(technique, "wrong", length, status="error", reason=EVIL, figures={}))
            records.append(decode(technique, "gone", length, status="unavailable", reason=EVIL, figures={}))
    metrics = {**made.METRICS, EVIL: Metric(EVIL, EVIL, "lower", EVIL)}
    machine = {"label": EVIL, "cpu": {EVIL: EVIL}, "gpus": [{"name": EVIL, "memory_bytes": 1e9, "processes": [EVIL]}],
               "software": {EVIL: [EVIL]}, "git": {"commit": EVIL, "branch": EVIL, "dirty": True}}  # fmt: skip
    options = {"device": "cuda", "study": EVIL, "model": EVIL}
    header = Header(EVIL, EVIL, machine, {"matrix": {EVIL: 1.0}}, options, metrics)
    return site(tmp_path_factory.mktemp("hostile"), records, header)


def test_no_word_of_a_record_becomes_markup(hostile: dict[str, str]) -> None:
    assert len(hostile) == 9
    for name, text in hostile.items():
        page = Elements(text)
        assert page.tags <= set(OURS.split()) and not [word for word in page.attributes if word.startswith("on")], name
        assert any("<img src=x" in text for text in page.texts), name


def test_no_word_of_a_record_becomes_markup_in_a_figure(hostile: dict[str, str]) -> None:
    """Plotly reads some tags in labels, names and hover texts."""
    found = [s for text in hostile.values() for spec in Elements(text).specs for s in strings(spec)]
    assert any("&lt;img" in text for text in found)
    assert not [text for text in found if "<" in text.replace("<extra></extra>", "")]


FAILED = [status for status in STATUSES if status != "passed"]


@pytest.mark.parametrize("status", FAILED)
def test_what_did_not_pass_is_shown_with_its_reason_and_no_figure(tmp_path: Path, status: str) -> None:
    reason = f"why it is {status}: 1 < 2"
    records = [decode("mha", "good", 512, figures={"latency": Figure(1e6)})]
    records.append(decode("mla", "bad", 512, status=status, reason=reason, figures={}))
    pages = site(tmp_path, [replace(r, model="m", case="attention.decode/m/b1-s512") for r in records], made.header())
    told = html.escape(reason)
    for name in ("index.html", "2026-03-01T10-00-00-gpu/attention.html"):
        assert told in pages[name], name
    case = next(text for name, text in pages.items() if "/case/" in name)
    row = next(part for part in case.split("<tr") if "mla/bad" in part)
    assert told in row and "µs" not in row and "\N{MULTIPLICATION SIGN}" not in row
    assert ("Failures" in case) == (status != "unavailable")
    assert "not both measured" in pages["2026-03-01T10-00-00-gpu/attention.html"]
