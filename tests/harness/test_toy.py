"""A second, trivial operation is one contract, one reference and one workload: no edit anywhere else."""

from __future__ import annotations

import json

import pytest

from tests.reports.reading import read_page


def test_pytest_measures_it_and_the_report_shows_it(checkout):
    done = checkout.python("-m", "pytest", "benches", "--tier", "smoke", "--budget", "12", "--benchmark-json", "b.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed, 2 skipped" in done.stdout
    assert "toy.product/square/n256   base: plain/reference" in done.stdout
    shown = json.loads((checkout.folder / "b.json").read_text())["benchmarks"]
    assert {b["group"] for b in shown} == {"toy.product/square/n64", "toy.product/square/n256"}
    assert all(b["stats"]["median"] > 0 and b["extra_info"]["latency"] > 0 for b in shown)
    report = checkout.python("-m", "reports", "--out", "site")  # reports/ is a link to the real one
    assert report.returncode == 0, report.stdout + report.stderr
    page = report.stdout.strip().splitlines()[-1].removeprefix("Open ")
    assert (checkout.folder / page).is_file()
    cases = {p.stem: read_page(p) for p in (checkout.folder / "site").rglob("case/*.html")}
    for size in ("n64", "n256"):
        assert "plain/transposed" in cases[f"toy.product--square--{size}"]


def test_deselected_nodes_still_get_baseline_and_reference(checkout):
    done = checkout.python("-m", "pytest", "benches", "--budget", "4", "-k", "transposed and n64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "added for comparison: plain/reference" in done.stdout
    assert "1 passed" in done.stdout


def test_one_study_of_several_is_measured_alone(checkout):
    bench = (checkout.folder / "benches/bench_toy.py").read_text()
    (checkout.folder / "benches/bench_other.py").write_text(bench.replace('STUDY = "toy"', 'STUDY = "other"'))
    done = checkout.python("-m", "pytest", "benches", "--study", "toy", "--budget", "4", "-k", "n64")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 1 skipped" in done.stdout


def test_a_failing_contender_fails_its_node_only(checkout):
    mine = checkout.implementation(
        '@implementation("toy.product", technique="plain", kind="optimized")\n'
        "def wrong(w, shape):\n    return lambda x: x\n"
    )
    done = checkout.python("-m", "pytest", "benches", "--budget", "8", "-k", "n64", "--impl", mine)
    assert done.returncode == 1
    assert "incorrect: output is off by" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


def test_collect_only_measures_nothing(checkout):
    done = checkout.python("-m", "pytest", "benches", "--collect-only", "-q")
    assert "toy.product/square/n64/plain/transposed" in done.stdout
    assert not list(checkout.folder.glob("runs/*/run.jsonl"))


def test_a_run_resumes_without_measuring_again(checkout):
    _, first = checkout.measure("--case", "toy.product/square/n64")
    done, second = checkout.measure("--resume", first.folder.name)
    assert first.folder == second.folder
    assert done.returncode == 0
    before = {(r.case, r.contender): r.value("latency") for r in first.records}
    after = {(r.case, r.contender): r.value("latency") for r in second.records}
    assert before.items() <= after.items() and len(after) == 2 * len(before)


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (("--tier", "smoke"), {}, "it was begun with TIER=cpu"),
        (("--model", "other"), {}, "it was begun without MODEL="),
        ((), {"label": "another machine"}, "its machine is another machine"),
        ((), {"git": {"commit": "f00"}}, "its commit is f00"),
    ],
)
def test_a_run_of_another_kind_is_not_continued(checkout, words, change, said):
    _, run = checkout.measure("--case", "toy.product/square/n64")
    path = run.folder / "run.jsonl"
    first, *rest = path.read_text().splitlines()
    header = json.loads(first)
    header["machine"].update(change)
    path.write_text("\n".join([json.dumps(header), *rest]) + "\n")
    before = path.read_text()
    done = checkout.python("-m", "harness.run", "--resume", run.folder.name, *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert path.read_text() == before


def test_the_budget_leaves_out_what_does_not_fit_and_says_so(checkout):
    done = checkout.python("-m", "harness.run", "--budget", "0.01")
    assert "left out, the budget was spent: toy.product/square/n256" in done.stdout


def test_the_list_gives_reasons(checkout):
    done = checkout.python("-m", "harness.run", "--list")
    assert done.returncode == 0
    assert "runs: plain/reference, plain/transposed" in done.stdout
    assert "not here: plain/compiled: compiling costs" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--study", "tyo"), "ERROR: STUDY=tyo is unknown; did you mean toy?"),
        (("--resume", "never"), "ERROR: RESUME=never"),
        (("--budget", "nan"), "ERROR: BUDGET=nan is not a number of seconds above 0"),
        (("--budget", "-3"), "ERROR: BUDGET=-3 is not"),
        (("--runs", "/proc/none"), "ERROR: /proc/none cannot be written"),
        (("-n", "2"), "ERROR: benchmarks are not run with -n"),
    ],
)
def test_pytest_refuses_with_one_sentence(checkout, words, said):
    done = checkout.python("-m", "pytest", "benches", *words)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert said in done.stderr and "Traceback" not in done.stdout + done.stderr
    assert "error" not in done.stdout
