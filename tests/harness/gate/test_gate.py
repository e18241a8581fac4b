"""The timing gate on a repository of its own: every way in which a revision can be bad has its code and a sentence.

What is faster is never asserted: budgets here are too small to know, and so most verdicts are "unclear".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
PLAIN = "return lambda x: x @ weights"
CASES = """
from impls.toy.contract import Square
from harness import Workload

NAMES = {names!r}

def cases(device):
    return [(Workload("toy.product", "square", "n16", Square(16), tiers=()), tuple("plain/" + n for n in NAMES))]
"""
BODIES = {  # the base's, the head's (None: there is none), the kind of case, and what is said of it
    "same": (PLAIN, PLAIN, None, ""),
    "wrong": (PLAIN, "return lambda x: x @ weights + 1", "incorrect", "incorrect: output is off by"),
    "late": (
        PLAIN,
        "calls = []\n    return lambda x: calls.append(1) or (x @ weights if len(calls) < 40 else x)",
        "",
        "",
    ),
    "raising": (PLAIN, "raise ValueError('no such thing')", "incorrect", "error: ValueError: no such thing"),
    "leaving": (PLAIN, "return lambda x: sys.exit(3)", "incorrect", "error: called exit(3)"),
    "killed": (PLAIN, "os.kill(os.getpid(), 9)", "incorrect", "crashed: its process was killed by SIGKILL"),
    "hanging": (PLAIN, "time.sleep(600)", "incorrect", "timeout: no answer for 4 s; it was stopped"),
    "meddling": (PLAIN, "torch.set_num_threads(3)\n    return lambda x: x @ weights", "incorrect", "number of threads"),
    "gone": (PLAIN, None, "missing", "the head has no plain/gone for toy.product"),
    "fresh": (None, PLAIN, "new", "the base has no plain/fresh for toy.product"),
    "mended": ("return lambda x: x", PLAIN, "incomparable", "the base's own code fails, incorrect: output is off"),
    "broken": ("os._exit(4)", PLAIN, "incomparable", "the base's own code fails, crashed: its process ended with exit"),
}
BODIES["late"] = (*BODIES["late"][:2], "incorrect", "incorrect: output is off by")


def contenders(bodies):
    lines = ["import os, sys, time", "import torch", "from harness import implementation", ""]
    for name, body in bodies.items():
        if body is not None:
            lines.append("@implementation('toy.product', technique='plain', kind='optimized')")
            lines.append(f"def {name}(weights, shape):\n    {body}\n")
    return "\n".join(lines)


class Repository:
    """A git repository with the harness and the toy operation; `base` is a tag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "harness", folder / "harness", ignore=ignore)
        shutil.copytree(ROOT / "tests" / "toy", folder, dirs_exist_ok=True, ignore=ignore)
        (folder / ".gitignore").write_text("runs/\n__pycache__/\n")
        self.write({"same": PLAIN})
        self.git("init", "-q", "-b", "main")
        self.commit("base")
        self.git("tag", "base")

    def git(self, *words):
        who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=self.folder, check=True, capture_output=True)

    def commit(self, title):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", title)

    def write(self, bodies, names=None):
        (self.folder / "impls/toy/many.py").write_text(contenders(bodies))
        (self.folder / "benches/gate_cases.py").write_text(CASES.format(names=list(bodies if names is None else names)))

    def gate(self, *words, base="base", only=("--only", "timing")):
        """What it printed, its exit status and gate.json, if there is one; leaves nothing temporary behind."""
        temporary = self.folder.parent / f"tmp-{self.folder.name}"
        temporary.mkdir(exist_ok=True)
        words = ["--base", base, "--device", "cpu", "--timeout", "4", "--budget", "1", *only, *words]
        done = subprocess.run(
            [sys.executable, "-m", "harness.gate", *words],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert not list(temporary.glob("whalebench-gate*")), "the base's files stay behind"
        assert "Traceback" not in done.stdout + done.stderr
        reports = sorted((self.folder / "runs").glob("gate-*/gate.json"))
        found = json.loads(reports[-1].read_text()) if reports else None
        return done.stdout + done.stderr, done.returncode, found, reports[-1].parent if reports else None


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


@pytest.fixture(scope="module", params=[(), ("--base-python", sys.executable)], ids=["together", "apart"])
def broken(request, tmp_path_factory):
    """A gate run in which each contender is bad in its own way, the revisions in one process, or each in its own."""
    repository = Repository(tmp_path_factory.mktemp("gate") / "repository")
    repository.write({name: base for name, (base, _, _, _) in BODIES.items()})
    repository.commit("base")
    repository.git("tag", "-f", "base")
    repository.write({name: head for name, (_, head, _, _) in BODIES.items()})
    return repository.gate(*request.param)


@pytest.mark.parametrize("name", BODIES)
def test_each_bad_revision_is_told_by_kind_and_reason(broken, name, request):
    case = next(c for c in broken[2]["timing"]["cases"] if c["contender"] == f"plain/{name}")
    kind, said = BODIES[name][2:]
    if kind is None:
        assert case["kind"] in ("same", "faster", "slower", "unclear") and case["rounds"] >= 24
        assert case["processes"] >= (2 if "apart" in request.node.name else 3) and case["head"]["ratio"] > 0
        assert case["canary"]["ratio"] != case["head"]["ratio"]
    else:
        assert case["kind"] == kind and said in case["reason"]


def test_the_gravest_decides_and_every_report_says_so(broken):
    printed, status, found, folder = broken
    assert status == found["code"] == 5 and "gate: exit code 5: incorrect result" in printed
    assert "with changes in 1 file" in found["head"]
    text = (folder / "gate.md").read_text()
    assert text.startswith("### whalebench gate: incorrect result (exit code 5)") and "plain/wrong" in text
    suites = {suite.get("name"): suite for suite in ElementTree.parse(folder / "gate.xml").getroot()}
    tests = {test.get("name"): [tag.tag for tag in test] for test in suites["timing"]}
    assert tests["toy.product/square/n16 plain/wrong"] == ["failure"]
    assert (
        tests["toy.product/square/n16 plain/mended"] == ["skipped"]
        and tests["toy.product/square/n16 plain/fresh"] == []
    )
    assert int(suites["timing"].get("failures")) == sum(tags == ["failure"] for tags in tests.values())
    assert len(suites["gate"].findall("testcase/failure")) == 1


def test_two_environments_are_named(broken, request):
    said = "each revision had an environment of its own, base -> head: the same versions" in broken[0]
    assert said == ("apart" in request.node.name)


def test_rounds_are_kept(broken):
    rounds = np.load(broken[3] / "rounds.npz")
    arms = {name.rsplit(" ", 1)[1] for name in rounds.files if "plain|same" in name}
    assert arms == {"base", "control", "head", "slowed"}


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--base", "nowhere"], 2, "BASE=nowhere is no revision here; git fetch may bring it"),
        (["--base", ""], 2, "which revision is the base?"),
        (["--base", "-x"], 2, ""),
        (["--budget", "0"], 2, "BUDGET=0 is not a number of seconds above 0"),
        (["--base-python", "no/python"], 2, "BASE_PYTHON=no/python is no program that can be run"),
    ],
)
def test_requests_that_cannot_be_met(repository, words, code, said):
    printed, status, _, _ = repository.gate(*words)
    assert status == code and said in printed


def test_outside_a_repository(repository):
    shutil.rmtree(repository.folder / ".git")
    environment = {"GIT_CEILING_DIRECTORIES": str(repository.folder.parent)}
    os.environ.update(environment)
    try:
        printed, status, _, _ = repository.gate()
    finally:
        del os.environ["GIT_CEILING_DIRECTORIES"]
    assert status == 2 and "is not in a git repository" in printed


def test_a_head_that_does_not_load(repository):
    (repository.folder / "impls/toy/many.py").write_text("import nothing_of_this_name\n")
    printed, status, found, _ = repository.gate()
    assert status == found["code"] == 4
    assert "the working tree does not load: ModuleNotFoundError: No module named 'nothing_of_this_name'" in printed


def test_a_base_that_does_not_load(repository):
    (repository.folder / "impls/toy/many.py").write_text("import os\nos._exit(7)\n")
    repository.commit("broken")
    repository.write({"same": PLAIN})
    printed, status, _, _ = repository.gate(base="HEAD")
    assert status == 6 and "the base does not load with the harness of the working tree" in printed
    assert "exit status 7" in printed


def test_a_base_without_implementations(repository):
    repository.git("rm", "-rqf", "impls")
    repository.commit("none")
    shutil.copytree(ROOT / "tests/toy/impls", repository.folder / "impls")
    printed, status, _, _ = repository.gate(base="HEAD")
    assert status == 6 and "has no impls/ to compare with" in printed


def test_a_renamed_case_is_a_loss_of_coverage(repository):
    file = repository.folder / "benches/gate_cases.py"
    file.write_text(file.read_text().replace('"n16"', '"sixteen"'))
    repository.git("checkout", "-q", "--detach", "base")
    (repository.folder / "requirements").mkdir()
    (repository.folder / "requirements" / "torch.txt").write_text("torch==9\n")
    printed, status, found, _ = repository.gate()
    assert status == 4 and found["timing"]["code"] in (0, 1, 3)
    assert "missing: toy.product/square/n16 plain/same: the base lists this case, the head does not" in printed
    assert "the toolchain changed (requirements/torch.txt)" in printed
    assert "impls/ is the same in both revisions" in printed


def test_a_changed_contract_is_incomparable_and_nothing_else_is_left(repository):
    contract = repository.folder / "impls/toy/contract.py"
    contract.write_text(contract.read_text().replace("flops=2 * n**3", "flops=3 * n**3"))
    printed, status, found, _ = repository.gate()
    assert status == 6 and found["timing"]["cases"][0]["kind"] == "incomparable"
    assert "the contract changed: cost changed from" in printed


def test_it_can_be_stopped(repository):
    with tempfile.TemporaryDirectory() as temporary:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.gate", "--base", "base", "--only", "timing", "--budget", "60"],
            cwd=repository.folder,
            env={**os.environ, "TMPDIR": temporary, "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None and "timing gate" in process.stdout.readline()
        while not list(Path(temporary).glob("whalebench-gate*/impls_slowed")):
            assert process.poll() is None
        process.terminate()
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == 130 and "stopped: nothing was decided" in printed and "Traceback" not in printed
        assert not list(Path(temporary).glob("whalebench-gate*"))
