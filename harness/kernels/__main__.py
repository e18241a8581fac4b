"""What are the kernels as machine code? Facts of every Triton and Gluon kernel of the GPU tier, and texts to read.

`python -m harness.kernels` compiles what the exact gate compiles, without a GPU: registers, spills, shared memory,
occupancy and instructions by kind, in a table and in files below `runs/kernels/`. With `--base` a revision's kernels
are compiled as well, by this checkout's harness and toolchain, and what differs is told, down to the machine code.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..collection import Collection, Failed, Found
from ..gate.revision import BaseTree, Stopped, find
from ..options import Options
from ..process import end_like_ctrl_c
from . import code, table
from .listing import Listing, sources, write

PACKAGE, BENCHES = "impls", "benches"


def collected(root: Path, study: str | None, match: str, folder: Path) -> Found:
    """Facts of a checkout's kernels, texts in `folder`. Raises Failed."""
    options = Options(root=str(root), device="cpu", tier="gpu", study=study)
    collection = Collection("listings", options, (str(folder.resolve()), match))
    found = collection.finish()
    if found.absent is not None:
        raise Failed(f"kernels cannot be compiled here: {found.absent}", refused=True)
    return found


def of_base(root: Path, name: str, study: str | None, match: str, folder: Path) -> tuple[str, Found]:
    """A revision in words, and its kernels by this checkout's harness. Raises Stopped, Failed or OSError."""
    revision = find(root, name)
    with BaseTree(root, revision, PACKAGE, BENCHES, ()) as tree:
        shutil.rmtree(tree.path / "tree" / "harness", ignore_errors=True)
        (tree.path / "tree" / "harness").symlink_to(root / "harness", target_is_directory=True)
        try:
            return str(revision), collected(tree.path / "tree", study, match, folder)
        except Failed as failure:
            raise Failed(f"the base {revision} with this checkout's harness: {failure}", failure.refused) from failure


def compare(listing: Listing, folder: Path) -> None:
    """Write the difference of machine codes for each change that has two. Raises OSError."""
    for change in listing.changes():
        if change.diff is None or change.before is None or change.after is None:
            continue
        sides = []
        for side, facts in (("base", change.before), ("head", change.after)):
            path = folder / f"{side}.partial"
            path.write_text(code.comparable((folder / f"{facts['code']}.sass.txt").read_text()))
            sides.append(path)
        words = [
            "git",
            "diff",
            "--no-index",
            "--no-color",
            "--no-ext-diff",
            "--unified=4",
            "base.partial",
            "head.partial",
        ]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        (folder / change.diff).write_text("".join(done.stdout.splitlines(keepends=True)[4:]))
        for path in sides:
            path.unlink()


def listed(root: Path, asked: argparse.Namespace, partial: Path) -> Listing:
    """Everything asked for. Raises Failed, Stopped or OSError."""
    head = find(root, "HEAD") if (root / ".git").exists() else None
    base, base_facts = None, {}
    if asked.base:
        print(f"compiling the kernels of {asked.base} ...", flush=True)
        base, found = of_base(root, asked.base, asked.study, asked.match, partial)
        base_facts = found.facts
    print("compiling the kernels of the working tree ...", flush=True)
    found = collected(root, asked.study, asked.match, partial)
    for problem in found.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if not any("code" in known for subjects in found.facts.values() for known in subjects.values()):
        asked_for = " ".join(filter(None, (asked.study and f"STUDY={asked.study}", asked.match and f"K={asked.match}")))
        raise Failed(f"no kernel was compiled for {asked_for or 'the GPU tier'}; make list TIER=gpu shows names", True)
    listing = Listing(
        revision="the working tree" + (f" at {head.commit[:10]}" if head else ""),
        facts=found.facts,
        toolchain=found.toolchain,
        sources=sources(root, PACKAGE),
        reasons={f"{case} {name}": why for (case, name), why in found.reasons.items()},
        base=base,
        base_facts=base_facts,
    )
    compare(listing, partial)
    write(listing, partial)
    return listing


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 all compiled, 1 a contender did not compile, 2 the request cannot be met, 130 stopped."""
    parser = argparse.ArgumentParser(prog="python -m harness.kernels", description=__doc__)
    parser.add_argument("--study", help="one study, for example ffn")
    parser.add_argument("--match", default="", metavar="TEXT", help="only cases and contenders with this in their name")
    parser.add_argument("--base", default="", help="a revision to compare with: main, HEAD~1, a commit")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/kernels"), help="where the files go; default: %(default)s"
    )
    asked = parser.parse_args(words)
    end_like_ctrl_c()
    partial = asked.out.with_name(f"{asked.out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        listing = listed(Path.cwd(), asked, partial)
        shutil.rmtree(asked.out, ignore_errors=True)
        partial.rename(asked.out)
    except (Failed, Stopped) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or asked.out} cannot be used: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the files of an earlier call are as they were", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print("\n".join(table.lines(listing)))
    print(f"files: {asked.out}")
    return 1 if any(table.failed(listing)) else 0


if __name__ == "__main__":
    sys.exit(main())
