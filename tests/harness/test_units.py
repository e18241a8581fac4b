"""Numbers as people read them, in the terminal and on pages."""

from __future__ import annotations

import pytest

from harness.record import Figure, Record
from harness.terminal import table
from harness.units import (
    GAP,
    MISSING,
    TIMES_SIGN,
    digits,
    duration,
    full,
    interval,
    length,
    listed,
    plain,
    show,
    some,
    tidy,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (123.4, "ns", "123 ns"),
        (12_345.0, "ns", "12.3 µs"),
        (1.5e9, "ns", "1.50 s"),
        (0.0021, "s", "2.10 ms"),
        (999.9, "ns", "1,000 ns"),
        (1152, "bytes", "1.15 kB"),
        (150e9, "bytes", "150 GB"),
        (4.1e12, "bytes/s", "4.10 TB/s"),
        (6.9e14, "FLOP/s", "690 TFLOP/s"),
        (0.63, "share", "63 %"),
        (1.07, "share", "107 %"),
        (0.312, "ratio", "0.312\u00d7"),
        (0.0031, "ratio", "0.00310"),
        (2e-5, "ratio", "2.0e-05"),
        (9.0, "count", "9"),
        (93_200, "tokens/s", "93.2 k tokens/s"),
        (None, "ns", MISSING),
        (0.0, "bytes", "0 B"),
    ],
)
def test_values_read_well(value: float | None, unit: str, text: str) -> None:
    assert plain(show(value, unit)) == text


def test_an_interval_shares_the_unit_of_its_value() -> None:
    assert plain(full(Figure(1.01e6, 0.98e6, 1.03e6), "ns")) == "1.01 ms [0.980, 1.03]"
    assert interval(Figure(5.0), "ns") == "" and interval(None, "ns") == ""


@pytest.mark.parametrize("value", [1e-3, 0.0456, 9.996, 99.95, 123456.0, 7e8])
def test_digits_keep_three_significant_ones(value: float) -> None:
    assert float(digits(value).replace(",", "")) == pytest.approx(value, rel=5e-3)


def test_lengths() -> None:
    assert [length(v) for v in (512, 1000, 4096, 131072, 2**20, 1300.4)] == [
        "512",
        "1,000",
        "4K",
        "128K",
        "1M",
        "1,300",
    ]


def test_counts_and_lists_in_sentences() -> None:
    assert [some(1, "case"), some(0, "case"), some(1200, "case")] == ["1 case", "0 cases", "1,200 cases"]
    assert [listed(list(word)) for word in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


def test_durations_and_readings() -> None:
    assert [duration(s) for s in (-3, 12.4, 59.6, 100, 3661)] == ["0s", "12s", "1m00s", "1m40s", "61m01s"]
    assert [tidy(v) for v in (1755, 512.5, 0.25)] == ["1,755", "512", "0.250"]


def record(name: str, **changes: object) -> Record:
    """A record of one case."""
    known = {"status": "passed", "figures": {"latency": Figure(12_300.0, 12_100.0, 12_600.0)}, "baseline": "mha/sdpa"}
    return Record("o/m/s", "st", "o", "m", "s", {}, "mha", name, "library", **(known | changes))  # type: ignore[arg-type]


def test_the_terminal_writes_values_as_the_pages_do() -> None:
    figures = {"latency": Figure(24.6e6), "ratio": Figure(2.0), "floor_share": Figure(0.41), "resident": Figure(1.5e9)}
    bare = record("slow", figures=figures, timing={"suspect": True, "pairing": "unpaired"})
    failed = record("wrong", status="incorrect", reason="error 0.31", figures={})
    absent = record("gone", status="unavailable", reason="no GPU", figures={})
    lines = table([bare, record("sdpa"), failed, absent])
    assert not [line for line in lines if GAP in line or "not recorded" in line]
    assert lines[3].split()[1:6] == ["sdpa", "12.3", "µs", "[12.1,", "12.6]"]
    assert lines[4].split()[1:] == ["slow", "24.6", "ms!", "-", f"2.00{TIMES_SIGN}~", "41", "%", "1.50", "GB", "-", "-"]
    assert len({len(line) for line in lines[2:5]}) == 1
    assert lines[5:] == ["  mha/wrong: INCORRECT: error 0.31", "  1 cannot run here (make list says why)"]
