"""The arrows between the folders: who may import whom, and that nothing is global."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("harness", "impls", "benches", "reports")
MAY_IMPORT = {"harness": set(), "impls": {"harness"}, "benches": {"harness", "impls"}, "reports": {"harness"}}
PUBLIC = {f"harness.{name}" for name in ("record", "metrics", "statistics", "units", "compare", "pairing", "verdict")}
PUBLIC |= {f"harness.{name}" for name in ("deviation", "lookup", "profiling.file", "provenance", "store", "timeline")}
PUBLIC |= {"harness.telemetry.lanes", "harness.kernels.listing", "harness.kernels.table"}


def imported(path: Path) -> set[str]:
    """Absolute names of the modules a file imports."""
    found: set[str] = set()
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_one_way(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        for name in imported(path):
            top = name.split(".")[0]
            if top in FOLDERS and top != folder and top not in MAY_IMPORT[folder]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_implementations_use_the_public_surface_and_relative_imports():
    wrong = []
    for path in (ROOT / "impls").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                top = (node.module or "").split(".")
                if top[0] == "impls" or (top[0] == "harness" and len(top) > 1):
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.module}")
    assert not wrong


def test_reports_read_records_and_never_torch():
    wrong = []
    for path in (ROOT / "reports").rglob("*.py"):
        for name in imported(path):
            if name.split(".")[0] == "torch":
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.startswith("harness.") and not any(name == p or name.startswith(f"{p}.") for p in PUBLIC):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_records_are_read_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import harness.record, sys; sys.exit('torch' in sys.modules)"], cwd=ROOT, check=False
    )
    assert done.returncode == 0


TWICE = """
import shutil, sys
from pathlib import Path
root, other = Path(sys.argv[1]), Path(sys.argv[2])
shutil.copytree(root / "impls", other / "impls_base")
sys.path[:0] = [str(root), str(other)]
from harness.registry import load
head, base = load("impls"), load("impls_base")
assert head is not base and load("impls") is head
assert set(head.operations) == set(base.operations) and head.operations
for name, known in head.implementations.items():
    assert set(known) == set(base.implementations[name])
    for contender, implementation in known.items():
        twin = base.implementations[name][contender]
        assert implementation.source != twin.source and implementation.digest == twin.digest
        assert implementation.kind == "compiled" or implementation.setup.__module__.startswith("impls.")
        assert twin.kind == "compiled" or twin.setup.__module__.startswith("impls_base.")
assert not [m for m in sys.modules if m.startswith("impls.") and "impls_base" in str(sys.modules[m].__file__)]
"""


def test_two_revisions_load_side_by_side_under_two_names(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(ROOT), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


LIMITS = {"lines": 400, "function": 60}


def test_files_and_functions_stay_small():
    wrong = []
    for folder in (*FOLDERS, "."):
        for path in (ROOT / folder).glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if text.count("\n") > LIMITS["lines"]:
                wrong.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    if length > LIMITS["function"]:
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not wrong
