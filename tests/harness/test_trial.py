"""A trial is measured, recorded and shown like any case, and a contender that cheats or breaks costs itself alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from harness import Course, Operation, Trial, Workload, implementation, operation
from harness.keep import keep
from harness.record import load_samples
from harness.registry import Registry
from harness.trial import Trials
from tests.reports.reading import read_page

CASE = "descent.walk/slope/s40"


@dataclass(frozen=True)
class Shape:
    """Of nothing."""


@pytest.fixture
def trials(checkout):
    """A checkout with `toy_trial` as a study of its own."""
    checkout.add("tests/toy_trial")
    return checkout


def test_pytest_measures_it_and_the_report_shows_it(trials):
    done = trials.python("-m", "pytest", "benches", "--study", "descent", "--tier", "smoke", "--budget", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout and f"{CASE}   base: plain/reference" in done.stdout
    report = trials.python("-m", "reports")
    assert report.returncode == 0, report.stdout + report.stderr
    page = read_page(next((trials.folder / "reports/site").rglob("case/descent.walk--slope--s40.html")))
    for told in ("plain/heavy", "begins like plain/reference", "last step", "64 numbers", "40 of 40"):
        assert told in page
    assert "against the floor" not in page and "Cost and floor" not in page


def test_the_record_says_where_it_ended_how_long_a_step_took_and_what_was_checked(trials):
    done, run = trials.measure("--case", CASE, "--study", "descent")
    assert done.returncode == 0, done.stdout + done.stderr
    records = {r.implementation: r for r in run.records}
    plain, heavy = records["reference"], records["heavy"]
    assert plain.status == heavy.status == "passed"
    assert records["compiled"].reason == "a trial is not compiled as a whole; its contenders compile what they repeat"
    assert plain.value("left") == pytest.approx(0.98**40, rel=1e-5) and heavy.value("left") < plain.value("left")
    assert heavy.value("steps") == 40 and heavy.timing["stopped"] == "last step" and heavy.timing["planned"] == 40
    assert heavy.value("latency") == pytest.approx(np.median(load_samples(run.folder, heavy)))
    assert heavy.value("throughput") == pytest.approx(64e9 / heavy.value("latency"))
    assert heavy.timing["pairing"] == "paired" and heavy.value("ratio") > 0 and heavy.baseline == "plain/reference"
    assert plain.value("floor") is None and plain.value("flops") is None
    assert plain.value("resident") == 3 * 256  # the target, the place and the speed; the copied target only once
    assert plain.value("peak") >= 256
    assert heavy.series["step"] == list(range(1, 41)) and heavy.series["loss"][0] == plain.series["loss"][0]
    values = load_samples(run.folder, heavy, ":value")
    kept = keep(run, trials.folder / "kept")
    assert load_samples(kept, heavy, ":value").tolist() == values.tolist()
    assert values.size == 40 and values[1] == pytest.approx(heavy.series["loss"][0], rel=1e-6)
    assert heavy.verification["checked"] == [
        "every step finite", "fell", "begins alike when set up", "begins like plain/reference",
    ]  # fmt: skip
    assert heavy.verification["first"] == heavy.verification["again"] == pytest.approx(values[0], rel=1e-6)
    assert heavy.verification["end"] < heavy.verification["start"] and heavy.verification["data"] == "64 numbers"
    assert plain.verification["reference"] is None


def test_time_that_is_up_ends_it_early_and_it_says_so(trials):
    bench = trials.folder / "benches/bench_descent.py"
    bench.write_text(bench.read_text().replace("(40,)", "(1000000,)"))
    _, run = trials.measure("--case", CASE.replace("s40", "s1000000"), "--study", "descent", "--budget", "2")
    for record in (r for r in run.records if r.status != "unavailable"):
        assert record.status == "passed", record.reason
        assert 10 <= record.value("steps") < 1_000_000 and record.value("steps") == len(record.series["step"])
        assert record.timing["stopped"] == "budget"


WRONG = """
from impls.descent.walk import Walk

def declare(setup):
    return implementation("descent.walk", technique="plain", kind="optimized")(setup)

def stepping(name, advance):
    made = type(name, (Walk,), {"advance": advance})
    implementation("descent.walk", technique="plain", kind="optimized", name=name)(
        lambda w, shape: made(w.target_N, 0.0)
    )

def after(steps, what):
    def advance(course):
        if len(course.noted) == steps:
            return what()
        return Walk.advance(course)
    return advance

def raise_(error):
    raise error

stepping("raises", after(3, lambda: raise_(ValueError("the loss exploded"))))
stepping("not_a_number", after(3, lambda: float("nan")))
stepping("infinite", after(7, lambda: float("inf")))
stepping("exits", after(2, lambda: sys.exit(3)))
stepping("no_memory", after(2, lambda: torch.ones(2**44).sum().item()))
stepping("words", after(0, lambda: "small"))
stepping("a_tensor", after(0, lambda: torch.ones(())))
stepping("does_not_fall", lambda course: 1.0)
stepping("climbs", lambda course: 1.0 + len(course.noted))
stepping("changes_the_threads", lambda c: (torch.set_num_threads(torch.get_num_threads() + 1), Walk.advance(c))[1])

@declare
def another_start(w, shape):
    return Walk(w.target_N * 1.001, 0.0)

setups = []

@declare
def another_setup(w, shape):
    setups.append(1)
    return Walk(w.target_N * len(setups), 0.0)

@declare
def trains_on_what_it_changed(w, shape):
    w.target_N.mul_(0.5)
    return Walk(w.target_N, 0.0)

@declare
def unseeded(w, shape):
    course = Walk(w.target_N, 0.0)
    course.x_N = 0.1 * torch.randn(len(w.target_N))
    return course

@declare
def raises_in_setup(w, shape):
    raise RuntimeError("no such optimizer")

@declare
def a_call(w, shape):
    return lambda x: x

def ending(name, **methods):
    made = type(name, (Walk,), methods)
    implementation("descent.walk", technique="plain", kind="optimized", name=name)(
        lambda w, shape: made(w.target_N, 0.0)
    )

ending("undeclared", figures=lambda course: {"glory": 1.0})
ending("a_harness_figure", figures=lambda course: {"latency": 1.0})
ending("unending", figures=lambda course: {"left": float("inf")})
ending("gaps", series=lambda course: {"loss": [1.0, float("nan")]})
ending("notes_badly", note=lambda course: raise_(KeyError("validation")))

@declare
def honest(w, shape):
    return Walk(w.target_N, 0.5)
"""

VERDICTS = {
    "raises": ("error", "the loss exploded"),
    "not_a_number": ("incorrect", "step 4 returned nan"),
    "infinite": ("incorrect", "step 8 returned inf"),
    "exits": ("error", "called exit(3)"),
    "no_memory": ("oom", ""),
    "words": ("error", "step 1 returned str, expected a number"),
    "a_tensor": ("error", "step 1 returned Tensor"),
    "does_not_fall": ("incorrect", "did not fall: 1 at the start, 1 at the end"),
    "climbs": ("incorrect", "did not fall"),
    "changes_the_threads": ("incorrect", "changed torch's number of threads"),
    "another_start": ("incorrect", "not one start"),
    "another_setup": ("incorrect", "set up again"),
    "trains_on_what_it_changed": ("incorrect", "not one start"),
    "unseeded": ("incorrect", "set up again"),
    "raises_in_setup": ("error", "no such optimizer"),
    "a_call": ("error", "setup returned function without advance, note, figures, series"),
    "undeclared": ("error", "figures hold glory, which descent.walk does not declare"),
    "a_harness_figure": ("error", "figures hold latency"),
    "unending": ("incorrect", "left holds values that are not finite"),
    "gaps": ("incorrect", "loss holds values that are not finite"),
    "notes_badly": ("error", "validation"),
}


def test_wrong_contenders_are_named_and_the_others_measured(trials):
    done, run = trials.measure("--impl", trials.implementation(WRONG), "--case", CASE, "--study", "descent")
    records = {r.implementation: r for r in run.records}
    found = {name: (records[name].status, records[name].reason) for name in VERDICTS}
    wrong = {n: f for n, f in found.items() if f[0] != VERDICTS[n][0] or VERDICTS[n][1] not in (f[1] or "")}
    assert not wrong
    for name in ("reference", "heavy", "honest"):
        assert records[name].status == "passed", records[name].reason
        assert records[name].value("steps") == 40
    assert done.returncode == 1 and "INCORRECT" in done.stdout


DEADLY = """
from impls.descent.walk import Walk

def stepping(name, what, steps=4, pause=0.0):
    class Mine(Walk):
        def advance(self):
            time.sleep(pause)
            if len(self.noted) == steps:
                what()
            return Walk.advance(self)
    implementation("descent.walk", technique="plain", kind="optimized", name=name)(
        lambda w, shape: Mine(w.target_N, 0.0)
    )

stepping("hangs", lambda: time.sleep(1000))
stepping("kills_its_process", lambda: os._exit(7))
stepping("slow", lambda: None, pause=0.2)
"""


def test_a_hanging_step_is_stopped_and_a_long_trial_of_short_steps_is_not(trials):
    words = ("--case", CASE, "--study", "descent", "--timeout", "3", "--budget", "60")
    done, run = trials.measure("--impl", trials.implementation(DEADLY), *words)
    found = {r.implementation: r for r in run.records}
    assert (found["hangs"].status, found["hangs"].reason) == ("timeout", "no answer for 3 s; it was stopped")
    assert found["kills_its_process"].status == "crashed"
    for name in ("reference", "heavy", "slow"):  # the slow one takes 8 s and more, in steps of 0.2
        assert found[name].status == "passed", found[name].reason
        assert found[name].value("steps") == 40
    assert done.returncode == 1


def test_a_trial_with_a_reward_must_rise(trials):
    contract = trials.folder / "impls/descent/contract.py"
    contract.write_text(contract.read_text().replace("Trial(steps", 'Trial(better="higher", steps'))
    climbing = """
from impls.descent.walk import Walk

@implementation("descent.walk", technique="plain", kind="optimized")
def climbing(w, shape):
    class Mine(Walk):
        def advance(self):
            return -Walk.advance(self)
    return Mine(w.target_N, 0.0)
"""
    _, run = trials.measure("--impl", trials.implementation(climbing), "--case", CASE, "--study", "descent")
    found = {r.implementation: r for r in run.records}
    assert found["climbing"].status == "passed" and "rose" in found["climbing"].verification["checked"]
    assert found["heavy"].status == "incorrect" and "did not rise" in found["heavy"].reason


def test_a_start_that_cannot_be_drawn_is_a_reason(trials):
    contract = trials.folder / "impls/descent/contract.py"
    contract.write_text(
        contract.read_text().replace("    return Target(", '    raise OSError("no data")\n    return (')
    )
    done, run = trials.measure("--case", CASE, "--study", "descent")
    found = {r.implementation: r for r in run.records}
    for name in ("reference", "heavy"):
        assert (
            found[name].status == "error" and "what plain begins with could not be had: OSError" in found[name].reason
        )
    assert done.returncode == 1


def test_only_a_trial_can_do_without_inputs_and_cost():
    parts = {"weights": lambda *_: None, "tokens": lambda shape: 1, "baseline": ()}
    with pytest.raises(ValueError, match=r"toy\.made declares no inputs or no cost"):
        Operation("toy.made", **parts)
    assert Operation("toy.made", trial=Trial(steps=lambda shape: 2), **parts).cost(None, "any") is None


def test_a_course_can_bring_steps_alone():
    with pytest.raises(NotImplementedError):
        Course().advance()
    assert Course().note() is None and Course().figures() == {} and Course().series() == {}


def test_the_least_steps_are_taken_however_little_time_there_is():
    class Falling(Course):
        taken = 0

        def advance(self):
            self.taken += 1
            return 1.0 / self.taken

    registry = Registry()
    trial = Trial(steps=lambda shape: 50, least=7)
    parts = {"weights": lambda *_: None, "tokens": lambda shape: 1, "baseline": ()}
    with registry.collecting():
        operation(Operation("toy.falling", trial=trial, **parts))
        implementation("toy.falling", technique="plain", kind="optimized", name="falling")(lambda w, shape: Falling())
    workload = Workload("toy.falling", "toy", "s50", Shape(), tiers=())
    trials = Trials(registry, workload, ["plain/falling"], "cpu", {}, ".", lambda index: None)
    (record,) = trials.run(0.0, "samples/x.npz")
    assert record.status == "passed" and record.value("steps") == 7 and record.timing["stopped"] == "budget"
