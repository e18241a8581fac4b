"""The regression gate: a base revision against the working tree, exactly and in time, with one exit code.

`python -m harness.gate --base origin/main` compares what has no noise with the committed baselines (`exact.py`), then
times both revisions' small cases in turn, in the same processes, under the working tree's harness, inputs and clocks.
Every run proves itself: the base against itself must come out the same, and a copy of it slowed on purpose must be
noticed. Wins over a stored wall time, which on a shared machine says more about the machine than about the code. Loses
what only shows at real sizes: that is for the exact gate and for recorded runs.
"""

from __future__ import annotations

import argparse
import datetime
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .. import exact
from ..deviation import NOTHING, USAGE
from ..options import Options
from ..process import end_like_ctrl_c
from ..provenance import changed_tools
from ..units import some
from . import kernels
from .options import GateOptions
from .outcome import MEANINGS, Outcome
from .report import lines, write
from .revision import BaseTree, Stopped, changed_paths, find
from .run import GateRun

TOOLCHAIN = ("requirements",)
PARTS = ("exact", "timing")
TIMEOUT = 60.0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 for one that cannot be read."""
    codes = ", ".join(f"{code} {meaning}" for code, meaning in sorted(MEANINGS.items()))
    parser = argparse.ArgumentParser(prog="python -m harness.gate", description=__doc__, epilog=f"Exit codes: {codes}.")
    parser.add_argument("--base", default="", help="the revision to compare with: origin/main, HEAD~1, a commit")
    parser.add_argument("--study", help="one study, for example ffn")
    parser.add_argument("--match", default="", metavar="TEXT", help="time only cases with this in their name")
    parser.add_argument("--only", choices=PARTS, help="one of the two parts")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU where there is one")
    parser.add_argument("--budget", type=float, help="seconds for timing; default: 27 on a CPU, 120 on a GPU")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds after which code hangs; default: 60")
    parser.add_argument(
        "--base-python",
        default="",
        metavar="PYTHON",
        help="interpreter of an environment with the base's requirements, where those changed: each revision is timed "
        "under its own, in two processes in turn",
    )
    parser.add_argument("--package", default="impls", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="folder for gate.json, gate.md and gate.xml; default: in runs/")
    return parser.parse_args(words)


def new_folder(runs: Path) -> Path:
    """Where a gate's files go when nothing is said."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    names = [f"gate-{stamp}", *(f"gate-{stamp}-{number}" for number in range(2, 100))]
    return next(folder for name in names if not (folder := runs / name).exists())


def run(asked: argparse.Namespace, root: Path, folder: Path) -> Outcome:
    """Both parts. Raises Stopped where there is nothing to compare."""
    if not asked.base:
        raise Stopped(USAGE, "which revision is the base? BASE=origin/main, or --base HEAD~1")
    for name in ("budget", "timeout"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < math.inf:
            raise Stopped(USAGE, f"{name.upper()}={value:g} is not a number of seconds above 0")
    if asked.base_python and shutil.which(asked.base_python) is None:
        raise Stopped(USAGE, f"BASE_PYTHON={asked.base_python} is no program that can be run")
    base = find(root, asked.base)
    outcome = Outcome(base, _head(root))
    if asked.only != "timing":
        print("exact gate ...", flush=True)
        outcome.exact = exact.check(Options(root=str(root), study=asked.study, package=asked.package))
        print("kernels in Triton's interpreter ...", flush=True)
        _guarded(outcome, partial(_interpret, asked, root, folder, outcome))
    if asked.only != "exact":
        print(f"timing gate against {base} ...", flush=True)
        _remark_changes(outcome, root, asked.package, asked.base_python)
        _guarded(outcome, partial(_time, asked, root, folder, outcome))
    return outcome


def _guarded(outcome: Outcome, part: Callable[[], None]) -> None:
    """A part that stops costs no other."""
    try:
        part()
    except Stopped as stopped:
        outcome.remark(f"error: {stopped}", stopped.code)


def _options(asked: argparse.Namespace, root: Path) -> GateOptions:
    same = {name: getattr(asked, name) for name in ("study", "device", "budget", "timeout", "package", "base_python")}
    return GateOptions(root=str(root), **same)


def _interpret(asked: argparse.Namespace, root: Path, folder: Path, outcome: Outcome) -> None:
    found = kernels.judge(_options(asked, root), folder / "worker.log")
    if found is None:
        outcome.remark("Triton is not installed here: what its kernels compute was not looked at")
    outcome.kernels = found or []


def _time(asked: argparse.Namespace, root: Path, folder: Path, outcome: Outcome) -> None:
    options = _options(asked, root)
    with BaseTree(root, outcome.base, options.package, options.benches, options.copies) as tree:
        measured = GateOptions(**{**options.__dict__, "base_path": str(tree.path)})
        found = GateRun(measured, folder / "worker.log", asked.match, say=lambda said: print(said, flush=True)).run()
        outcome.timed = found
        if found.base_software is not None:
            tools = changed_tools(found.base_software, found.software) or "the same versions"
            outcome.remark(f"each revision had an environment of its own, base -> head: {tools}")
        if changed_paths(root, outcome.base, (options.benches, options.package)):
            _remark_lost_cases(outcome, tree, asked, found.device)


def _remark_lost_cases(outcome: Outcome, tree: BaseTree, asked: argparse.Namespace, device: str) -> None:
    """Cases that the base's own list has and the head's has not: renamed, or dropped."""
    listed = tree.cases(device)
    if listed is None:
        outcome.remark("the base's own list of gate cases cannot be read: a case that was dropped goes unnoticed")
        return
    here = {(case.case, case.contender) for case in outcome.timed.cases} if outcome.timed else set()
    for case, contender in sorted(listed - here):
        if asked.match in f"{case} {contender}" and asked.study in (None, case.split(".")[0]):
            outcome.remark(f"missing: {case} {contender}: the base lists this case, the head does not", NOTHING)


def _head(root: Path) -> str:
    """The working tree in words."""
    head = find(root, "HEAD")
    dirty = changed_paths(root, head, (".",))
    return f"working tree at {head.commit[:10]}" + (f" with changes in {some(len(dirty), 'file')}" if dirty else "")


def _remark_changes(outcome: Outcome, root: Path, package: str, base_python: str) -> None:
    """What is the same in both, and what is another but was measured under the head's."""
    if not changed_paths(root, outcome.base, (package,)):
        outcome.remark(f"{package}/ is the same in both revisions: a comparison of equal code")
    tools = changed_paths(root, outcome.base, TOOLCHAIN)
    if tools:
        said = "each revision was timed under its own"
        if not base_python:
            said = "both revisions were timed under what is installed here, so its own effect is not seen; BASE_PYTHON="
            said += "the python of an environment with the base's requirements shows it"
        outcome.remark(f"the toolchain changed ({', '.join(tools)}): {said}")


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: see MEANINGS."""
    asked = parse(words)
    end_like_ctrl_c()
    root = Path.cwd()
    folder = asked.out or new_folder(root / "runs")
    try:
        outcome = run(asked, root, folder)
        write(outcome, folder)
    except Stopped as stopped:
        print(f"error: {stopped}\ngate: exit code {stopped.code}: {MEANINGS[stopped.code]}", file=sys.stderr)
        return stopped.code
    except OSError as error:
        print(f"error: {error.filename or folder} cannot be used: {error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("stopped: nothing was decided", file=sys.stderr)
        return 130
    print("\n".join(lines(outcome)))
    print(f"files: {folder}")
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
