"""Runs that begin in one second have folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalog import Refused
from harness.folder import new_folder


def test_no_two_runs_share_a_folder(tmp_path: Path) -> None:
    made = [new_folder(tmp_path / "runs", "ffn-balance", tmp_path) for _ in range(20)]
    assert len(set(made)) == 20 and all(one.is_dir() and "-ffn-balance-nocommit" in one.name for one in made)


def test_where_none_can_be_made_the_request_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be written: Not a directory; give --runs another folder"):
        new_folder(tmp_path / "file", "all", tmp_path)

    def taken(folder: Path, **_: bool) -> None:
        raise FileExistsError(folder)

    monkeypatch.setattr(Path, "mkdir", taken)
    with pytest.raises(Refused, match="a hundred runs of this second"):
        new_folder(tmp_path, "all", tmp_path)
