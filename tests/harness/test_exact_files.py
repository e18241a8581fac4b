"""Baseline files are read back as written, and damage is found wherever it is; which facts are worse than which."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.baseline import Baseline, Damaged, owner, read, text, write
from harness.deviation import Comparison, Rule, sentences, worst

HEADER = {"reason": "first", "date": "2026-01-01", "torch": "2.13.0"}
FACTS = {
    "a.b/m/one": {
        "mla": {"flops": 12, "load": "3 5 8"},
        "mla/triton": {"status": "compiled", "operators": 3, "operator_list": "mm 2, view 1"},
        "mla/triton settle": {"registers": 30, "spilled": 0},
    },
    "a.b/m/two": {
        "mla/triton": {"status": "compiled", "operators": 3, "operator_list": "mm 2, view 1"},
        "mla/triton settle": {"registers": 30, "spilled": 0},
    },
    "a.c/m/one": {"mla": {"share": 0.25}, "mla/triton settle": {"registers": 30, "spilled": 0}},
}
words = st.text("abc", min_size=1, max_size=3)
values = st.one_of(
    st.integers(-(10**12), 10**12),
    st.sampled_from([0.25, 1e-9, -1.5e300, 1.000000000001]),
    st.just("passed"),
)
subjects = st.builds(lambda name, kernel: f"t/{name} {kernel}".strip(), words, st.sampled_from(["", "k", "k#2"]))
trees = st.dictionaries(words, st.dictionaries(subjects, st.dictionaries(words, values, min_size=1), min_size=1))


@settings(max_examples=60, deadline=None)
@given(trees)
def test_facts_come_back_as_they_were(tmp_path_factory, facts):
    path = tmp_path_factory.mktemp("b") / "b.txt"
    write(path, Baseline(HEADER, facts))
    again = read(path)
    assert again.facts == facts and again.header == HEADER
    assert text(again) == path.read_text()


def test_what_is_the_same_elsewhere_is_written_once():
    lines = text(Baseline(HEADER, FACTS)).splitlines()
    assert "  mla/triton *: like a.b/m/one" in lines and "  mla/triton settle: like a.b/m/one" in lines
    assert sum("registers = 30" in line for line in lines) == 1


def test_a_file_that_ends_anywhere_is_damaged(tmp_path):
    path, whole = tmp_path / "b.txt", text(Baseline(HEADER, FACTS))
    for size in range(len(whole)):
        path.write_text(whole[:size])
        with pytest.raises(Damaged, match=r"b\.txt, line \d+"):
            read(path)


def test_a_line_that_is_changed_lost_or_doubled_is_found(tmp_path):
    path, lines = tmp_path / "b.txt", text(Baseline(HEADER, FACTS)).splitlines(keepends=True)
    for number, line in enumerate(lines):
        for other in ([], [line, line], [re.sub(r"\d", "7", line, count=1) if re.search("[0-689]", line) else "x\n"]):
            path.write_text("".join([*lines[:number], *other, *lines[number + 1 :]]))
            if path.read_text() != "".join(lines):
                with pytest.raises(Damaged, match=r"b\.txt, line \d+"):
                    read(path)


def test_damage_is_said_with_its_line(tmp_path):
    path, whole = tmp_path / "b.txt", text(Baseline(HEADER, FACTS))
    path.write_text(whole.replace("share = 0.25", "share = 0.2"))
    line = whole.splitlines().index("a.c/m/one") + 1
    with pytest.raises(Damaged, match=rf"line {line}: a\.c/m/one does not match its check in line \d+"):
        read(path)


def compared(before, after, **rules):
    comparison = Comparison({name: Rule(*rule) for name, rule in rules.items()}, {})
    found = list(comparison.against({"case": before}, {"case": after}))
    return [f"{d.kind}: {d.said}" for d in found], worst(d.code for d in found)


@pytest.mark.parametrize(
    ("fact", "was", "now", "kind", "code"),
    [
        ("allocations", 3, 4, "worse", 1),
        ("allocations", 4, 3, "better", 0),
        ("tensor_core", 4, 3, "worse", 1),
        ("tensor_core", 3, 4, "better", 0),
        ("peak", 1000, 1512, None, 0),
        ("peak", 1000, 1513, "worse", 1),
        ("peak", 1513, 1000, "better", 0),
        ("flops", 4, 3, "changed", 1),
        ("expert_load", "1 2", "2 1", "changed", 1),
        ("balance", 1.5, 1.6, "worse", 1),
    ],
)
def test_direction_decides(fact, was, now, kind, code):
    said, found = compared({"t/one": {fact: was}}, {"t/one": {fact: now}}, balance=("lower",))
    assert found == code
    assert [one.split(":")[0] for one in said] == ([] if kind is None else [kind])


def test_a_fact_that_is_gone_is_missing_and_one_more_is_new():
    assert compared({"t": {"flops": 1}}, {"t": {}}) == (["missing: t: flops is gone, it was 1"], 4)
    assert compared({"t": {}}, {"t": {"flops": 1}}) == (["new: t: flops is new, 1"], 0)


def test_a_kernel_that_is_launched_no_more_is_no_loss_but_its_contender_is():
    one, kernel = {"t/one": {"status": "compiled"}}, {"t/one down": {"registers": 30}}
    assert compared({**one, **kernel}, one) == (["better: t/one down is launched no more"], 0)
    assert compared(one, {**one, **kernel}) == (["new: t/one down is new"], 0)
    assert compared({**one, **kernel}, {})[1] == 4


def test_cases_with_the_same_deviation_share_a_line():
    before = {name: {"t/one": {"allocations": 1}} for name in ("a", "b", "c")}
    after = {name: {"t/one": {"allocations": 2}} for name in ("a", "b", "c")}
    found = list(Comparison({}, {}).against(before, after))
    assert sentences(found) == ["worse: a and 2 more: t/one: allocations 1 -> 2, more is worse"]


def test_owners():
    assert owner("mla/triton settle#2") == "mla/triton" and owner("mla") == "mla"
