"""The exact gate on the toy operation: each kind of regression is caught, better is no failure, damage is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness import baseline
from harness.exact import Verdict, check, main, rewrite
from harness.options import Options

CASES = ("cases",)
CASE = "toy.product/square/n64"
PLAIN = "return lambda x: (x @ weights).clone()"
BODIES = {  # what replaces PLAIN, and what is said of it
    "same": (PLAIN, None),
    "operator": (
        "return lambda x: (x @ weights).view_as(x).clone()",
        "worse: {}: operators 2 -> 3, more is worse (+1 view)",
    ),
    "allocation": ("return lambda x: torch.add(x @ weights, 0)", "worse: {}: allocations 2 -> 4, more is worse"),
    "peak": (
        "return lambda x: (torch.cat((x, x)) @ weights)[:64].clone()",
        "worse: {}: peak 32,768 -> 65,536, more is worse (up to 512 would be none)",
    ),
    "resident": (
        "own = weights.clone()\n    return lambda x: (x @ own).clone()",
        "worse: {}: resident 16,384 -> 32,768, more is worse (up to 512 would be none)",
    ),
    "wrong": ("return lambda x: x @ weights + 1", "incorrect: {} is incorrect: Incorrect: output is off by"),
    "raising": ("raise ValueError('no such thing')", "incorrect: {} is error: ValueError: no such thing"),
    "crashing": ("os._exit(3)", "incorrect: {} is crashed: its process ended with exit status 3"),
    "hanging": ("time.sleep(600)", "incorrect: {} is timeout: no answer for 8 s"),
    "better": ("return lambda x: x @ weights", "better: {}: operators 2 -> 1"),
    "cuda": (PLAIN, "missing: {} cannot run any more: needs an NVIDIA GPU"),
    "gone": ("", "missing: {} is gone"),
}


def write_contenders(folder: Path, bodies: dict[str, str]) -> None:
    lines = ["import os, time", "import torch", "from harness import implementation", ""]
    for name, body in bodies.items():
        needs = "cuda" if name == "cuda" and len(bodies) < len(BODIES) else ""
        lines.append(f"@implementation('toy.product', technique='plain', kind='optimized', needs={needs!r} or ())")
        lines.append(f"def {name}(weights, shape):\n    {body}\n")
    (folder / "impls/toy/many.py").write_text("\n".join(lines))


def options(folder: Path, **more: object) -> Options:
    return Options(root=str(folder), timeout=8.0, **more)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose contenders all are the plain product, and its baseline."""
    from tests.harness.conftest import Checkout

    folder = Checkout(tmp_path_factory.mktemp("kept")).folder
    bench = folder / "benches/bench_toy.py"
    bench.write_text(bench.read_text().replace("(64, 256)", "(64, 96)"))
    write_contenders(folder, dict.fromkeys(BODIES, PLAIN))
    verdict = rewrite(options(folder), "first", kinds=CASES)
    assert verdict.code == 0, verdict.lines()
    return folder


@pytest.fixture(scope="module")
def broken(kept: Path) -> Verdict:
    """The same checkout with every contender broken in its way, and a case less."""
    bench = kept / "benches/bench_toy.py"
    whole = bench.read_text()
    try:
        bench.write_text(whole.replace("(64, 96)", "(64,)"))
        write_contenders(kept, {name: body for name, (body, _) in BODIES.items() if body})
        return check(options(kept), kinds=CASES)
    finally:
        bench.write_text(whole)
        write_contenders(kept, dict.fromkeys(BODIES, PLAIN))


@pytest.fixture
def file(kept: Path, tmp_path: Path) -> Path:
    """A copy of the baseline, to be damaged."""
    return Path(shutil.copy(kept / "benches/baselines/smoke.txt", tmp_path))


@pytest.mark.parametrize("name", BODIES)
def test_what_is_worse_is_said_with_case_and_direction(broken, name):
    mine = [line for line in broken.lines() if f"plain/{name}" in line]
    said = BODIES[name][1]
    if said is None:
        assert not mine
    else:
        kind, rest = said.format(f"plain/{name}").split(": ", 1)
        assert any(line.startswith(f"{kind}: {CASE}: {rest}") for line in mine), mine


def test_a_case_that_vanished_is_a_loss_of_coverage(broken):
    assert [d.case for d in broken.deviations if d.said == "the case is gone"] == ["toy.product/square/n96"]
    assert broken.code == 5  # the gravest
    kinds = [line.split(":")[0] for line in broken.lines()]
    told = ["better", "3 facts are better or new", "incorrect", "missing", "worse", "exact"]
    assert list(dict.fromkeys(kinds)) == told


def test_each_kind_has_its_exit_code(broken):
    codes = {d.subject.removeprefix("plain/"): d.code for d in broken.deviations}
    assert codes["operator"] == codes["allocation"] == codes["peak"] == codes["resident"] == 1
    assert codes["cuda"] == codes["gone"] == 4
    assert codes["wrong"] == codes["raising"] == codes["crashing"] == codes["hanging"] == 5
    assert codes["better"] == 0


def test_the_same_code_passes_and_writes_the_same_file(kept):
    before = (kept / "benches/baselines/smoke.txt").read_bytes()
    verdict = check(options(kept), kinds=CASES)
    assert verdict.code == 0 and verdict.lines() == [f"exact: {verdict.facts} facts compared, exit code 0"]
    assert verdict.facts > 100
    assert "no fact has changed" in "\n".join(rewrite(options(kept), "again", kinds=CASES).lines())
    assert (kept / "benches/baselines/smoke.txt").read_bytes() == before


def test_under_another_torch_it_is_rebase_and_not_red_but_for_what_is_incorrect(kept, file):
    was = baseline.read(file)
    baseline.write(file, replace(was, header={**was.header, "torch": "2.11.0"}))
    before = file.read_bytes()
    write_contenders(kept, {"operator": BODIES["operator"][0]})
    try:
        verdict = check(options(kept), file.parent, CASES)
        assert verdict.code == 0 and verdict.facts == 0
        assert "rebase: smoke.txt holds under torch 2.11.0 (here 2." in verdict.lines()[0]
        write_contenders(kept, {"wrong": BODIES["wrong"][0]})
        assert check(options(kept), file.parent, CASES).code == 5
        refused = rewrite(options(kept), "worse", file.parent, CASES)
        assert refused.code == 5 and "smoke.txt is not written" in "\n".join(refused.lines())
        assert file.read_bytes() == before
    finally:
        write_contenders(kept, dict.fromkeys(BODIES, PLAIN))


def test_a_damaged_baseline_has_its_own_exit_code_and_nothing_is_collected(kept, file):
    file.write_text(file.read_text().replace("allocations = ", "allocations = 1", 1))
    verdict = check(options(kept), file.parent, CASES)
    assert verdict.code == 6 and verdict.lines()[0].startswith(f"error: {file}, line ")
    assert "edited by hand" in verdict.lines()[0] and "make baseline REASON=" in verdict.lines()[0]


def test_a_missing_baseline_has_the_same(kept, tmp_path):
    verdict = check(options(kept), tmp_path, CASES)
    assert verdict.code == 6 and "there is no such baseline" in verdict.lines()[0]


def test_what_cannot_be_collected_is_said(kept):
    verdict = check(options(kept, study="tyo"), kinds=CASES)
    assert verdict.code == 2 and "did you mean toy?" in verdict.lines()[0]
    write_contenders(kept, {"broken": "return ("})
    try:
        verdict = check(options(kept), kinds=CASES)
        assert verdict.code == 4 and "SyntaxError" in verdict.lines()[0]
    finally:
        write_contenders(kept, dict.fromkeys(BODIES, PLAIN))


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--write"], "for a reason"), (["--write", "--reason", "r", "--study", "ffn"], "leave STUDY= out")],
)
def test_a_baseline_is_rewritten_whole_and_for_a_reason(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(kept, monkeypatch, capsys):
    monkeypatch.chdir(kept)
    assert main(["--write", "--reason", "r", "--only", "cases", "--baselines", "/proc/none"]) == 2
    assert "/proc/none cannot be used" in capsys.readouterr().err


KERNEL = """
import torch, triton, triton.language as tl
from harness import implementation

@triton.jit
def total(x_ptr, y_ptr, N: tl.constexpr):
    place = tl.arange(0, N)
    x = tl.load(x_ptr + place[:, None] * N + place[None, :])
    tl.store(y_ptr + place[:, None] * N + place[None, :], tl.dot(x, tl.trans(x)) + tl.cumsum(x, 0))

@implementation("toy.product", technique="plain", kind="optimized", name="triton", needs=("cuda", "triton"))
def product(weights, shape):
    def call(x):
        y = torch.empty_like(x)
        total[(1,)](x, y, N=128{limit})
        return y
    return call
"""


def test_a_kernel_that_spills_and_one_launched_twice_are_caught(kept):
    """Compiled for sm_90 without a GPU; the reasons it would be slower there are counted here."""
    pytest.importorskip("triton")
    path, kinds = kept / "impls/toy/kernel.py", ("kernels",)
    path.write_text(KERNEL.replace("{limit}", ""))
    try:
        assert rewrite(options(kept), "first", kinds=kinds).code == 0
        facts = baseline.read(kept / "benches/baselines/kernels.txt").facts[CASE]
        assert facts["plain/triton"]["triton_launches"] == 1 and facts["plain/triton total"]["spilled"] == 0
        assert facts["plain/triton total"]["shared"] > 0 and facts["plain/triton total"]["tensor_core"] > 0
        again = "        total[(1,)](y, x, N=16)\n        return y"
        worse = KERNEL.replace("{limit}", ", maxnreg=128").replace("        return y", again)
        path.write_text(worse)
        verdict = check(options(kept), kinds=kinds)
        said = "\n".join(verdict.lines())
        assert verdict.code == 1, said
        assert "plain/triton total: spilled 0 -> " in said and "plain/triton: triton_launches 1 -> 2" in said
        assert f"new: {CASE} and 1 more: plain/triton total#2 is new" in said
    finally:
        path.unlink()
