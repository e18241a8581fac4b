"""The documents: what they show runs, what they name is there, what they link to exists."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.record import Run, read_run

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "DESIGN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(python|json|sh)\n(.*?)```", re.DOTALL)
MOST_BYTES = 250_000
GENERATED = "reports/site"


def blocks(path: Path) -> dict[str, str]:
    """Code that names its file in the first line, by that name."""
    found = {}
    for kind, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        first, rest = text.split("\n", 1)
        if kind != "sh" and (name := re.fullmatch(r"(?:#|//) ([\w/.]+)", first)):
            found[name[1]] = text if kind == "python" else rest
    return found


SHOWN = blocks(ROOT / "docs" / "adding.md")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which commands work on the real code, with the shown files beside."""
    for name in ("harness", "reports", "conftest.py", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, text in SHOWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for package in ("impls", "impls/norm", "benches"):
        (tmp_path / package / "__init__.py").touch()
    return tmp_path


@pytest.fixture
def suite(checkout: Path) -> Path:
    """The same with the suite's own implementations and benches instead."""
    for name in ("impls", "benches"):
        shutil.rmtree(checkout / name)
        (checkout / name).symlink_to(ROOT / name)
    return checkout


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def measured(folder: Path, *words: str) -> Run:
    """The only run that these words leave."""
    done = python(folder, "-m", "harness.run", "--device", "cpu", "--tier", "smoke", "--budget", "6", *words)
    runs = list((folder / "runs").glob("*/run.jsonl"))
    assert len(runs) == 1, done.stdout + done.stderr
    return read_run(runs[0].parent)


CASE = "attention.decode_kernel/v2-lite-tp4/b2-s64-ragged-fp32"


@pytest.mark.parametrize(("change", "status"), [(("", ""), "passed"), (("slots <= last", "slots < last"), "incorrect")])
def test_the_implementation_shown_is_right_and_with_another_mask_wrong(
    suite: Path, change: tuple[str, str], status: str
) -> None:
    mine = suite / "mine.py"
    mine.write_text(SHOWN["mine.py"].replace(*change), encoding="utf-8")
    records = {r.contender: r for r in measured(suite, "--impl", "mine.py", "--case", CASE).records}
    found = records["gqa/heads-first"]
    assert found.status == status and ("latency" in found.figures) == (status == "passed")
    assert found.layout == "heads before slots" if status == "passed" else "is off by" in (found.reason or "")


def test_the_readme_s_implementation_is_right(suite: Path) -> None:
    (text,) = (text for kind, text in BLOCK.findall((ROOT / "README.md").read_text()) if kind == "python")
    (suite / "readme.py").write_text(text, encoding="utf-8")
    run = measured(suite, "--impl", "readme.py", "--case", "attention.prefill_kernel/v2-lite-tp4/b1-s64-fp32")
    assert {r.contender: r.status for r in run.records}["mha/mine"] == "passed"


def test_the_workload_and_the_model_shown_are_what_is_said(suite: Path) -> None:
    done = python(suite, "workload.py")
    assert done.returncode == 0, done.stderr
    words = ("--list", "--model", "config.json", "--study", "attention", "--tier", "smoke", "--device", "cpu")
    listed = python(suite, "-m", "harness.run", *words)
    assert listed.returncode == 0 and "6 cases" in listed.stdout, listed.stdout + listed.stderr
    (suite / "config.json").write_text(SHOWN["config.json"].replace('"hidden_size": 512', '"hidden_size": "many"'))
    refused = python(suite, "-m", "harness.run", *words)
    assert refused.returncode == 2 and "hidden_size" in refused.stdout + refused.stderr


def test_the_study_shown_is_measured_and_has_a_page(checkout: Path) -> None:
    run = measured(checkout, "--study", "norm")
    passed = {(r.sizes, r.contender) for r in run.records if r.status == "passed"}
    assert passed >= {("n64", "layer/reference"), ("n64", "rms/reference")}
    assert {r.status for r in run.records} <= {"passed", "unavailable"}
    report = python(checkout, "-m", "reports", "--out", "site")
    assert report.returncode == 0, report.stdout + report.stderr
    pages = {path.stem for path in (checkout / "site").rglob("*.html")}
    assert pages >= {"norm", "norm.forward--rows--n64"}


def test_shown_code_is_no_wider_than_ours() -> None:
    for name, text in SHOWN.items():
        if name.endswith(".py"):
            ast.parse(text)
            assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / target).exists(), target
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = "\n".join(re.findall(r"```sh\n.*?```|`[^`\n]+`", text, re.DOTALL))
    for name in re.findall(r"\bmake ([a-z][a-z-]*)", shown):
        assert name in targets, f"make {name}"
    for module in re.findall(r"python -m ((?:harness|reports|benches|tests)[\w.]*)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").is_file() or (file / "__main__.py").is_file(), module
    for name in re.findall(r"`((?:harness|reports|benches|impls|tests|docs)/[\w./]+)`", text):
        assert (ROOT / name).exists() or name.startswith(GENERATED), name


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs").glob("*.png"):
        assert path.stat().st_size <= MOST_BYTES, path.name
