"""The base revision: found by name, its code laid out in a temporary folder under other package names.

`git archive` reads the revision out of the repository, so neither index, working tree nor list of worktrees is
touched, and what a gate leaves behind when it is killed is a folder in the system's temporary directory. Uncommitted
changes belong to the head, which is the working tree as it is.
"""

from __future__ import annotations

import compileall
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..deviation import INCOMPATIBLE, USAGE

LIST_SECONDS = 120
LIST = """
import json, sys
sys.path.insert(0, "")
from {benches}.gate_cases import cases
print("\\n" + json.dumps([[workload.id, name] for workload, names in cases({device!r}) for name in names]))
"""


class Stopped(Exception):
    """The gate cannot go on; the message says why and what to do, `code` is its exit status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Revision:
    """A commit by the name it was asked for."""

    name: str
    commit: str
    title: str

    def __str__(self) -> str:
        return f"{self.name} ({self.commit[:10]}, {self.title})"


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    except OSError as error:
        raise Stopped(USAGE, f"git cannot be started: {error.strerror}; the gate reads the base from it") from error


def find(root: Path, name: str) -> Revision:
    """The commit that `name` stands for. Raises Stopped outside a repository and for a name that is none."""
    if _git(root, "rev-parse", "--git-dir").returncode:
        raise Stopped(USAGE, f"{root} is not in a git repository, and the base is a revision of one")
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found.returncode:
        shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
        hint = "; this clone is shallow: git fetch --unshallow" if shallow else "; git fetch may bring it"
        raise Stopped(USAGE, f"BASE={name} is no revision here{hint}")
    commit = found.stdout.decode().strip()
    title = _git(root, "log", "-1", "--format=%s", commit).stdout.decode(errors="replace").strip()
    return Revision(name, commit, title)


def changed_paths(root: Path, revision: Revision, paths: Sequence[str]) -> list[str]:
    """Files below `paths` that are not as in the revision, untracked ones included, relative to `root`."""
    known = [path for path in paths if (root / path).exists()]
    tracked = _git(root, "diff", "--name-only", "--relative", revision.commit, "--", *paths)
    fresh = _git(root, "ls-files", "--others", "--exclude-standard", "--", *known) if known else tracked
    return sorted({*tracked.stdout.decode().split("\n"), *fresh.stdout.decode().split("\n")} - {""})


def _inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """A member of an archive; not one that would lie or point outside of where it is unpacked."""
    try:
        return tarfile.data_filter(member, path)
    except tarfile.FilterError:
        return None


class BaseTree:
    """A temporary folder with the revision's files in `tree`, and copies of its package by other names beside it.

    A context manager: the folder is gone afterwards. Raises Stopped for a revision without the package.
    """

    def __init__(self, root: Path, revision: Revision, package: str, benches: str, copies: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="whalebench-gate-", ignore_cleanup_errors=True)
        self.path, self._benches, self._revision = Path(self._folder.name), benches, revision
        try:
            self._extract(root, package)
            for copy in copies:
                shutil.copytree(self.path / "tree" / package, self.path / f"{package}_{copy}")
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> BaseTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _extract(self, root: Path, package: str) -> None:
        prefix = _git(root, "rev-parse", "--show-prefix").stdout.decode().strip()
        archive = _git(root, "archive", "--format=tar", f"{self._revision.commit}:{prefix}")
        if archive.returncode == 0:
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
                tar.extractall(self.path / "tree", filter=_inside)
        if not (self.path / "tree" / package).is_dir():
            raise Stopped(INCOMPATIBLE, f"the base {self._revision} has no {package}/ to compare with")
        compileall.compile_dir(self.path / "tree" / package, quiet=2)  # once for all copies

    def cases(self, device: str) -> set[tuple[str, str]] | None:
        """Cases and contenders that the revision's own benches list; None where they cannot tell."""
        tree = self.path / "tree"
        if not (tree / self._benches / "gate_cases.py").is_file():
            return set()
        try:
            done = subprocess.run(
                [sys.executable, "-c", LIST.format(benches=self._benches, device=device)],
                cwd=tree,
                capture_output=True,
                text=True,
                timeout=LIST_SECONDS,
                check=True,
            )
            return {(case, name) for case, name in json.loads(done.stdout.rsplit("\n", 2)[-2])}
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return None
