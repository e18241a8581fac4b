"""Lanes, looks and codes of the timing gate, with a worker that answers from a distribution instead of a clock."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest

from harness import exact
from harness.deviation import Deviation
from harness.gate import lane as gate_lane
from harness.gate import run as gate_run
from harness.gate.case import GateCase, broken_proof
from harness.gate.experiment import Journal, Wish, lines
from harness.gate.options import GateOptions
from harness.gate.outcome import MEANINGS, Outcome
from harness.gate.report import junit, markdown
from harness.gate.report import lines as said
from harness.gate.revision import Revision, Stopped
from harness.gate.run import Found, GateRun
from harness.process import WorkerLost
from harness.statistics import Estimate
from harness.verdict import Verdict

BASE = Revision("main", "0123456789abcdef", "a title")


class Worker:
    """Answers as `gate/worker.py` does; `offers` and `visit` are what a test sets."""

    offers = (("op/a", "x/one"), ("op/b", "x/one"))
    lacks: ClassVar = {}
    problem = None
    head = 1.0
    noise = 0.05
    asked: ClassVar = Counter()
    special: ClassVar = {}
    count = itertools.count()

    def __init__(self, options, log, module, python):
        assert module == "harness.gate.worker" and python == ""
        self._rng = np.random.default_rng(next(Worker.count))

    def wait(self):
        if Worker.problem is not None:
            if isinstance(Worker.problem, Exception):
                raise Worker.problem
            return {"event": "cases", "problem": Worker.problem}
        Worker.asked["process"] += 1
        cases = [
            {"case": c, "contender": n, "base": None, "head": None, **Worker.lacks.get(c, {})} for c, n in self.offers
        ]
        return {"event": "cases", "device": "cpu", "software": {"torch": "9"}, "cases": cases}

    def ask(self, do, case="", slowed_by=0.0, **_):
        if do == "renew":
            return self.wait()
        Worker.asked[case] += 1
        special = Worker.special.get(case)
        if isinstance(special, Exception):
            raise special
        if special is not None:
            return {"event": "visited", **special}
        head = Worker.head if case == "op/a" else 1.0
        arms = {"base": 1.0, "control": 1.0, "slowed": 1 + slowed_by, "head": head}
        times = {arm: 1e5 * f * np.exp(self._rng.normal(0, Worker.noise, 120)) for arm, f in arms.items()}
        return {"event": "visited", "rounds": {arm: list(values) for arm, values in times.items()}}

    def kill(self):
        pass


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """A gate run with `Worker`, as a test has changed it."""
    monkeypatch.setattr(gate_lane, "WorkerProcess", Worker)
    monkeypatch.setattr(gate_run, "_cores", lambda: 2)
    monkeypatch.setattr(Worker, "asked", Counter())

    def run(match="", **changes):
        for name, value in changes.items():
            monkeypatch.setattr(Worker, name, value)
        return GateRun(GateOptions(root=str(tmp_path), budget=2.0), tmp_path / "log", match).run()

    return run


def kinds(found):
    return {case.case: case.kind for case in found.cases}


def test_equal_code_passes_after_one_look_of_four_processes(measure):
    found = measure()
    assert kinds(found) == {"op/a": "same", "op/b": "same"} and found.code == 0 and found.broken is None
    assert found.processes == 4 == Worker.asked["op/a"] and found.cases[0].rounds == 480


def test_a_slower_head_is_a_regression(measure):
    found = measure(head=1.2)
    assert kinds(found) == {"op/a": "slower", "op/b": "same"} and found.code == 1


def test_a_faster_head_passes(measure):
    found = measure(head=0.8)
    assert kinds(found)["op/a"] == "faster" and found.code == 0


def test_unclear_cases_alone_are_visited_again_by_fresh_processes(measure):
    found = measure(head=1.03)
    assert kinds(found) == {"op/a": "unclear", "op/b": "same"} and found.code == 3
    assert Worker.asked["op/a"] == 8 and Worker.asked["op/b"] == 4 and found.processes == 8


def test_noise_is_inconclusive(measure):
    found = measure(noise=2.0)
    assert set(kinds(found).values()) == {"unclear"} and found.code == 3
    assert "10 % that were added to the base came out unclear" in found.cases[0].reason


@pytest.mark.parametrize(
    "answer, kind, code",
    [
        ({"changed": "tokens changed from 1 to 2"}, "incomparable", 0),
        ({"failed": {"side": "base", "status": "incorrect", "reason": "off"}}, "incomparable", 0),
        ({"failed": {"side": "head", "status": "incorrect", "reason": "off"}}, "incorrect", 5),
        (WorkerLost(0, "crashed", "it died"), "incomparable", 0),
        (WorkerLost(1, "timeout", "no answer"), "incorrect", 5),
    ],
)
def test_a_case_that_cannot_be_compared_costs_no_other(measure, answer, kind, code):
    found = measure(special={"op/a": answer})
    assert kinds(found) == {"op/a": kind, "op/b": "same"} and found.code == code
    assert Worker.asked["op/a"] <= 2


def test_nothing_comparable_is_never_a_pass(measure):
    changed = {"changed": "all of it"}
    assert measure(special={"op/a": changed, "op/b": changed}).code == 6
    fresh = {"base": "has no x/one"}
    assert measure(special={}, lacks={"op/a": fresh, "op/b": fresh}).code == 4


def test_what_one_revision_lacks(measure):
    found = measure(lacks={"op/a": {"head": "has no x/one"}})
    assert kinds(found)["op/a"] == "missing" and found.code == 4
    found = measure(lacks={"op/a": {"head": "cannot", "base": "cannot"}})
    assert kinds(found)["op/a"] == "incomparable" and found.code == 0


@pytest.mark.parametrize(
    "problem, code, words",
    [
        ({"side": "request", "message": "DEVICE=tpu is unknown"}, 2, "DEVICE=tpu"),
        ({"side": "head", "message": "ImportError: x"}, 4, "the working tree does not load: ImportError: x"),
        ({"side": "base", "message": "ImportError: x"}, 6, "the base does not load"),
        (WorkerLost(1, "crashed", "it died"), 4, "the working tree does not load: it died"),
        (WorkerLost(-1, "crashed", "it died"), 3, "the measuring process does not start: it died"),
        (OSError(13, "Permission denied"), 2, "cannot be written: Permission denied"),
    ],
)
def test_what_does_not_load(measure, problem, code, words):
    with pytest.raises(Stopped, match=words) as stopped:
        measure(problem=problem)
    assert stopped.value.code == code


@pytest.mark.parametrize("answer", [WorkerLost(-1, "crashed", "killed"), RuntimeError("a bug"), {"event": "cases"}])
def test_a_fault_of_the_harness_blames_no_revision(measure, answer):
    with pytest.raises(Stopped) as stopped:
        measure(special={"op/a": answer})
    assert stopped.value.code == 3


def test_no_case_is_nothing_measured(measure):
    with pytest.raises(
        Stopped, match="no gate case has 'zzz' in its name; there are: op/a x/one, op/b x/one"
    ) as stopped:
        measure("zzz")
    assert stopped.value.code == 4
    assert list(kinds(measure("op/b"))) == ["op/b"]


def verdict(kind, value=1.0):
    return Verdict(kind, "so it is", Estimate(value, value - 0.01, value + 0.01), 0.01)


def case(name="op/a", kind="same", head="same", control="same", canary="slower"):
    return GateCase(
        name, "x/one", 0.1, kind, "so it is", True, [], verdict(head), verdict(control), verdict(canary, 1.1)
    )


def found(*cases):
    return Found(cases, "cpu", {}, None, broken_proof(cases), 20.0, 4)


@pytest.mark.parametrize(
    "cases, code, words",
    [
        ([case()], 0, None),
        ([case(), case(canary="unclear", kind="unclear")], 3, None),
        ([case(kind="slower", head="slower")], 1, None),
        ([case(kind="slower", head="slower", control="slower")], 3, "against itself came out slower in op/a x/one"),
        (
            [case(kind="slower", head="slower"), case("op/b", control="faster")],
            3,
            "against itself came out faster in op/b",
        ),
        ([case(kind="slower", head="slower"), case(canary="same")], 3, "slowed by 10 % came out same"),
        ([case(canary="unclear", kind="unclear")], 3, "was noticed in none of 1 cases"),
        ([case(kind="incorrect"), case(control="slower")], 5, "against itself"),
        ([case(kind="incorrect"), case(kind="slower")], 5, None),
        ([case(kind="missing"), case(kind="slower")], 4, None),
        ([case(kind="unclear"), case(kind="slower")], 1, None),
    ],
)
def test_codes_and_proof(cases, code, words):
    one = found(*cases)
    assert one.code == code
    assert (one.broken is None) if words is None else (words in one.broken)


def outcome(timed=None, exactly=None):
    return Outcome(BASE, "working tree at 1111", exact=exactly, timed=timed)


@pytest.mark.parametrize(
    "exact_code, timed_kind, code", [(0, "same", 0), (1, "same", 1), (0, "slower", 1), (5, "slower", 5)]
)
def test_both_gates_have_one_code(exact_code, timed_kind, code):
    exactly = exact.Verdict({exact_code})
    whole = outcome(found(case(kind=timed_kind, head=timed_kind)), exactly)
    assert whole.code == code and said(whole)[-1] == f"gate: exit code {code}: {MEANINGS[code]}"


def test_reports_say_everything_and_survive_strange_words():
    red = Deviation("worse", "op/a", "x/one", "launches", 1, 2, "x/one: launches 1 -> 2, <more> is worse")
    whole = outcome(found(case(kind="slower", head="slower"), case("op/b|`x`", "unclear")), exact.Verdict(set(), [red]))
    whole.remark("a remark with \x1b[31m and & in it")
    text = markdown(whole)
    assert "**slower** `op/a x/one`: so it is" in text and "- worse: op/a: x/one: launches 1 -> 2" in text
    assert "op/b\\|" in text and "noticed in 2" in text
    root = ElementTree.fromstring(junit(whole))
    failures = [failure.get("message") for failure in root.iter("failure")]
    assert any("<more> is worse" in words for words in failures) and len(failures) == 3
    assert len(list(root.iter("skipped"))) == 1
    data = json.loads(json.dumps(whole.to_data()))
    assert data["code"] == 1 and [one["kind"] for one in data["timing"]["cases"]] == ["slower", "unclear"]


def test_markdown_fits_in_a_comment():
    many = [case(f"op/{number}", "slower", "slower") for number in range(2000)]
    assert len(markdown(outcome(found(*many)))) < 65_000


def test_an_experiment_counts_and_goes_on(tmp_path):
    journal = Journal(tmp_path, "c1")
    verdicts = [{"head": {"kind": "same"}, "canary": {"kind": kind}} for kind in ("slower", "unclear", "slower")]
    journal.add({"condition": "quiet", "size": 0.05, "seconds": 1.0, "cases": verdicts})
    (tmp_path / "runs.jsonl").write_text((tmp_path / "runs.jsonl").read_text() + '{"condition": "qui')
    again = Journal(tmp_path, "c1")
    assert len(again.of("quiet")) == 1 and again.counts("quiet", 0.0) == {"same": 3}
    again.add({"condition": "quiet", "size": 0.10, "seconds": 1.0, "cases": verdicts})
    assert len(Journal(tmp_path, "c1").runs) == 2
    assert again.counts("quiet", 0.05) == again.counts("quiet", 0.10) == {"slower": 2, "unclear": 1}
    assert any("quiet, slowed by 10 %: slower at least 95 %" in line for line in lines(again))
    assert not any("quiet, slowed by 5 %" in line for line in lines(again) if "not met" in line)
    assert "no verdict yet: busy, equal" in lines(again)
    with pytest.raises(Stopped, match="is of commit c1 on"):
        Journal(tmp_path, "c2")


@pytest.mark.parametrize(
    "wish, counts, holds",
    [
        (Wish(("slower",), most=1 / 400), {"slower": 1, "same": 399}, True),
        (Wish(("slower",), most=1 / 400), {"slower": 2, "same": 398}, False),
        (Wish(("slower",), least=0.95), {"slower": 95, "unclear": 5}, True),
        (Wish(("slower",), least=0.95), {"slower": 94, "unclear": 6}, False),
        (Wish(("slower",), most=0.0), {}, False),
    ],
)
def test_wishes(wish, counts, holds):
    assert wish.holds(counts) is holds
